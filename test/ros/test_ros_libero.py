"""A LIBERO evaluation over DDS with a double of the simulator: node and simulation as processes, faults, accounts."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_simulator import simulator_spec

from flashrt_core.errors import ConfigError
from flashrt_ros.sim.libero.plan import Condition, EvaluationPlan
from flashrt_ros.sim.libero.ros_run import run_over_ros
from flashrt_ros.sim.libero.run import open_results, run_jobs

NONE = (Condition("none", 0.0),)


def make_plan(folder: Path, behaviour: dict, **fields) -> EvaluationPlan:
    spec = simulator_spec(folder, {"any_motion": True, **behaviour})
    return EvaluationPlan(spec, "scripted", (0,), fields.pop("episodes", 2), 7, conditions=fields.pop("conditions", NONE), **fields)


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


REFUSED = [{"conditions": (Condition(),)}, {"conditions": (Condition("none", 50.0),)}, {"policy": "demo-replay"}, {"workers": 2}]


@pytest.mark.parametrize("fields", REFUSED)
def test_what_cannot_be_run_over_dds_is_said(tmp_path, fields):
    from dataclasses import replace

    with pytest.raises(ConfigError, match="via ros"):
        run_over_ros(replace(make_plan(tmp_path, {}), **fields), lambda text: None)
