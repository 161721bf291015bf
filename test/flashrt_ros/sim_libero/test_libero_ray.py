"""An evaluation on a Ray cluster of this machine gives what one process gives."""

import pytest
from support.fake_simulator import simulator_spec

from flashrt_core.errors import ConfigError
from flashrt_ros.sim.libero.plan import EvaluationPlan
from flashrt_ros.sim.libero.policies import make_policy
from flashrt_ros.sim.libero.ray_run import run_on_ray
from flashrt_ros.sim.libero.run import open_results, run_here, run_jobs

BEHAVIOUR = {"faults": {"1": "raise"}, "any_motion": True}
TIMES = ("wall_s", "reset_s", "physics_s", "render_s", "policy_s")


def rows(tmp_path, name, workers, outcomes_of):
    plan = EvaluationPlan(simulator_spec(tmp_path, BEHAVIOUR), "scripted", (0,), 4, 7, workers=workers)
    file = open_results(plan, tmp_path / name)
    run_jobs(file, file.missing(), outcomes_of(plan))
    return [{k: v for k, v in row.items() if k not in TIMES} for _, row in sorted(file.rows.items())]


def test_ray_gives_the_same_episodes(tmp_path):
    pytest.importorskip("ray")
    here = rows(tmp_path, "here", 1, lambda plan: run_here(plan, make_policy("scripted", "robosuite_lift")))
    there = rows(tmp_path, "ray", 2, lambda plan: run_on_ray(plan, "local", lambda text: None))
    assert there == here and [bool(r["error"]) for r in here] == [False, True, False, False]


def test_F83_an_actor_that_dies_costs_one_episode(tmp_path):
    """Killed in its second episode, as a node that is out of memory kills it; another takes its place."""
    pytest.importorskip("ray")
    behaviour = {**BEHAVIOUR, "faults": {"1": "kill parent"}}
    plan = EvaluationPlan(simulator_spec(tmp_path, behaviour), "scripted", (0,), 4, 7)
    file = open_results(plan, tmp_path / "out")
    run_jobs(file, file.missing(), run_on_ray(plan, "local", lambda text: None))
    errors = [file.rows[job.key]["error"] for job in plan.jobs()]
    assert errors == [None, "DeviceError: its Ray actor died", None, None]


def test_what_no_episode_can_get_past_is_said_by_its_own_error(tmp_path):
    pytest.importorskip("ray")
    plan = EvaluationPlan(simulator_spec(tmp_path, {"start": "config"}), "scripted", (0,), 2, 7)
    file = open_results(plan, tmp_path / "out")
    with pytest.raises(ConfigError, match="make libero") as caught:
        run_jobs(file, file.missing(), run_on_ray(plan, "local", lambda text: None))
    assert len(str(caught.value).splitlines()) == 1


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("flashrt_ros.replay.cluster.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .*\[ray\]"):
        rows(tmp_path, "out", 1, lambda plan: run_on_ray(plan, "local", lambda text: None))
