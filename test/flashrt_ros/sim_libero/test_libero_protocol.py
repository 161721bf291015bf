"""The constants of the reference evaluations, the plan made of them, and the words of the command line."""

import argparse

import pytest

from flashrt_core.errors import ConfigError
from flashrt_ros.commands import libero as command
from flashrt_ros.sim.libero.env_client import SimulatorSpec
from flashrt_ros.sim.libero.plan import STRATEGIES, Condition, EvaluationPlan, units
from flashrt_ros.sim.libero.protocol import PROTOCOLS, SUITES, WAIT_ACTION, protocol


def test_constants_of_openpi():
    p = protocol("openpi")
    assert (p.resolution, p.wait_steps, p.replan_steps, p.episodes, p.seed) == (256, 10, 5, 50, 7)
    steps = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
    assert {k: p.max_steps[k] for k in steps} == steps
    assert not p.seed_each_episode and WAIT_ACTION == (0, 0, 0, 0, 0, 0, -1)


def test_constants_of_lerobot():
    p = protocol("lerobot")
    assert (p.resolution, p.wait_steps, p.replan_steps, p.episodes, p.seed) == (360, 10, 10, 10, 1000)
    assert p.max_steps["libero_spatial"] == 280 and p.max_steps["libero_10"] == 520 and p.seed_each_episode


def test_every_protocol_covers_every_suite():
    for p in PROTOCOLS.values():
        assert set(p.max_steps) == set(SUITES)
    assert command.SUITES == tuple(SUITES) and command.STRATEGIES == STRATEGIES


def plan(suite="libero_spatial", name="openpi", **fields) -> EvaluationPlan:
    said = {"policy": "scripted", "tasks": (0, 1), "episodes": 4, "seed": 7, **fields}
    return EvaluationPlan(SimulatorSpec(suite, protocol(name)), **said)


def test_trials_of_a_task_stay_together_where_the_seeding_wants_it():
    p = plan(workers=2)
    groups = units(p.jobs(), p)
    assert [[(j.task, j.trial) for j in g] for g in groups] == [[(t, k) for k in range(4)] for t in (0, 1)]
    p = plan(workers=4)
    assert [[j.trial for j in g] for g in units(p.jobs(), p)] == [[0, 1], [2, 3], [0, 1], [2, 3]]


def test_trials_are_free_where_each_has_its_seed():
    p = plan(name="lerobot")
    assert all(len(g) == 1 for g in units(p.jobs(), p))
    p = plan(suite="robosuite_lift", tasks=(0,))
    assert all(len(g) == 1 for g in units(p.jobs(), p))


def test_noise_is_the_same_in_every_condition_and_differs_between_episodes():
    jobs = plan(conditions=(Condition(), Condition("quintic", 100.0))).jobs()
    assert len({j.key for j in jobs}) == 16 and len({j.seed(7) for j in jobs}) == 8


@pytest.mark.parametrize(
    "fields, thing",
    [
        ({"tasks": (0, 10)}, "tasks"), ({"tasks": (1, 1)}, "tasks"), ({"episodes": 0}, "episodes"), ({"workers": 0}, "workers"),
        ({"realtime": True, "workers": 2}, "workers"), ({"conditions": (Condition(), Condition())}, "conditions"),
        ({"replan_ticks": 2000}, "replan_ticks"), ({"realtime": True, "conditions": (Condition("none", 50.0),)}, "latency_ms"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_refused(fields, thing):
    with pytest.raises(ConfigError, match=thing):
        plan(**fields)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'quintic'"):
        Condition("quintc")
    with pytest.raises(ConfigError, match="did you mean 'openpi'"):
        protocol("openpy")
    with pytest.raises(ConfigError, match="egl, osmesa, glfw"):
        SimulatorSpec("libero_10", protocol("openpi"), gl="vulkan")


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_plan_of_the_command_line(tmp_path):
    p = command.make_plan(options("--suite", "libero_10", "--checkpoint", str(tmp_path), "--tasks", "0-2,7",
                                  "--splice", "none", "sync", "--latency-ms", "0", "100"))  # fmt: skip
    assert p.policy == "checkpoint" and p.tasks == (0, 1, 2, 7) and (p.episodes, p.seed, p.replan) == (50, 7, 5)
    assert [c.name for c in p.conditions] == ["none-0ms", "none-100ms", "sync-0ms", "sync-100ms"]
    p = command.make_plan(options("--protocol", "lerobot", "--episodes", "3"))
    assert p.policy == "scripted" and (p.episodes, p.seed, p.replan, p.tasks) == (3, 1000, 10, (0,))


@pytest.mark.parametrize(
    "words, match",
    [
        (["--suite", "libero_spatal"], "did you mean 'libero_spatial'"),
        (["--suite", "libero_spatial"], "--checkpoint"),
        (["--policy", "scripted", "--checkpoint", "x"], "--checkpoint"),
        (["--policy", "replay"], "policy"),
        (["--via", "tcp"], "inprocess or ros"),
        (["--tasks", "a"], "tasks"),
        (["--tasks", "3-"], "tasks"),
        (["--precision", "fp4"], "precision"),
    ],
)
def test_bad_words_are_one_typed_error(words, match):
    with pytest.raises(ConfigError, match=match):
        command.make_plan(options(*words))
