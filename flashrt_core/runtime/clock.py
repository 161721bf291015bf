"""Clocks: where every age, deadline and latency of the runtime gets its time from (integer nanoseconds)."""

from __future__ import annotations

import time
from typing import Protocol

from ..errors import ConfigError

NS = 1_000_000_000


def to_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds, rounded."""
    return round(seconds * NS)


class Clock(Protocol):
    """Anything with `now_ns()`. The origin is arbitrary; only differences mean something."""

    def now_ns(self) -> int: ...


class SteadyClock:
    """The monotonic clock of the machine: a step of the wall clock does not move it (rule R1)."""

    def now_ns(self) -> int:
        return time.monotonic_ns()


class FakeClock:
    """A clock that moves only when told to, for simulation and tests.

    Time is kept in integer nanoseconds, so 24 h of ticks add up without rounding drift beyond half a nanosecond per
    step.
    """

    def __init__(self, start_s: float = 0.0):
        self._now = to_ns(start_s)

    def now_ns(self) -> int:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ConfigError on a negative step: use `jump` for that."""
        if not seconds >= 0:
            raise ConfigError("FakeClock.advance", expected="seconds >= 0", found=seconds, hint="use jump()")
        self._now += to_ns(seconds)

    def advance_to_ns(self, then_ns: int) -> None:
        """Let time pass until `then_ns`; does nothing when that is already past."""
        self._now = max(self._now, then_ns)

    def jump(self, seconds: float) -> None:
        """Step the time either way, as simulated time does when a recording loops."""
        self._now += to_ns(seconds)
