"""What the two reference evaluations prescribe, as data: every constant with the place it comes from.

openpi: github.com/Physical-Intelligence/openpi, examples/libero/main.py. lerobot: github.com/huggingface/lerobot,
src/lerobot/envs/libero.py, configs/eval.py and docs/source/libero.mdx.
"""

from __future__ import annotations

from dataclasses import dataclass

from flashrt_core.errors import ConfigError, nearest

CONTROL_HZ = 20  # LIBERO envs/env_wrapper.py, ControlEnv(control_freq=20)
CAMERAS = ("agentview", "robot0_eye_in_hand")  # LIBERO envs/env_wrapper.py, camera_names; openpi main.py, same order
WAIT_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)  # openpi main.py LIBERO_DUMMY_ACTION; lerobot get_libero_dummy_action
STEP_M = 0.05  # metres per unit of action: robosuite controllers/config/osc_pose.json, output_max

# Suite -> number of tasks (LIBERO benchmark/libero_suite_task_map.py).
SUITES = {
    "libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10, "libero_90": 90, "robosuite_lift": 1,
}  # fmt: skip
# robosuite's own task of that name has no published protocol: its demonstrations take up to 510 steps, its benchmark
# uses a horizon of 500 (robosuite docs, benchmarking), and the rest is as in LIBERO.
LIFT_MAX_STEPS = 500
# Recorded demonstrations of a suite: robosuite 1.4.0 models/assets/demonstrations/lift/demo.hdf5, in its package.
DEMONSTRATIONS = {"robosuite_lift": 3}


@dataclass(frozen=True)
class Protocol:
    """One way to evaluate.

    resolution: of both cameras, px. wait_steps: WAIT_ACTION at the start of an episode, until things lie still.
    replan_steps: executed actions of a chunk before the next one is asked for. max_steps: by suite, wait steps not
    counted. episodes: per task. seed: of the run. seed_each_episode: False: the simulator's generator is seeded once
    per task, so that trial k is preceded by k resets; True: before each reset, with seed + trial.
    """

    name: str
    resolution: int
    wait_steps: int
    replan_steps: int
    max_steps: dict[str, int]
    episodes: int
    seed: int
    seed_each_episode: bool


PROTOCOLS = {
    "openpi": Protocol(
        name="openpi",
        resolution=256,  # main.py LIBERO_ENV_RESOLUTION: "resolution used to render training data"
        wait_steps=10,  # main.py Args.num_steps_wait
        replan_steps=5,  # main.py Args.replan_steps
        max_steps={  # main.py eval_libero
            "libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400,
            "robosuite_lift": LIFT_MAX_STEPS,
        },
        episodes=50,  # main.py Args.num_trials_per_task
        seed=7,  # main.py Args.seed
        seed_each_episode=False,  # main.py _get_libero_env: env.seed(seed) once, then env.reset() per trial
    ),
    "lerobot": Protocol(
        name="lerobot",
        resolution=360,  # envs/configs.py LiberoEnv: observation_height = observation_width = 360
        wait_steps=10,  # envs/libero.py num_steps_wait
        replan_steps=10,  # docs/source/libero.mdx: n_action_steps=10
        max_steps={  # envs/libero.py TASK_SUITE_MAX_STEPS
            "libero_spatial": 280, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400,
            "robosuite_lift": LIFT_MAX_STEPS,
        },
        episodes=10,  # docs/source/libero.mdx: 10 episodes per task
        seed=1000,  # configs/eval.py
        seed_each_episode=True,  # envs/libero.py reset: self._env.seed(seed) before every reset
    ),
}  # fmt: skip


def protocol(name: str) -> Protocol:
    """Raises ConfigError for a protocol that does not exist."""
    if name not in PROTOCOLS:
        raise ConfigError("protocol", found=repr(name), hint=nearest(str(name), PROTOCOLS))
    return PROTOCOLS[name]


def check_suite(name: str) -> str:
    """The name. Raises ConfigError for a suite that does not exist."""
    if name not in SUITES:
        raise ConfigError("suite", found=repr(name), hint=nearest(str(name), SUITES))
    return name
