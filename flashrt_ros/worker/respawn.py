"""Supervision: when a worker counts as hung, and how often a dead one is started again."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import to_ns


@dataclass(frozen=True)
class Supervision:
    """Limits of a supervised worker.

    period_s: control period T. watchdog_factor, watchdog_window, watchdog_floor_s: a call may take
    max(3 T, factor x P99 of the last `window` latencies, floor); the floor is there because a kill costs seconds of
    loading, while a late answer costs nothing but a coast. timeout_s: this bound instead, when > 0.
    start_timeout_s: bound of loading and warming up.
    max_respawns in respawn_window_s: a worker that dies more often is given up.
    """

    period_s: float = 0.02
    watchdog_factor: float = 2.5
    watchdog_window: int = 200
    watchdog_floor_s: float = 0.5
    timeout_s: float = 0.0
    start_timeout_s: float = 600.0
    max_respawns: int = 2
    respawn_window_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("period_s", "watchdog_factor", "start_timeout_s", "respawn_window_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(name, expected="finite, > 0", found=getattr(self, name))
        for name, low in (("watchdog_floor_s", 0), ("timeout_s", 0), ("max_respawns", 0), ("watchdog_window", 1)):
            if not getattr(self, name) >= low:
                raise ConfigError(name, expected=f">= {low}", found=getattr(self, name))


class Watchdog:
    """The bound for the next call, from the calls so far."""

    def __init__(self, limits: Supervision):
        self._limits = limits
        self._latencies: deque[float] = deque(maxlen=limits.watchdog_window)

    def start(self, warm_s: tuple[float, ...]) -> None:
        """A new process: only its own warm-up calls say how fast it is."""
        self._latencies.clear()
        self._latencies.extend(warm_s)

    def add(self, latency_s: float) -> None:
        self._latencies.append(latency_s)

    @property
    def bound_s(self) -> float:
        """Seconds that the next call may take."""
        limits, ordered = self._limits, sorted(self._latencies)
        if limits.timeout_s:
            return limits.timeout_s
        p99 = ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else 0.0
        return max(3 * limits.period_s, limits.watchdog_factor * p99, limits.watchdog_floor_s)


class RespawnPolicy:
    """At most `max_respawns` starts within the window."""

    def __init__(self, limits: Supervision):
        self._most, self._window_ns = limits.max_respawns, to_ns(limits.respawn_window_s)
        self._starts: deque[int] = deque()

    def allow(self, now_ns: int) -> bool:
        """Whether the worker may be started again now; counts it if so."""
        while self._starts and now_ns - self._starts[0] >= self._window_ns:
            self._starts.popleft()
        if len(self._starts) >= self._most:
            return False
        self._starts.append(now_ns)
        return True
