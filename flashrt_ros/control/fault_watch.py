"""FaultWatch: turns what the chunk runner, the worker and the tick thread report into faults of the table."""

from __future__ import annotations

import statistics
from collections import deque

from flashrt_core.runtime.rtc import AsyncChunkRunner
from flashrt_core.runtime.rtc_stats import RunnerEvent

from ..worker.policy_worker import PolicyWorker, WorkerState
from .health import FaultReport, Level

SPIKE = 5.0  # a latency this many times the median is a spike (F23)
SLOWER = 1.3  # the fastest of the last three calls this many times the usual one: the device is slow (F39)
_WARM_CALLS = 8
# Faults during which the runner, asking on, holds by itself and resumes by itself when a good chunk comes. The others
# are about the robot or its inputs: there the loop holds and the runner is silent.
RUNNER_HOLDS = frozenset({"F01", "F02", "F22", "F30", "F32", "F33", "F34", "F40", "F42"})


class FaultWatch:
    """Reads events and states; never waits. One per control loop, `reset` at each epoch of the runner.

    started: a chunk has been served since. holding: the last tick got a hold because there was no chunk for it.
    """

    def __init__(self, runner: AsyncChunkRunner, worker: PolicyWorker | None, period_s: float):
        self._runner, self._worker, self._period_s = runner, worker, period_s
        self._until_chunk: dict[str, FaultReport] = {}  # hold until a chunk takes over
        self._latencies: deque[float] = deque(maxlen=50)
        self._bad = 0
        self.reset()

    def reset(self) -> None:
        """The runner was reset: its event list is empty."""
        self._last: RunnerEvent | None = None
        self.started = self.holding = False
        self._until_chunk.clear()

    def served(self, held: bool) -> None:
        """What the runner served in this tick: a row of a chunk, or a hold."""
        self.holding = held and self.started

    def new_events(self) -> list[RunnerEvent]:
        """Events since the last call, oldest first; the runner keeps the newest `event_log` of them."""
        events = self._runner.events
        fresh = len(events)
        while fresh and events[fresh - 1] is not self._last:
            fresh -= 1
        self._last = events[-1] if events else None
        return events[fresh:]

    def on_event(self, event: RunnerEvent) -> list[FaultReport]:
        """The notes that an event is worth; what lasts longer comes from `lasting`."""
        out = []
        if event.kind in ("start", "switch"):
            self.started, self.holding, self._bad = True, False, 0
            self._until_chunk.clear()
        elif event.kind == "gap":
            self._until_chunk["F30"] = FaultReport("F30", event.reason or "", level=Level.HOLD)
        elif event.kind == "clock_back":
            self._until_chunk["F27"] = FaultReport("F27", event.reason or "", level=Level.HOLD)
        elif event.kind in ("reject", "error", "timeout"):
            self._unusable(event)
        elif event.kind == "stop":
            row = "F40" if self._bad else "F22"
            self._until_chunk[row] = FaultReport(row, event.reason or "", level=Level.STOP)
        if event.latency_s is not None:
            out += self._speed(event.latency_s)
        return out

    def _unusable(self, event: RunnerEvent) -> None:
        """A chunk that cannot be served, or none at all because the policy raised."""
        error, reason = self._runner.last_error, event.reason or ""
        if event.kind == "error":
            if self._worker is not None and not self._worker.alive:
                return  # `lasting` says so
            row = "F42"
        else:
            thing, expected = getattr(error, "thing", ""), getattr(error, "expected", "")
            row = "F41" if "disagreement" in thing else "F40" if expected == "finite numbers" else "F42"
        self._bad += 1
        held = self._bad >= self._runner.config.hold_after_rejects and row != "F41"
        self._until_chunk[row] = FaultReport(row, reason, level=Level.HOLD if held else Level.COAST)

    def _speed(self, latency_s: float) -> list[FaultReport]:
        usual = statistics.median(self._latencies) if len(self._latencies) >= _WARM_CALLS else None
        self._latencies.append(latency_s)
        if usual is None or latency_s <= self._period_s:  # within one tick nobody can tell
            return []
        if latency_s > SPIKE * usual:
            return [FaultReport("F23", f"{latency_s * 1e3:.0f} ms, usually {usual * 1e3:.0f} ms")]
        recent = min(list(self._latencies)[-3:])
        if recent > SLOWER * usual:
            return [FaultReport("F39", f"{recent * 1e3:.0f} ms, usually {usual * 1e3:.0f} ms")]
        return []

    def lasting(self) -> list[FaultReport]:
        """What holds in this period: raised in each one until it is over."""
        out = list(self._until_chunk.values())
        worker = self._worker_fault()
        if worker is not None:
            out.append(worker)
        if self.holding and not out:
            out.append(FaultReport("F22", "no chunk for this tick", level=Level.HOLD))
        return out

    def _worker_fault(self) -> FaultReport | None:
        if self._worker is None:
            return None
        status = self._worker.status()
        if status.state is WorkerState.READY:
            return None
        fault, reason = status.fault or "F32", status.reason or status.state.value
        if status.state in (WorkerState.FAILED, WorkerState.CLOSED):
            return FaultReport("F38" if fault == "F34" else "F32", f"given up: {reason}", level=Level.STOP)
        held = Level.HOLD if self.holding else None
        return FaultReport(fault, f"{reason}; {status.phase}", level=held)


def late_faults(late_s: float, skipped: int, cost_s: float, period_s: float) -> list[FaultReport]:
    """F25: our own tick took too long. F31: something else kept the thread from running (GIL, scheduler, SIGSTOP)."""
    if skipped and cost_s > period_s:
        return [FaultReport("F25", f"{skipped} ticks skipped after one of {cost_s * 1e3:.0f} ms")]
    if skipped or late_s > period_s / 2:
        return [FaultReport("F31", f"{late_s * 1e3:.0f} ms late, {skipped} ticks skipped")]
    return []
