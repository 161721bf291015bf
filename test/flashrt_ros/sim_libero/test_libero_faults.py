"""F83: an episode whose simulator raises, fails to draw, hangs or dies is an error, counted apart, and the run goes on.
F84: init states come from .npz without objects; pickles are refused, and the converter loads none."""

import argparse
import io
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from support.fake_simulator import Forward, simulator_spec

from flashrt_core.errors import CheckpointNotFound, ConfigError, DeviceError
from flashrt_ros.sim.libero import env_process
from flashrt_ros.sim.libero.env_client import SimulatorEnv, SimulatorProcess, SimulatorTimeout
from flashrt_ros.sim.libero.init_states import init_state_file, read_init_states
from flashrt_ros.sim.libero.plan import EvaluationPlan
from flashrt_ros.sim.libero.policies import CheckpointPolicy
from flashrt_ros.sim.libero.results import summarise
from flashrt_ros.sim.libero.run import open_results, run_here, run_jobs
from flashrt_ros.worker.interface import Script, WorkerSpec
from tools import convert_init_states as converter


def test_a_missing_simulator_is_said_before_what_draws(monkeypatch):
    monkeypatch.setattr(env_process, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"robosuite, mujoco, OpenGL missing.*make libero"):
        env_process.open_suite(argparse.Namespace(suite="robosuite_lift", gl="egl", look=False))


# ---- F83


def run(tmp_path, behaviour, episodes, policy=None, **fields):
    plan = EvaluationPlan(simulator_spec(tmp_path, behaviour, **fields), "scripted", (0,), episodes, 7)
    file = open_results(plan, tmp_path / "out")
    run_jobs(file, file.missing(), run_here(plan, policy or Forward()))
    return file, [file.rows[job.key] for job in plan.jobs()]


def test_F83_broken_simulators_are_errors_and_the_run_goes_on(tmp_path):
    faults = {"1": "raise", "2": "render", "3": "die", "4": "abort", "5": "reset"}
    file, rows = run(tmp_path, {"faults": faults, "needs": 12}, 7)
    assert [bool(r["error"]) for r in rows] == [False, True, True, True, True, True, False]
    words = ("the simulator diverged", "rendering failed", "exit code 3", "SIGABRT", "no placement found")
    assert all(word in row["error"] for word, row in zip(words, rows[1:6], strict=True)), [r["error"] for r in rows]
    cell = summarise(file, 1.0)["conditions"][0]
    assert (cell["episodes"], cell["successes"], cell["errors"]) == (2, 2, 5)
    assert cell["success_rate"] == 1.0  # errors are not in the rate


def test_F83_hung_simulator_is_killed_and_replaced(tmp_path, monkeypatch):
    """Only the process that hangs has a short bound: on a busy machine the other one may take its time."""
    call, processes = SimulatorProcess.call, []

    def bounded(self, do, timeout_s, *args, **fields):
        processes.append(self) if self not in processes else None
        return call(self, do, 0.3 if (self is processes[0] and do == "step") else 60.0, *args, **fields)

    monkeypatch.setattr(SimulatorProcess, "call", bounded)
    _, rows = run(tmp_path, {"faults": {"0": "hang"}}, 2)
    assert "within 0.3 s" in rows[0]["error"] and not rows[0]["success"]
    assert rows[1]["error"] is None and rows[1]["success"] and len(processes) == 2
    assert all(p.pid == 0 for p in processes)  # killed, and waited for: no zombie is left


def test_F83_the_bound_of_a_call_is_the_spec_s(tmp_path):
    """The other half: what the wire waits for is what the specification says."""
    env = SimulatorEnv(simulator_spec(tmp_path, {"faults": {"0": "hang"}}, step_s=0.3), 7, tmp_path / "log")
    env.reset_to(0, 0)
    with pytest.raises(SimulatorTimeout, match=r"within 0\.3 s"):
        for _ in range(3):
            env.step(np.zeros(7))
    env.close()


@pytest.mark.parametrize(
    ("behaviour", "episode_s"), [({"needs": 10**6}, 0.001), ({"faults": {"0": "hang"}}, 0.3)], ids=["busy", "in a call"]
)
def test_F83_an_episode_that_never_ends_is_stopped(tmp_path, behaviour, episode_s):
    """Whichever notices first, the clock between two calls or the bound of a call: it is the episode's."""
    _, rows = run(tmp_path, behaviour, 1, episode_s=episode_s)
    assert "SimulatorError: episode" in rows[0]["error"]


def test_F83_a_simulator_that_never_starts_ends_the_run(tmp_path):
    with pytest.raises(DeviceError, match="exit code 9"):
        run(tmp_path, {"start": "die"}, 5)
    lines = (tmp_path / "out/result.jsonl").read_text().splitlines()
    assert len(lines) == 3  # the head and two errors; the third start gave up


def test_a_process_that_cannot_be_started_leaves_nothing_open(tmp_path):
    """Also while somebody keeps the error and with it the frames."""
    spec = replace(simulator_spec(tmp_path), python=tmp_path / "none")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError, match="make libero") as kept:
        SimulatorProcess(spec, tmp_path / "log")
    assert len(os.listdir("/proc/self/fd")) == before and kept.value.__traceback__ is not None


def test_F83_what_no_episode_can_get_past_is_said_once(tmp_path):
    with pytest.raises(ConfigError, match="make libero"):
        run(tmp_path, {"start": "config"}, 5)
    assert not (tmp_path / "out/result.jsonl").exists()  # another --suite or --checkpoint may use the folder


