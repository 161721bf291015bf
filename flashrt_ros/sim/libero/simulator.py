"""One robosuite environment as the reference evaluations see it; runs in the simulator process only.

robosuite takes its readings in one of the 25 physics steps of a control step: after a reset in the last one, after an init
state was put in place in the one before (utils/observables.py, `update`: every forced reading moves the phase). That is left to
robosuite. What is not kept is drawing both cameras in every step (55 ms a picture on a CPU): the scene is copied at the moment
of the reading, and drawn from the copy when somebody asks for it. Pictures are the same to the last bit.
"""

from __future__ import annotations

from typing import Protocol as Interface

import numpy as np

from flashrt_core.errors import ConfigError

from .protocol import CAMERAS, CONTROL_HZ, WAIT_ACTION

SCENE = "flashrt_scene"


class Suite(Interface):
    """A suite in this process. Tasks: (file name, sentence)."""

    tasks: list[tuple[str, str]]

    def begin(self, task: int, seed: int, resets: int) -> RobosuiteTask:
        """The scene after `resets` + 1 resets since seeding with `seed`."""
        ...

    def demonstrations(self) -> list[np.ndarray]: ...

    def demonstration(self, number: int) -> RobosuiteTask:
        """The start of a demonstration."""
        ...


class SceneCopy:
    """The scene as it was when robosuite took its readings, and pictures of it."""

    def __init__(self, env, resolution: int):
        """env: a robosuite MujocoEnv after its first reset."""
        from robosuite.utils.observables import Observable, sensor

        self._env, self._resolution = env, resolution
        self._model = self._data = None

        @sensor(modality="flashrt")
        def take(cache):
            self._take()
            return np.zeros(1)

        env.add_observable(Observable(name=SCENE, sensor=take, sampling_rate=CONTROL_HZ))

    def _take(self) -> None:
        import mujoco

        model = self._env.sim.model._model
        if model is not self._model:  # a hard reset builds the scene anew
            self._model, self._data = model, mujoco.MjData(model)
        mujoco.mj_copyData(self._data, model, self._env.sim.data._data)

    def pictures(self) -> list[np.ndarray]:
        """One uint8 [R, R, 3] per camera, bottom row first, as robosuite's `<camera>_image`."""
        sim = self._env.sim
        context = sim._render_context_offscreen
        live, context.data = context.data, _Held(self._data)
        try:
            return [sim.render(camera_name=name, width=self._resolution, height=self._resolution) for name in CAMERAS]
        finally:
            context.data = live


class _Held:
    """What robosuite's render context wants of its data."""

    def __init__(self, data):
        self._data = data


class RobosuiteTask:
    """Steps, readings and pictures of one environment.

    wrapper: what `reset`, `step` and `seed`-like calls go to; env: the robosuite environment inside (often the same).
    """

    def __init__(self, wrapper, env, resolution: int):
        self.wrapper, self.env = wrapper, env
        self._readings = wrapper.reset()
        self._scene = SceneCopy(env, resolution)

    def reset(self) -> None:
        self._readings = self.wrapper.reset()

    def put(self, state: np.ndarray) -> None:
        """Put a flattened simulator state in place: LIBERO envs/env_wrapper.py, regenerate_obs_from_state."""
        sim = self.env.sim
        have = len(sim.get_state().flatten())
        if state.shape != (have,):
            raise ConfigError("init state", expected=f"{have} numbers for this task", found=state.shape)
        sim.set_state_from_flattened(state)
        sim.forward()
        self.env._check_success()
        if hasattr(self.env, "_post_process"):  # LIBERO: stoves and the like
            self.env._post_process()
        self._readings = self._fresh()

    def wait(self, steps: int) -> None:
        for _ in range(steps):
            self.step(np.array(WAIT_ACTION))

    def step(self, action: np.ndarray) -> bool:
        """One control step; True when the task is done."""
        self._readings, _, _, _ = self.wrapper.step(np.asarray(action, np.float64))
        return bool(self.env._check_success())

    def readings(self) -> dict[str, np.ndarray]:
        """Hand position [3] m, quaternion [4] xyzw, finger joints [2] m, as read; arm joints [7] rad, as they are."""
        names = ("eef_pos", "eef_quat", "gripper_qpos")
        out = {name: np.asarray(self._readings[f"robot0_{name}"], np.float64) for name in names}
        return {**out, "joint_pos": np.array(self.env.robots[0]._joint_positions, np.float64)}

    def pictures(self) -> list[np.ndarray]:
        return self._scene.pictures()

    def close(self) -> None:
        self.wrapper.close()

    def _fresh(self) -> dict[str, np.ndarray]:
        self.env._update_observables(force=True)
        return self.env._get_observations()


class LiftSuite:
    """robosuite's own `Lift`: a Panda, a red cube, and everything else as LIBERO has it. Needs no assets."""

    tasks = [("lift", "lift the red cube")]

    def __init__(self, resolution: int):
        import robosuite

        env = robosuite.make(
            "Lift", robots="Panda", controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
            has_renderer=False, has_offscreen_renderer=True, use_camera_obs=False, camera_names=list(CAMERAS),
            camera_heights=resolution, camera_widths=resolution, control_freq=CONTROL_HZ, horizon=1000, ignore_done=True,
        )  # fmt: skip
        self.task = RobosuiteTask(env, env, resolution)

    def begin(self, task: int, seed: int, resets: int) -> RobosuiteTask:
        """The scene of a seed. There are no init states to fix it, so every episode has a seed of its own."""
        np.random.seed((seed * 100_003 + resets) % 2**32)  # robosuite 1.4 draws from NumPy's global generator
        self.task.reset()
        return self.task

    def demonstrations(self) -> list[np.ndarray]:
        """Actions [T, 7] of the human demonstrations in robosuite's package."""
        return [actions for actions, _ in self.recordings()]

    def recordings(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(actions [T, 7], flattened simulator states [T, S] before each) of the demonstrations; states begin with time."""
        with self._demos() as demos:
            return [
                (demos[f"data/{name}/actions"][()], demos[f"data/{name}/states"][()]) for name in sorted(demos["data"])
            ]

    def demonstration(self, number: int) -> RobosuiteTask:
        """The scene in which a demonstration was recorded (the size of the cube is drawn anew otherwise), at its start."""
        with self._demos() as demos:
            names = sorted(demos["data"])
            episode = demos[f"data/{names[number % len(names)]}"]
            model, state = episode.attrs["model_file"], episode["states"][0]
        env = self.task.env
        self.task.reset()
        env.reset_from_xml_string(env.edit_model_xml(model))
        env.sim.reset()
        self.task.put(state)
        return self.task

    def _demos(self):
        from pathlib import Path

        import h5py
        import robosuite

        return h5py.File(Path(robosuite.__file__).parent / "models/assets/demonstrations/lift/demo.hdf5")
