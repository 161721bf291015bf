"""With the real simulator (`make libero`, then `make libero-test`): what the double cannot show."""

import pickle
import subprocess
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from support.checkers import ROOT
from support.libero_standins import make_standins

from flashrt_core.errors import ConfigError
from flashrt_ros.sim.libero.env_client import SimulatorEnv, SimulatorSpec
from flashrt_ros.sim.libero.init_states import init_state_file, read_init_states
from flashrt_ros.sim.libero.plan import Condition, EvaluationPlan
from flashrt_ros.sim.libero.policies import make_policy
from flashrt_ros.sim.libero.protocol import DEMONSTRATIONS, SUITES, protocol
from flashrt_ros.sim.libero.results import summarise
from flashrt_ros.sim.libero.run import open_results, run_here, run_jobs

PYTHON = ROOT / ".venv-libero/bin/python"
pytestmark = [
    pytest.mark.long, pytest.mark.simulator,
    pytest.mark.skipif(not PYTHON.exists(), reason="no simulator: make libero"),
]  # fmt: skip


def spec(suite="robosuite_lift", **fields) -> SimulatorSpec:
    return SimulatorSpec(suite, protocol("openpi"), python=PYTHON, **fields)


def run(tmp_path, **fields):
    plan = EvaluationPlan(**{"simulator": spec(), "policy": "scripted", "tasks": (0,), "episodes": 2, "seed": 7, **fields})
    file = open_results(plan, tmp_path / "out")
    run_jobs(file, file.missing(), run_here(plan, make_policy(plan.policy, plan.simulator.suite)))
    return summarise(file, 1.0)


def test_replayed_demonstrations_succeed_as_the_people_did(tmp_path):
    result = run(tmp_path, policy="demo-replay", episodes=3)
    cell = result["conditions"][0]
    assert (cell["successes"], cell["episodes"], cell["errors"]) == (3, 3, 0)
    # The recordings (482, 510 and 392 steps) end 11 steps after the first success.
    assert cell["mean_steps_of_successes"] == pytest.approx((482 + 510 + 392) / 3 - 11, abs=3)


def test_scripted_policy_lifts_the_cube_from_pictures_in_every_strategy(tmp_path):
    conditions = (Condition(), Condition("none", 200.0), Condition("quintic", 100.0))
    result = run(tmp_path, conditions=conditions, episodes=3)
    assert [c["success_rate"] for c in result["conditions"]] == [1.0, 1.0, 1.0]
    assert all(c["boundary"]["cb6_index_law"] in (1.0, None) for c in result["conditions"])


def test_the_same_seed_gives_the_same_episode(tmp_path):
    def state(seed: int, trial: int) -> np.ndarray:
        env = SimulatorEnv(spec(), seed, tmp_path / "log")
        try:
            env.reset_to(0, trial)
            for _ in range(3):
                env.step(np.array([0.3, 0.1, -0.2, 0, 0, 0, 1]))
            return np.concatenate([env.state(), env.observe()["images"][0].ravel()])
        finally:
            env.close()

    first = state(7, 0)
    assert np.array_equal(first, state(7, 0))
    assert not np.array_equal(first, state(7, 1)) and not np.array_equal(first, state(8, 0))


COMPARE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from flashrt_ros.sim.libero.env_process import quiet_robosuite
quiet_robosuite()
import numpy as np, robosuite
from flashrt_ros.sim.libero import simulator
made = robosuite.make
suite = simulator.LiftSuite(64)
robosuite.make = lambda *a, **k: made(*a, **{**k, "use_camera_obs": True})
reference = simulator.LiftSuite(64)
rng = np.random.default_rng(0)
tasks = [s.begin(0, 7, 3) for s in (suite, reference)]
apart = []
for step in range(25):
    action = np.array([0.5, 0.3 * np.sin(step / 4), -0.3, *rng.uniform(-0.2, 0.2, 3), 1.0])
    assert len({t.step(action) for t in tasks}) == 1
    for name, picture in zip(simulator.CAMERAS, tasks[0].pictures(), strict=True):
        assert np.array_equal(picture, tasks[1]._readings[name + "_image"]), (step, name)
    for name, value in tasks[0].readings().items():
        assert np.array_equal(value, tasks[1].readings()[name]), (step, name)
    apart.append(np.linalg.norm(tasks[0].readings()["eef_pos"] - tasks[0].env.sim.data.get_site_xpos("gripper0_grip_site")))
    if step == 11:
        for task in tasks:
            task.put(task.env.sim.get_state().flatten())
