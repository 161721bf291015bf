"""A double of the simulator: the real simulator process around a scene of a few numbers, with faults by trial.

As a program it is the process itself (`python fake_simulator.py BEHAVIOUR.json <arguments of env_process>`); `simulator_spec`
makes the SimulatorSpec that starts it, through a small program that stands in for the interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np


class FakeTask:
    """The hand moves by 5 cm times the action; the task is done after `needs` steps with motion along x."""

    def __init__(self, suite: FakeSuite, fault: str | None):
        self.suite, self.fault = suite, fault
        self.position, self.steps, self.moved, self.waited = np.zeros(3), 0, 0, 0
        self.state: np.ndarray | None = None

    def put(self, state: np.ndarray) -> None:
        self.state = state

    def wait(self, steps: int) -> None:
        self.waited = steps

    def step(self, action: np.ndarray) -> bool:
        self.steps += 1
        if self.steps == 3:
            self._break()
        self.position += 0.05 * action[:3]
        self.moved += bool(action[0] > 0) or self.suite.any_motion
        return self.moved >= self.suite.needs

    def _break(self) -> None:
        if self.fault == "raise":
            raise RuntimeError("the simulator diverged")
        if self.fault == "hang":
            time.sleep(1e6)
        if self.fault == "die":
            os._exit(3)
        if self.fault == "abort":
            os.abort()
        if self.fault == "kill parent":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(1e6)

    def readings(self) -> dict[str, np.ndarray]:
        seed, resets = self.suite.begun
        first = np.array([seed, resets, self.waited], float) if self.state is None else self.state[:3]
        return {
            "eef_pos": self.position.copy(), "eef_quat": np.array([0.0, 0.0, 0.0, 1.0]), "gripper_qpos": np.zeros(2),
            "joint_pos": np.concatenate([first, np.zeros(4)]),
        }  # fmt: skip

    def pictures(self) -> list[np.ndarray]:
        if self.fault == "render" and self.steps:
            raise OSError("rendering failed")
        side = self.suite.resolution
        picture = np.empty((side, side, 3), np.uint8)
        picture[:] = ((np.arange(side) + 7 * self.steps) % 200)[:, None, None]  # no two steps look alike
        picture[0, 0] = 255  # bottom left as MuJoCo counts rows
        return [picture, picture]


class FakeSuite:
    tasks = [("move", "move the hand"), ("move_again", "move the hand again")]

    def __init__(self, behaviour: dict, resolution: int):
        self.faults, self.needs, self.resolution = behaviour.get("faults", {}), behaviour.get("needs", 12), resolution
        self.any_motion = bool(behaviour.get("any_motion", False))
        self.begun = (0, 0)

    def begin(self, task: int, seed: int, resets: int) -> FakeTask:
        self.begun = (seed, resets)
        fault = self.faults.get(str(resets))
        if fault == "reset":
            raise ValueError("no placement found")
        return FakeTask(self, fault)

    def demonstration(self, number: int) -> FakeTask:
        return self.begin(0, 0, number)

    def demonstrations(self) -> list[np.ndarray]:
        return [np.repeat([[0.5 * (1 + i), 0, 0, 0, 0, 0, -1.0]], 20, axis=0) for i in range(2)]


class Forward:
    """A policy that drives along x. broken: trials in which its second call raises."""

    px = None

    def __init__(self, broken: tuple[int, ...] = ()):
        self.broken, self.closed = broken, False

    def check(self) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True

    def demonstration(self, trial: int) -> None:
        return None

    def predictor(self, env, trial: int):
        calls = []

        def predict(images, prompt=None, state=None, *, seed=None) -> np.ndarray:
            calls.append(seed)
            if trial in self.broken and len(calls) == 2:
                raise LookupError("no answer")
            return np.repeat(np.array([[0.5, 0, 0, 0, 0, 0, -1.0]], np.float32), 10, axis=0)

        return predict


def simulator_spec(folder: Path, behaviour: dict | None = None, suite: str = "robosuite_lift", name: str = "openpi", **fields):
    """A SimulatorSpec whose process is this file. behaviour: {"faults": {trial: kind}, "needs": steps, "start": kind,
    "any_motion": steps without motion count}."""
    from dataclasses import replace

    from flashrt_ros.sim.libero.env_client import SimulatorSpec
    from flashrt_ros.sim.libero.protocol import protocol

    said, python = folder / "behaviour.json", folder / "python"
    said.write_text(json.dumps(behaviour or {}))
    # The words "-m MODULE" are dropped: this file is run instead, with the same arguments.
    python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {Path(__file__).resolve()} {said} "$@"\n')
    python.chmod(0o755)
    rules = replace(protocol(name), resolution=32, max_steps={**protocol(name).max_steps, suite: 30})
    return SimulatorSpec(suite, rules, python=python, **fields)


def main() -> int:
    behaviour = json.loads(Path(sys.argv[1]).read_text())
    from flashrt_core.errors import ConfigError
    from flashrt_ros.sim.libero import env_process

    def open_suite(args):
        if behaviour.get("start") == "config":
            raise ConfigError("robosuite", expected="the package", found="none", hint="Run: make libero")
        if behaviour.get("start") == "die":
            os._exit(9)
        return None if args.look else FakeSuite(behaviour, args.resolution)

    env_process.open_suite = open_suite
    return env_process.main(sys.argv[2:])


if __name__ == "__main__":
    os._exit(main())
