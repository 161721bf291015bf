"""PatientTick: a control tick that waits for the inputs of its moment and for the policy, in simulated time (F29)."""

from __future__ import annotations

import time
from collections.abc import Callable

from flashrt_core.runtime.clock import Clock
from flashrt_core.runtime.rtc import AsyncChunkRunner

from ..inputs.observation import ObservationBuilder

PATIENCE_S = 5.0  # wall time; then the tick goes on as any other
LOOK_S = 0.0005


class PatientTick:
    """Wraps a tick. A simulator that waits for each command then gets the same actions however fast it runs: between
    topics DDS keeps no order, and a policy takes wall time, which counts more the faster simulated time goes.

    The inputs of a tick are those stamped with its time or later: cameras and state must come once per control period.
    late_inputs, late_policy: ticks for which they did not come within `patience_s` of wall time.
    """

    def __init__(
        self, tick: Callable[[float, int], object], observations: ObservationBuilder, runner: AsyncChunkRunner, clock: Clock,
        *, patience_s: float = PATIENCE_S,
    ):  # fmt: skip
        self._tick, self._observations, self._runner, self._clock = tick, observations, runner, clock
        self._patience_s = patience_s
        self.late_inputs = self.late_policy = 0

    def __call__(self, late_s: float, skipped: int) -> None:
        self.late_inputs += not self._inputs_came()
        self._tick(late_s, skipped)
        self.late_policy += not self._runner.settle(self._patience_s)

    def _inputs_came(self) -> bool:
        now, end = self._clock.now_ns(), time.monotonic() + self._patience_s
        while not self._have(now):
            if time.monotonic() > end:
                return False
            time.sleep(LOOK_S)
        return True

    def _have(self, now_ns: int) -> bool:
        newest = [slot.frame for slot in self._observations.images.values()]
        if self._observations.robot.state:
            newest.append(self._observations.state)
        return all(item is not None and item.stamp_ns >= now_ns for item in newest)
