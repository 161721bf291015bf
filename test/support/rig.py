"""A deterministic rig for the chunk runner: scripted policy, fake clock, simulated worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from flashrt_core.runtime.clock import FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig


class PlanTimePolicy:
    """Answers an observation {"tick": k} with rows k, k+1, ...: the value served at tick m must be m.

    horizon: rows. dims: action dimensions, all alike. faults: by number of the call, an exception to raise or an array to return.
    """

    def __init__(self, horizon: int = 10, dims: int = 1, faults: dict[int, object] | None = None):
        self.horizon, self.dims, self.faults = horizon, dims, faults or {}
        self.calls = 0

    def infer_actions(self, obs: dict[str, float]) -> np.ndarray:
        fault = self.faults.get(self.calls)
        self.calls += 1
        if isinstance(fault, BaseException):
            raise fault
        if fault is not None:
            return fault
        rows = obs["tick"] + np.arange(self.horizon, dtype=np.float64)
        return np.repeat(rows[:, None], self.dims, axis=1)


class Rig:
    """A runner in lock step with its clock. `tick()` is one control period; the value of dimension 0 is returned."""

    def __init__(
        self,
        policy: object | None = None,
        latency_s: float | Callable[[int], float] = 0.0,
        horizon: int = 10,
        **config: object,
    ):
        self.policy = policy or PlanTimePolicy(horizon)
        self.clock = FakeClock()
        self.config = RTCConfig(**config)
        self.runner = AsyncChunkRunner(
            self.policy, self.config, executor=SimulatedExecutor(latency_s, self.clock), clock=self.clock
        )
        self.now = 0

    def tick(self, obs: bool = True, **kw: object) -> float | None:
        wanted = self.runner.wants_observation
        action = self.runner.next_action({"tick": float(self.now)} if wanted and obs else None, **kw)
        self.clock.advance(self.config.period_s)
        self.now += 1
        return None if action is None else float(action[0])

    def run(self, ticks: int, **kw: object) -> list[float | None]:
        return [self.tick(**kw) for _ in range(ticks)]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.runner.events]

    def of(self, kind: str) -> list:
        return [event for event in self.runner.events if event.kind == kind]


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for a condition of another thread."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.001)


class GatedPolicy:
    """Blocks in each call until `gate` is set; knows how many threads are inside at once."""

    def __init__(self, rows: int = 10):
        self.gate, self.rows = threading.Event(), rows
        self.inside = self.most_inside = self.calls = 0
        self.values = iter(range(0, 10**6, 100))

    def infer_actions(self, obs: object) -> np.ndarray:
        self.inside += 1
        self.calls += 1
        self.most_inside = max(self.most_inside, self.inside)
        value = next(self.values)
        self.gate.wait(10)
        self.inside -= 1
        return np.full((self.rows, 1), float(value))