print("equal", max(apart[:12]) == 0, 0 < min(apart[14:]) < max(apart[14:]) < 0.002)
sys.stdout.flush()
os._exit(0)
"""


def test_pictures_on_demand_equal_those_of_every_step_bit_for_bit(tmp_path):
    """And the reading is of the last physics step after a reset, of the one before after an init state, as robosuite has it."""
    script = tmp_path / "compare.py"
    script.write_text(COMPARE)
    env = {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "egl", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([PYTHON, script, ROOT], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["equal", "True", "True"]


@pytest.mark.parametrize("gl", ["egl", "osmesa"])
def test_back_ends_draw_or_say_what_is_missing(tmp_path, gl):
    env = SimulatorEnv(replace(spec(), gl=gl), 7, tmp_path / "log")
    try:
        env.reset_to(0, 0)
    except ConfigError as error:
        assert f"--gl {gl}" in str(error) and "apt-get install" in str(error)
        return
    try:
        picture = env.observe()["images"][0]
        assert picture.shape == (256, 256, 3) and picture.std() > 20
    finally:
        env.close()


def test_the_package_has_as_many_demonstrations_as_are_replayed(tmp_path):
    env = SimulatorEnv(spec(), 7, tmp_path / "log")
    try:
        assert [len(actions) for actions in env.demonstrations()] == [482, 510, 392]
    finally:
        env.close()
    assert DEMONSTRATIONS == {"robosuite_lift": 3}


def test_every_libero_suite_has_its_tasks_and_converted_states():
    """130 files of hf-libero; without its meshes a suite says in one sentence what to fetch."""
    for suite, count in SUITES.items():
        if suite == "robosuite_lift":
            continue
        folder = PYTHON.parent.parent / "share/flashrt/init_states"
        files = sorted((folder / suite).glob("*.npz"))
        assert len(files) == count
        for file in files:
            states = read_init_states(init_state_file(folder, suite, file.stem))
            (source,) = PYTHON.parent.parent.glob(f"lib/*/site-packages/libero/libero/init_files/{suite}/{file.stem}.pruned_init")
            with zipfile.ZipFile(source) as archive:
                wanted = pickle.loads(archive.read("archive/data.pkl"))  # noqa: S301 - the package's own, once, to compare
            assert states.shape[0] == 50 and np.array_equal(states, wanted)


def test_missing_meshes_are_one_sentence(tmp_path):
    env = SimulatorEnv(spec("libero_spatial", assets=tmp_path), 7, tmp_path / "log")
    with pytest.raises(ConfigError, match="lerobot/libero-assets"):
        env.open()
    env.close()


# ---- LIBERO's own suites, with boxes for meshes


TASK = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
SOUP, BASKET = slice(10, 13), slice(17, 20)  # of a state: time, nine joints of the arm, then 7 numbers an object


@pytest.fixture
def libero_object(tmp_path):
    """Task 0 of libero_object: LIBERO's BDDL file, scene code and init states, stand-ins for its meshes."""
    made = []

    def make(**fields) -> SimulatorEnv:
        one = spec("libero_object", assets=make_standins(tmp_path / "assets"), **fields)
        made.append(SimulatorEnv(one, 7, tmp_path / "log", 224))
        return made[-1]

    yield make
    for env in made:
        env.close()


def test_a_libero_task_runs_from_its_init_states_in_any_order(libero_object):
    env = libero_object()
    env.reset_to(0, 0)
    assert env.prompt == "pick up the alphabet soup and place it in the basket" and len(env.tasks) == 10
    first, picture = env.state(), env.observe()["images"][0]
    assert picture.shape == (224, 224, 3) and picture.std() > 10
    env.step(np.array([0.5, 0, -0.5, 0, 0, 0, -1]))
    env.step(np.array([0.5, 0, -0.5, 0, 0, 0, -1]))
    assert env.state()[0] > first[0] and env.state()[2] < first[2] and not env.success
    env.reset_to(0, 2)
    third = env.state()
    env.reset_to(0, 0)
    assert np.array_equal(env.state(), first) and np.array_equal(env.observe()["images"][0], picture)
    env.reset_to(0, 2)
    assert np.array_equal(env.state(), third) and not np.array_equal(first, third)


def test_a_libero_task_is_done_when_its_goal_holds(libero_object, tmp_path):
    states = read_init_states(init_state_file(PYTHON.parent.parent / "share/flashrt/init_states", "libero_object", TASK))
    states[0, SOUP] = states[0, BASKET]
    (tmp_path / "states/libero_object").mkdir(parents=True)
    np.savez(init_state_file(tmp_path / "states", "libero_object", TASK), states=states)
    env = libero_object(init_states=tmp_path / "states")
    for trial, done in ((0, True), (1, False)):
        env.reset_to(0, trial)
        env.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        assert env.success is done


def test_an_init_state_of_another_task_is_refused(libero_object, tmp_path):
    (tmp_path / "states/libero_object").mkdir(parents=True)
    np.savez(init_state_file(tmp_path / "states", "libero_object", TASK), states=np.zeros((1, 12)))
    with pytest.raises(ConfigError, match="init state"):
        libero_object(init_states=tmp_path / "states").reset_to(0, 0)
