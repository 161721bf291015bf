"""TickThread: calls the control tick at absolute deadlines on the steady clock; missed ticks are skipped, never made up."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from flashrt_core.errors import ConfigError

from ..worker.scheduling import favour_this_process

logger = logging.getLogger(__name__)
_LOW_S, _BINS_PER_DECADE, _BINS = 1e-5, 20, 120  # 10 us to 10 s, each bin 12 % wider than the one before

_NAP_S = 0.1  # how soon a thread with a long period notices that it is to stop


class Histogram:
    """Durations in seconds, in a fixed number of bins: it never grows."""

    def __init__(self) -> None:
        self.counts = [0] * (_BINS + 2)
        self.count, self.max_s, self.sum_s = 0, 0.0, 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.sum_s += seconds
        self.max_s = max(self.max_s, seconds)
        at = 0 if seconds < _LOW_S else 1 + int(math.log10(seconds / _LOW_S) * _BINS_PER_DECADE)
        self.counts[min(at, _BINS + 1)] += 1

    def percentile(self, percent: float) -> float:
        """Upper edge of the bin that holds it, seconds, at most the maximum; 0 without values."""
        left = math.ceil(self.count * percent / 100)
        for i, n in enumerate(self.counts):
            left -= n
            if left <= 0 and n:
                return min(self.max_s, edge_s(i))
        return self.max_s

    def to_json(self) -> dict[str, object]:
        """Figures, and the non-empty bins as [upper edge in seconds, count]."""
        return {
            "count": self.count, "mean_s": self.sum_s / self.count if self.count else 0.0, "max_s": self.max_s,
            **{f"p{p:g}_s": self.percentile(p) for p in (50, 99, 99.9)},
            "bins": [[min(edge_s(i), self.max_s), n] for i, n in enumerate(self.counts) if n],
        }  # fmt: skip


def edge_s(index: int) -> float:
    """Upper edge of a bin, seconds; the last one has none."""
    return _LOW_S * 10 ** (index / _BINS_PER_DECADE) if index <= _BINS else math.inf


class TickThread:
    """One thread that calls `tick(late_s, skipped)` every period until `stop`.

    late_s: how long after its deadline the tick began. skipped: deadlines missed since the last tick; the grid of
    deadlines t0 + k T stays where it is, so there is no drift and never two ticks for one deadline.
    spin_s: the last part of each wait is spent spinning instead of sleeping. 0 by default: on two cores it takes time
    from others and the sleep of a modern kernel is as exact. favour: ask the kernel to let the threads of this process
    go first (`scheduling.py`).
    """

    def __init__(
        self,
        tick: Callable[[float, int], object],
        period_s: float,
        *,
        spin_s: float = 0.0,
        favour: bool = True,
        name: str = "flashrt-control",
    ):
        if not (math.isfinite(period_s) and period_s > 0):
            raise ConfigError("period_s", expected="> 0", found=period_s)
        if not 0 <= spin_s < period_s:
            raise ConfigError("spin_s", expected=f"0..{period_s}", found=spin_s)
        self._tick, self._period_ns, self._spin_ns = tick, round(period_s * 1e9), round(spin_s * 1e9)
        self._name, self._favour = name, favour
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lateness, self.cost = Histogram(), Histogram()
        self.ticks = self.skipped = self.late_half = 0  # late_half: ticks later than T/2

    def start(self) -> None:
        """Begin; the first tick comes at once."""
        if self._thread is not None:
            raise ConfigError("TickThread", expected="a new one", found="one that was started")
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End after the tick under way; True when the thread has ended. May be called twice, also from the tick."""
        self._stop.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return thread is None
        thread.join(timeout_s)
        return not thread.is_alive()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        if self._favour:
            favour_this_process()
        deadline, skipped = time.monotonic_ns(), 0
        while not self._stop.is_set():
            now = self._wait(deadline)
            if now is None:
                return
            late_s = (now - deadline) / 1e9
            self._count(late_s, skipped)
            try:
                self._tick(late_s, skipped)
            except Exception:  # the control tick does not raise; should it, the next one still comes
                logger.exception("the control tick raised")
            end = time.monotonic_ns()
            self.cost.add((end - now) / 1e9)
            # The next deadline of the grid that is not yet past; those in between are missed.
            skipped = max(0, (end - deadline) // self._period_ns)
            deadline += (skipped + 1) * self._period_ns

    def _wait(self, deadline: int) -> int | None:
        """Sleep until the deadline; the time then, or None when told to stop.

        time.sleep, not a wait on an Event: that one follows the wall clock before Python 3.11 (F26).
        """
        while not self._stop.is_set():
            now = time.monotonic_ns()
            left = deadline - now
            if left <= 0:
                return now
            if left > self._spin_ns:
                time.sleep(min((left - self._spin_ns) / 1e9, _NAP_S))
        return None

    def _count(self, late_s: float, skipped: int) -> None:
        self.ticks += 1
        self.skipped += skipped
        self.lateness.add(late_s)
        self.late_half += late_s > self._period_ns / 2e9

    def to_json(self) -> dict[str, object]:
        """Counters and both histograms, for the report."""
        return {
            "period_s": self._period_ns / 1e9, "ticks": self.ticks, "skipped": self.skipped, "late_half": self.late_half,
            "lateness": self.lateness.to_json(), "cost": self.cost.to_json(),
        }  # fmt: skip
