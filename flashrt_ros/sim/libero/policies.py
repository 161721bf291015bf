"""Policies of an evaluation by name: a checkpoint, the scripted one, or the replay of recorded demonstrations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np

from flashrt_core.errors import ConfigError, DeviceError, nearest

from ...worker.interface import SubprocessWorker, Supervision, WorkerSpec, WorkerState
from .env_client import SimulatorEnv
from .observation import STATE_NAMES
from .plan import EvaluationPlan
from .protocol import CONTROL_HZ
from .scripted import HORIZON, LiftPolicy

Predict = Callable[..., np.ndarray]  # arguments of VLAModel.predict
POLICIES = ("checkpoint", "scripted", "demo-replay")
ACTION_DIM, POLICY_PX = 7, 224
CALL_S = 60.0  # a policy call that takes longer is a hang: its process is killed and started again


class Policy(Protocol):
    """What an evaluation asks of a policy. px: side of the pictures it takes, None: it takes none."""

    px: int | None

    def demonstration(self, trial: int) -> int | None:
        """The demonstration whose start is the trial's, or None for the suite's own init states."""
        ...

    def predictor(self, env: SimulatorEnv, trial: int) -> Predict:
        """For one episode; called by several episodes at once."""
        ...

    def check(self) -> None:
        """Raises DeviceError when the policy will never answer again."""
        ...

    def close(self) -> None: ...


class _Plain:
    """A policy that is a function: it cannot die, and holds nothing."""

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


class CheckpointPolicy:
    """A VLA model in a process of its own, as on a robot, shared by all episodes: one call at a time."""

    def __init__(self, spec: WorkerSpec, progress: Callable[[str], None] = lambda text: None):
        self._worker = SubprocessWorker(spec, Supervision(1 / CONTROL_HZ, watchdog_floor_s=CALL_S))
        info = self._worker.start(progress)
        for name, have, want in (("state", info.state_dim, len(STATE_NAMES)), ("action", info.action_dim, ACTION_DIM)):
            if have != want:
                self.close()
                raise ConfigError(f"checkpoint: {name}", expected=f"{want} dimensions, as LIBERO's", found=have)
        self.px, self._views = info.image_size, len(info.views)
        self._lock = threading.Lock()

    def demonstration(self, trial: int) -> None:
        return None

    def predictor(self, env: SimulatorEnv, trial: int) -> Predict:
        return self._predict

    def _predict(self, images, prompt=None, state=None, *, seed=None) -> np.ndarray:
        # openpi policies/libero_policy.py: there is no right wrist camera; its picture is black.
        images = [*images, *[np.zeros_like(images[0])] * (self._views - len(images))][: self._views]
        with self._lock:
            while self._worker.status().state is WorkerState.RESTARTING:  # after a death in an earlier episode
                time.sleep(0.1)
            return self._worker.infer_actions({"images": images, "state": state, "prompt": prompt, "seed": seed})

    def check(self) -> None:
        status = self._worker.status()
        if status.state is WorkerState.FAILED:
            raise DeviceError("policy", expected="a process that lives", found=f"{status.deaths} deaths", hint=status.reason)

    def close(self) -> None:
        self._worker.close()


class ScriptedLift(_Plain):
    """`scripted.LiftPolicy`, which knows robosuite_lift only."""

    px = POLICY_PX

    def __init__(self, suite: str):
        if suite != "robosuite_lift":
            raise ConfigError("policy scripted", expected="suite robosuite_lift", found=suite)

    def demonstration(self, trial: int) -> None:
        return None

    def predictor(self, env: SimulatorEnv, trial: int) -> Predict:
        return LiftPolicy().predict


class DemoReplay(_Plain):
    """Answers with the actions that a person gave at the same step; the last one is repeated at the end."""

    px = POLICY_PX

    def __init__(self) -> None:
        self._actions: list[np.ndarray] = []

    def demonstration(self, trial: int) -> int:
        return trial  # the suite begins again after its last one

    def predictor(self, env: SimulatorEnv, trial: int) -> Predict:
        if not self._actions:
            self._actions = env.demonstrations()
        actions = self._actions[trial % len(self._actions)]

        def predict(images, prompt=None, state=None, *, seed=None) -> np.ndarray:
            rows = np.minimum(env.observed_step + np.arange(HORIZON), len(actions) - 1)
            return np.clip(actions[rows], -1.0, 1.0).astype(np.float32)  # the controller clips, too

        return predict


def worker_spec(plan: EvaluationPlan) -> WorkerSpec | None:
    """The worker of a plan's checkpoint, None without one."""
    return None if plan.checkpoint is None else WorkerSpec(plan.checkpoint, **dict(plan.worker))


def make_policy(
    name: str, suite: str, spec: WorkerSpec | None = None, progress: Callable[[str], None] = lambda text: None
) -> Policy:
    """spec: of the checkpoint, for that one policy."""
    check_policy(name, None if spec is None else spec.checkpoint)
    if name == "scripted":
        return ScriptedLift(suite)
    return DemoReplay() if name == "demo-replay" else CheckpointPolicy(spec, progress)


def check_policy(name: str, checkpoint: str | None) -> None:
    """Raises ConfigError for a policy that does not exist or cannot be without a checkpoint."""
    if name not in POLICIES:
        raise ConfigError("policy", found=repr(name), hint=nearest(str(name), POLICIES))
    if (name == "checkpoint") != (checkpoint is not None):
        expected = "a folder" if name == "checkpoint" else f"none with policy {name}"
        raise ConfigError("--checkpoint", expected=expected, found=checkpoint or "none")
