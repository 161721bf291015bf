"""Pacer: absolute deadlines of a simulation's control steps, in real time or a multiple of it."""

from __future__ import annotations

import time

from flashrt_core.errors import ConfigError

MAX_BEHIND = 10  # steps that are made up for; a longer stop of the process is no part of the simulated time


class Pacer:
    """Step k is due at t0 + k * period / rate on the steady clock.

    A robot does not wait for a late scheduler, so late steps are made up for at once, each with its own command; after
    more than MAX_BEHIND periods the grid starts anew (`stalls`).
    """

    def __init__(self, period_s: float, rate: float = 1.0):
        if not 0.01 <= rate <= 1000:
            raise ConfigError("rate", expected="0.01..1000 times real time", found=rate)
        self.period_ns = round(period_s * 1e9 / rate)
        self.deadline_ns = time.monotonic_ns()
        self.stalls = 0

    def left_s(self) -> float:
        """Seconds until the next step is due, at least 0."""
        return max(0, self.deadline_ns - time.monotonic_ns()) / 1e9

    def start_at(self, deadline_ns: int) -> None:
        """Move the grid: the next step is due then, or now when that is past."""
        self.deadline_ns = max(deadline_ns, time.monotonic_ns())

    def step(self) -> float:
        """A step begins: how late it is, in ms. Goes on to the next deadline."""
        late_ns = time.monotonic_ns() - self.deadline_ns
        if late_ns > MAX_BEHIND * self.period_ns:
            self.stalls += 1
            self.deadline_ns += late_ns
        self.deadline_ns += self.period_ns
        return max(0, late_ns) / 1e6

    @property
    def behind(self) -> bool:
        """True when the next step is already due: leave out what can be left out."""
        return time.monotonic_ns() >= self.deadline_ns
