"""Simulated time: a clock that follows /clock, and control ticks at its deadlines instead of the steady clock's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flashrt_core.errors import ConfigError

from .control.ticker import Histogram

logger = logging.getLogger(__name__)


class FunctionClock:
    """A Clock of the runtime made from a function that returns ns."""

    def __init__(self, now_ns: Callable[[], int]):
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns()


class SimTicker:
    """As TickThread, on a clock that somebody else moves: `notify` says that it has.

    Time that stands still makes no ticks (F28); a jump ahead skips ticks, never makes up for them; a jump back starts a
    new grid of deadlines, and the tick that comes at once finds that out (F27). Lateness is in simulated time.
    """

    def __init__(self, tick: Callable[[float, int], object], period_s: float, now_ns: Callable[[], int]):
        if not period_s > 0:
            raise ConfigError("period_s", expected="> 0", found=period_s)
        self._tick, self._period_ns, self._now_ns = tick, round(period_s * 1e9), now_ns
        self._moved = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None
        self.lateness, self.cost = Histogram(), Histogram()
        self.ticks = self.skipped = self.late_half = 0

    def start(self) -> None:
        """Begin; the first tick comes as soon as time is known (not 0)."""
        if self._thread is not None:
            raise ConfigError("SimTicker", expected="a new one", found="one that was started")
        self._thread = threading.Thread(target=self._run, name="flashrt-control", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Time has moved. From any thread."""
        with self._moved:
            self._moved.notify()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End after the tick under way; True when the thread has ended."""
        with self._moved:
            self._ended = True
            self._moved.notify()
        if self._thread is None or self._thread is threading.current_thread():
            return self._thread is None
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        deadline, last, skipped = None, 0, 0
        while True:
            with self._moved:
                now = self._now_ns()
                while not self._ended and (now <= 0 or (deadline is not None and last <= now < deadline)):
                    self._moved.wait(0.1)
                    now = self._now_ns()
                if self._ended:
                    return
            if deadline is None or now < last:
                deadline, skipped = now, 0
            skipped += (now - deadline) // self._period_ns
            deadline += (now - deadline) // self._period_ns * self._period_ns
            self._one((now - deadline) / 1e9, skipped)
            last, deadline, skipped = now, deadline + self._period_ns, 0

    def _one(self, late_s: float, skipped: int) -> None:
        self.ticks += 1
        self.skipped += skipped
        self.lateness.add(late_s)
        self.late_half += late_s > self._period_ns / 2e9
        start = time.monotonic_ns()
        try:
            self._tick(late_s, skipped)
        except Exception:  # the control tick does not raise; should it, the next one still comes
            logger.exception("the control tick raised")
        self.cost.add((time.monotonic_ns() - start) / 1e9)

    def to_json(self) -> dict[str, object]:
        """As TickThread's."""
        return {
            "period_s": self._period_ns / 1e9, "ticks": self.ticks, "skipped": self.skipped, "late_half": self.late_half,
            "lateness": self.lateness.to_json(), "cost": self.cost.to_json(),
        }  # fmt: skip