def test_F83_an_episode_whose_policy_raised_says_nothing_about_it(tmp_path):
    policy = Forward(broken=(1,))
    file, rows = run(tmp_path, {"needs": 12}, 3, policy)
    assert [r["error"] for r in rows] == [None, "1 policy calls failed", None] and policy.closed
    cell = summarise(file, 1.0)["conditions"][0]
    assert (cell["episodes"], cell["errors"]) == (2, 1)


def test_F83_a_policy_process_that_dies_costs_one_episode(tmp_path):
    """The worker is the one that a robot has: killed in its fourth call, it is started again."""
    policy = CheckpointPolicy(WorkerSpec(script=Script(faults={4: "die"}, constant=0.5)))
    _, rows = run(tmp_path, {"needs": 12}, 3, policy)
    assert [bool(r["error"]) for r in rows] == [False, True, False], [r["error"] for r in rows]
    assert "policy calls failed" in rows[1]["error"]


# ---- F84


def pruned_init(path, states) -> None:
    """As torch.save writes it: a zip with a pickle of protocol 2."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", states if isinstance(states, bytes) else pickle.dumps(states, protocol=2))
        archive.writestr("archive/version", "3")


class Hostile:
    """Unpickling it makes a folder."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("shape", [(50, 47), (1, 1), (3, 300), (300, 92)])
def test_F84_converter_takes_the_numbers_without_unpickling(tmp_path, shape):
    states = np.random.default_rng(1).normal(size=shape)
    (tmp_path / "in/libero_x").mkdir(parents=True)
    pruned_init(tmp_path / "in/libero_x/task.pruned_init", states)
    assert converter.main(["--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    back = read_init_states(init_state_file(tmp_path / "out", "libero_x", "task"))
    assert back.dtype == np.float64 and np.array_equal(back, states)


@pytest.mark.parametrize("where", ["alone", "in a list", "in an object array", "instead of the numbers"])
def test_F84_hostile_pickle_is_refused_and_not_run(tmp_path, where):
    mark, file = tmp_path / "ran", tmp_path / "task.pruned_init"
    hostile = Hostile(mark)
    kinds = {"alone": hostile, "in a list": [np.zeros((2, 3)), hostile], "in an object array": np.array([[hostile]], object)}
    raw = pickle.dumps(kinds.get(where, hostile), protocol=2)
    if where == "instead of the numbers":  # the end of a good pickle, made to call something
        good = pickle.dumps(np.zeros((2, 3)), protocol=2)
        raw = good.replace(b"c_codecs\nencode", b"cbuiltins\nexec")
    pruned_init(file, raw)
    with pytest.raises(ConfigError, match="plain float64 array"):
        converter.read_file(file)
    assert not mark.exists()
    if where != "instead of the numbers":
        pickle.loads(raw)  # noqa: S301 - the point of the test
        assert mark.exists()  # it would have run


@pytest.mark.parametrize(
    "states",
    [
        np.zeros((2, 3), np.float32), np.zeros((2, 3), ">f8"), np.zeros(6), np.asfortranarray(np.zeros((2, 3))), {"a": 1},
        np.full((2, 3), np.nan),
    ],
    ids=["float32", "big-endian", "one dimension", "Fortran order", "a dict", "NaN"],
)  # fmt: skip
def test_F84_converter_refuses_everything_else(tmp_path, states):
    file = tmp_path / "task.pruned_init"
    pruned_init(file, states)
    with pytest.raises(ConfigError):
        converter.read_file(file)


def test_F84_cut_and_changed_pickles_are_typed_errors(tmp_path):
    good = pickle.dumps(np.arange(6.0).reshape(2, 3), protocol=2)
    assert np.array_equal(converter.read_array(good, "x"), np.arange(6.0).reshape(2, 3))
    for cut in range(0, len(good), 7):
        with pytest.raises(ConfigError):
            converter.read_array(good[:cut], "x")
    rng = np.random.default_rng(0)
    for _ in range(500):
        changed = bytearray(good)
        changed[rng.integers(len(good))] = rng.integers(256)
        try:
            states = converter.read_array(bytes(changed), "x")
        except ConfigError:
            continue
        assert states.dtype == np.float64 and np.isfinite(states).all()  # only numbers changed


def test_F84_evaluation_refuses_pickles(tmp_path):
    with pytest.raises(CheckpointNotFound, match=r"convert_init_states\.py"):
        read_init_states(tmp_path / "none.npz")
    array, raw = tmp_path / "a.npz", io.BytesIO()
    pruned_init(array, np.zeros((2, 3)))
    with pytest.raises(ConfigError, match=r"a pickle \(archive/data\.pkl\)"):
        read_init_states(array)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(np.zeros((2, 3))))
    with pytest.raises(ConfigError, match="a pickle"):
        read_init_states(tmp_path / "b.npz")
    np.savez(raw, states=np.array([{"a": 1}], dtype=object))
    (tmp_path / "c.npz").write_bytes(raw.getvalue())
    with pytest.raises(ConfigError, match="without objects"):
        read_init_states(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes(b"PK nonsense")
    with pytest.raises(ConfigError, match="without objects"):
        read_init_states(tmp_path / "d.npz")
    np.savez(tmp_path / "e.npz", other=np.zeros((2, 3)))
    with pytest.raises(ConfigError, match="states"):
        read_init_states(tmp_path / "e.npz")
