"""A LIBERO evaluation over DDS with a double of the simulator: node and simulation as processes, faults, accounts."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_simulator import simulator_spec

from flashrt_core.errors import ConfigError
from flashrt_ros.sim.libero.plan import Condition, EvaluationPlan
from flashrt_ros.sim.libero.ros_run import run_over_ros
from flashrt_ros.sim.libero.run import open_results, run_jobs
from flashrt_ros.sim.tabletop import POLICY_DIR

NONE = (Condition("none", 0.0),)


def make_plan(folder: Path, behaviour: dict, **fields) -> EvaluationPlan:
    said = {"policy": "scripted", "tasks": (0,), "episodes": 2, "seed": 7, "conditions": NONE, **fields}
    return EvaluationPlan(simulator_spec(folder, {"any_motion": True, **behaviour}), **said)


def test_episodes_over_dds_with_a_broken_one_among_them(tmp_path):
    plan = make_plan(tmp_path, {"needs": 8, "faults": {"1": "raise"}}, episodes=3)
    file = open_results(plan, tmp_path / "out")
    phases: list[str] = []
    run_jobs(file, file.missing(), run_over_ros(plan, phases.append, rate=0.8, camera_hz=20.0))
    rows = [file.rows[job.key] for job in plan.jobs()]
    assert [bool(r["error"]) for r in rows] == [False, True, False], [r["error"] for r in rows]
    assert "diverged" in rows[1]["error"]
    assert all(r["success"] and r["steps"] == 8 for r in (rows[0], rows[2]))
    assert "active: running" in phases
    assert len(file.episodes([rows[0]])[0].commands) == 8


def test_a_first_scene_that_cannot_be_put_in_place_is_one_error(tmp_path):
    plan = make_plan(tmp_path, {"needs": 8, "faults": {"0": "reset"}})
    file = open_results(plan, tmp_path / "out")
    run_jobs(file, file.missing(), run_over_ros(plan, lambda text: None, rate=0.8, camera_hz=20.0))
    rows = [file.rows[job.key] for job in plan.jobs()]
    assert "no placement found" in rows[0]["error"] and rows[1]["error"] is None and rows[1]["success"]


REFUSED = [{"conditions": (Condition(),)}, {"conditions": (Condition("none", 50.0),)}, {"policy": "demo-replay"}, {"workers": 2}]


@pytest.mark.parametrize("fields", REFUSED)
def test_what_cannot_be_run_over_dds_is_said(tmp_path, fields):
    from dataclasses import replace

    with pytest.raises(ConfigError, match="via ros"):
        run_over_ros(replace(make_plan(tmp_path, {}), **fields), lambda text: None)


def test_a_checkpoint_acts_through_the_node(tmp_path):
    """The bundled Pi0.5 has LIBERO's shapes; pictures are fitted to its 112 px by the node."""
    plan = make_plan(
        tmp_path, {"needs": 8}, episodes=1, policy="checkpoint", checkpoint=str(POLICY_DIR),
        worker=(("hardware", "host"), ("use_fp8", False)),
    )  # fmt: skip
    file = open_results(plan, tmp_path / "out")
    run_jobs(file, file.missing(), run_over_ros(plan, lambda text: None, rate=0.5, camera_hz=20.0))
    (row,) = file.rows.values()
    assert row["error"] is None and row["success"]
    assert file.episodes([row])[0].commands.std() > 0
