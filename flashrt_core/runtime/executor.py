"""Executors: where one policy call at a time runs, apart from the control tick."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from ..errors import ConfigError
from .clock import Clock, FakeClock, SteadyClock, to_ns

# Latency and period come from floats (0.1 s, 1/30 s); below this a result counts as ready.
READY_TOLERANCE_NS = 1_000


class Job(Protocol):
    """One submitted call. `value`, `error` and `finished_ns` may be read once `done()` is true.

    value: what the call returned, or None. error: what it raised, or None. finished_ns: when it ended, by the
    executor's clock.
    """

    value: object
    error: BaseException | None
    finished_ns: int

    def done(self) -> bool: ...

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until done or until the time is up; returns `done()`."""
        ...

    def cancel(self) -> None:
        """Forget the call if it has not started; a running call goes on and its result is nobody's."""
        ...


class Executor(Protocol):
    """Runs jobs one at a time, in the order of submission; `submit` never waits for another job."""

    def submit(self, fn: Callable[[], object]) -> Job: ...

    def close(self, timeout_s: float = 1.0) -> None: ...


class ThreadJob:
    """A call on the executor's thread."""

    def __init__(self, fn: Callable[[], object]):
        self.value: object = None
        self.error: BaseException | None = None
        self.finished_ns = 0
        self._fn: Callable[[], object] | None = fn
        self._ended = threading.Event()

    def done(self) -> bool:
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        return self._ended.wait(timeout_s)

    def cancel(self) -> None:
        self._fn = None

    def run(self, clock: Clock) -> None:
        """Called by the worker thread only."""
        fn, self._fn = self._fn, None  # the observation is let go with the call
        try:
            if fn is not None:
                self.value = fn()
        except BaseException as error:  # the worker's boundary: whatever the policy raises becomes data
            self.error = error
        self.finished_ns = clock.now_ns()
        self._ended.set()


class ThreadExecutor:
    """One daemon thread, started by the first job. A hung call does not keep the process from exiting."""

    def __init__(self, clock: Clock | None = None, name: str = "flashrt-policy"):
        self._clock = clock or SteadyClock()
        self._name = name
        self._jobs: queue.SimpleQueue[ThreadJob | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, fn: Callable[[], object]) -> ThreadJob:
        job = ThreadJob(fn)
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
            self._thread.start()
        return job

    def _loop(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            job.run(self._clock)
            del job  # the last result must not live on while the thread waits

    def close(self, timeout_s: float = 1.0) -> None:
        """Ask the thread to end after the jobs it has, and wait for it at most `timeout_s`."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout_s)
            self._thread = None


class SimulatedJob:
    """A call whose result exists already but shows only once the fake clock has passed its latency."""

    def __init__(self, value: object, error: BaseException | None, finished_ns: int, clock: FakeClock):
        self.value, self.error, self.finished_ns = value, error, finished_ns
        self._clock = clock

    def done(self) -> bool:
        return self._clock.now_ns() + READY_TOLERANCE_NS >= self.finished_ns

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waiting in simulation means that simulated time passes."""
        limit = self.finished_ns if timeout_s is None else self._clock.now_ns() + to_ns(timeout_s)
        self._clock.advance_to_ns(min(self.finished_ns, limit))
        return self.done()

    def cancel(self) -> None:
        """Nothing to undo: the simulated worker stays busy until the call's latency is over, as a real one would."""


class SimulatedExecutor:
    """Deterministic lock-step worker: computes on `submit`, delivers after `latency_s` of fake time.

    With latency L and control period T, a job submitted at tick k is first done at tick k + ceil(L / T); with L = 0 at
    tick k itself. latency_s: seconds, or a function of the job number (0, 1, ...) that returns seconds. One worker: a
    job submitted while an earlier one is under way starts when that one ends.
    """

    def __init__(self, latency_s: float | Callable[[int], float], clock: FakeClock):
        if not callable(latency_s) and not latency_s >= 0:
            raise ConfigError("latency_s", expected=">= 0 seconds", found=latency_s)
        self._latency_s, self._clock = latency_s, clock
        self._free_ns = self._sent_ns = clock.now_ns()
        self._count = 0

    def submit(self, fn: Callable[[], object]) -> SimulatedJob:
        latency = self._latency_s(self._count) if callable(self._latency_s) else self._latency_s
        self._count += 1
        now = self._clock.now_ns()
        # After a jump back in time (a looping recording) nothing is left to wait for.
        start = max(now, self._free_ns) if now >= self._sent_ns else now
        self._sent_ns = now
        value, error = None, None
        try:
            value = fn()
        except Exception as raised:  # runs on the caller's thread: an interrupt from the keyboard stays an interrupt
            error = raised
        self._free_ns = start + to_ns(latency)
        return SimulatedJob(value, error, self._free_ns, self._clock)

    def close(self, timeout_s: float = 1.0) -> None:
        """Nothing runs, nothing to end."""
