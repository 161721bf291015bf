"""AsyncChunkRunner: serves one command per control tick while a worker computes the next chunk.

Ticks are counted, not timed: tick k is the k-th call of `next_action` since the last reset. A chunk asked for at tick
k has its row i for tick k + i, so at tick m it is served from row m - k, the number of ticks executed since its
observation. Nothing in a tick waits, except where its docstring says so, and no lock is held while waiting. Which
command a tick gets is `playback.py`; here are the requests: when to ask, what came back, what went wrong.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError, FlashRTError
from .adapter import ActionChunkAdapter, CallablePolicyAdapter, copy_observation
from .chunk import ChunkError, check_chunk
from .clock import NS, Clock, SteadyClock, to_ns
from .executor import Executor, Job, ThreadExecutor
from .playback import Playback
from .rtc_config import RTCConfig
from .rtc_stats import RTCStats, RunnerEvent

__all__ = [
    "ActionChunkAdapter", "AsyncChunkRunner", "CallablePolicyAdapter", "RTCConfig", "RTCStats", "RunnerClosed",
    "RunnerEvent",
]  # fmt: skip

UNLIMITED_AGE_S = 1e6


class RunnerClosed(FlashRTError, RuntimeError):
    """The runner was used after `close()`."""


@dataclass
class _Request:
    """A chunk under way. Times in ns of the runner's clock."""

    job: Job
    tick: int
    sent_ns: int
    obs_ns: int
    blocked_ns: int  # the runner's total of waits when it was sent
    idle: int  # the runner's total of ticks without a chunk when it was sent
    given_up: bool = False  # a wait for it ran into block_timeout_s: do not wait again


class AsyncChunkRunner:
    """Serves actions of chunk policies at the control rate.

    adapter: the policy. config: RTCConfig. executor: where the policy runs; default a ThreadExecutor, which the
    runner then closes.
    clock: default SteadyClock; give both the same FakeClock in simulation. One control thread calls `next_action`;
    `reset`, `stats` and `close` may be called from another one. The caller owns the loop: the runner does not sleep.
    """

    def __init__(
        self,
        adapter: ActionChunkAdapter,
        config: RTCConfig | None = None,
        *,
        executor: Executor | None = None,
        clock: Clock | None = None,
    ):
        self.adapter, self.config = adapter, config or RTCConfig()
        self._clock = clock or SteadyClock()
        self._own_executor = executor is None
        self._executor = executor or ThreadExecutor(self._clock)
        self._period_ns = to_ns(self.config.period_s)
        self._lock = threading.RLock()  # guards the fields below; held for bounded work only
        self._closed = False
        self._epoch = -1
        self._pending: _Request | None = None
        self._events: deque[RunnerEvent] = deque(maxlen=self.config.event_log)
        self._begin(None)

    # ---- public -----------------------------------------------------------------------------------------------------

    @property
    def stats(self) -> RTCStats:
        """A snapshot of the counters."""
        with self._lock:
            return replace(self._stats)

    @property
    def events(self) -> list[RunnerEvent]:
        """The newest `config.event_log` events since the last reset, oldest first."""
        with self._lock:
            return list(self._events)

    @property
    def last_error(self) -> BaseException | None:
        """What the policy raised last (also ChunkError for an unusable chunk); None after a reset."""
        return self._last_error

    @property
    def stopped(self) -> bool:
        """True once a stop rule fired: the runner holds and asks for nothing until `reset`."""
        return self._stopped

    @property
    def holding(self) -> bool:
        """True when the last command served was a hold."""
        return self._play.held_in_row > 0

    @property
    def plan(self) -> np.ndarray | None:
        """What the chunk in force has for the ticks to come, as it would be served, [N, A]; None without a chunk."""
        with self._lock:
            return self._play.plan()

    @property
    def wants_observation(self) -> bool:
        """True when the next `next_action` will hand its observation to the policy: render or copy images only then.

        Reading it fixes the decision for that tick, whatever the worker does in between.
        """
        with self._lock:
            self._check_open()
            self._prepare()
            return self._want

    def next_action(
        self, obs: object = None, *, block_if_empty: bool = True, obs_age_s: float = 0.0
    ) -> np.ndarray | None:
        """The command for this tick, a new array [A]; one call per control period.

        obs: the newest observation; needed only when `wants_observation`, copied before the worker gets it.
        obs_age_s: how old it is.
        block_if_empty: while nothing has been served since the reset, wait for the first chunk (start of an episode, robot
        at rest); else return the anchor given to `reset`, or None when there is none: nothing is known to command, send
        nothing.
        Never raises for what the policy or the worker does. Waits only as `block_if_empty` and miss_policy="block" say.
        Raises RunnerClosed after `close()`.
        """
        for _ in range(2):  # miss_policy "block": the chunk waited for may be past its last row; then ask once more
            with self._lock:
                self._check_open()
                self._prepare()
                self._submit_if_wanted(obs, obs_age_s)
                self._collect()
                request = self._request_to_wait_for(block_if_empty)
            if request is None:
                break
            self._wait(request)
        with self._lock:
            self._check_open()
            return self._serve()

    def reset(self, obs: object = None, *, anchor: np.ndarray | None = None) -> bool:
        """Forget the chunk, the request under way, the counters and the events; not for use inside a tick.

        A policy call that is running goes on, its result is thrown away, and the next request waits for its end: the
        policy is never called twice at once. anchor: the command [A] to hold until the first chunk (the measured
        position of the robot).
        obs: when given, the first chunk is computed from it now, and this call waits for it; returns True when a
        chunk is ready.
        """
        with self._lock:
            self._check_open()
            self._begin(anchor)
            if obs is None:
                return False
            self._prepare()
            self._submit_if_wanted(obs, 0.0)
            self._collect()
            request = self._pending
        if request is not None:
            self._wait(request)
        with self._lock:
            self._prepared, self._tick_ns = False, None  # the loop may start any time later
            return self._play.index() is not None

    def reconfigure(self, **changes: object) -> None:
        """Change settings, by their RTCConfig names, from the next tick on; the chunk in force stays.

        Raises ConfigError for a value out of range and for target_hz and event_log, which need a new runner.
        """
        for name in ("target_hz", "event_log"):
            if name in changes and changes[name] != getattr(self.config, name):
                raise ConfigError(name, expected="the value that the runner was made with", found=changes[name])
        config = replace(self.config, **changes)
        with self._lock:
            self.config = config
            self._play.reconfigure(config)

    def settle(self, timeout_s: float) -> bool:
        """Wait, between two ticks, until no request is under way; False when the time is up. For simulations that can wait."""
        with self._lock:
            request = self._pending
        return request is None or request.job.wait(timeout_s)

    def close(self, timeout_s: float = 1.0) -> None:
        """Give up the request under way and end the worker thread, waiting at most `timeout_s`. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._pending is not None:
                self._pending.job.cancel()
                self._pending = None
        if self._own_executor:
            self._executor.close(timeout_s)

    def __enter__(self) -> AsyncChunkRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- one tick ---------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise RunnerClosed("RTC runner is closed", hint="make a new one")

    def _begin(self, anchor: np.ndarray | None) -> None:
        """State of a new epoch."""
        play = Playback(self.config, anchor)  # first: a bad anchor changes nothing
        old, self._pending = self._pending, None
        self._epoch += 1
        self._play = play
        self._stats = RTCStats()
        self._events.clear()
        self._prepared = self._want = self._missed = self._stopped = False
        self._errors_in_row = self._rejects_in_row = 0
        self._retry_ns: int | None = None
        self._latencies: deque[float] = deque(maxlen=3)
        self._tick_ns: int | None = None
        self._blocked_ns = 0
        self._last_error: BaseException | None = None
        if old is not None:
            self._discard(old, "reset")

    def _prepare(self) -> None:
        """First half of a tick, done once per tick: time, finished work, decision to ask."""
        if self._prepared:
            return
        self._prepared = True
        now = self._clock.now_ns()
        self._check_time(now)
        self._tick_ns = now
        self._collect()
        self._want = self._needs_chunk(now)

    def _check_time(self, now: int) -> None:
        if self._tick_ns is None:
            return
        gap = now - self._tick_ns
        limit = self.config.max_tick_gap_s
        if gap < 0:
            self._void("clock_back", f"clock went back {-gap / NS:.3f} s")
        elif limit is not None and gap > to_ns(limit):
            self._void("gap", f"{gap / NS:.3f} s without a tick")
        if 2 * gap > 3 * self._period_ns:
            self._stats.late_ticks += 1

    def _void(self, kind: str, reason: str) -> None:
        """What was planned belongs to another time: drop it and stand still at the last command."""
        self._event(kind, reason=reason)
        request, self._pending = self._pending, None
        if request is not None:
            self._discard(request, reason)
        self._retry_ns = None
        self._play.freeze()

    def _needs_chunk(self, now: int) -> bool:
        if self._stopped or self._pending is not None or (self._retry_ns is not None and now < self._retry_ns):
            return False
        at = self._play.index()
        if at is None:
            return True
        index, rows = at
        start = self.config.start_row(rows)
        if self.config.request_early:
            start = min(start, rows - 1 - math.ceil(self._stats.latency_estimate_s / self.config.period_s - 1e-6))
        return index >= start

    def _submit_if_wanted(self, obs: object, obs_age_s: float) -> None:
        if not self._want:
            return
        if obs is None:
            self._want = False
            self._stats.missing_observations += 1
            return
        self._want = False
        if not 0 <= obs_age_s <= (self.config.max_obs_age_s or UNLIMITED_AGE_S):
            self._stats.stale_observations += 1
            return
        now = self._clock.now_ns()
        try:
            private, adapter = copy_observation(obs), self.adapter
            job = self._executor.submit(lambda: check_chunk(adapter.infer_actions(private)))
        except Exception as error:  # an object that cannot be copied or a dead worker is no reason to drop a tick
            self._failed(error, now)
            return
        self._stats.chunks_started += 1
        obs_ns = now - to_ns(obs_age_s)
        self._pending = _Request(job, self._play.tick, now, obs_ns, self._blocked_ns, self._stats.idle_ticks)

    def _request_to_wait_for(self, block_if_empty: bool) -> _Request | None:
        if self._pending is None or self._pending.given_up or self._play.index():
            return None
        if not self._play.started:
            return self._pending if block_if_empty and not self._stats.actions_served else None
        return self._pending if self.config.miss_policy == "block" else None

    def _wait(self, request: _Request) -> None:
        """Wait without the lock, then take the result if nobody reset the runner meanwhile."""
        with self._lock:
            if self._play.started:
                self._count_miss()
        before = self._clock.now_ns()
        done = request.job.wait(self.config.block_timeout_s)
        with self._lock:
            if self._pending is not request:
                return
            now = self._clock.now_ns()
            self._blocked_ns += max(0, now - before)
            self._tick_ns = now
            if not done:
                request.given_up = True
                self._event("timeout", request, reason=f"no chunk within {self.config.block_timeout_s} s")
            self._collect()
            self._want = self.config.miss_policy == "block" and not self._play.index() and self._needs_chunk(now)

    # ---- results ----------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take the finished request, if any: the next chunk, an error or nothing usable."""
        request = self._pending
        if request is None or not request.job.done():
            return
        self._pending = None
        now = self._clock.now_ns()
        error = request.job.error
        if error is not None and not isinstance(error, ChunkError):
            self._failed(error, now, request)
            return
        self._stats.chunks_completed += 1
        latency = max(0, request.job.finished_ns - request.sent_ns) / NS
        self._latencies.append(latency)
        self._stats.last_latency_s = latency
        self._stats.max_latency_s = max(self._stats.max_latency_s, latency)
        self._stats.latency_estimate_s = max(self._latencies)
        self._errors_in_row, self._retry_ns = 0, None
        error = error or self._play.misfit(request.job.value)
        if error is not None:
            self._rejected(error, request, latency)
            return
        self._activate(request.job.value[: self.config.action_horizon], request, now, latency)

    def _activate(self, raw: np.ndarray, request: _Request, now: int, latency: float) -> None:
        """Let a good chunk take over at the row that belongs to this tick."""
        config, play = self.config, self._play
        idle = 0 if config.held_ticks_advance else self._stats.idle_ticks - request.idle
        executed = play.tick - request.tick - idle
        age = (now - request.obs_ns) / NS
        if executed >= len(raw) or (config.max_obs_age_s is not None and age > config.max_obs_age_s):
            self._missed = False
            self._stats.expired_chunks += 1
            self._event("expire", request, executed=executed, latency_s=latency, obs_age_s=age)
            return
        gap = play.disagreement(raw, executed)
        if gap is not None and config.max_disagreement is not None and gap > config.max_disagreement:
            rule = f"<= {config.max_disagreement}"
            self._rejected(ChunkError("disagreement at the switch", expected=rule, found=gap), request, latency)
            return
        waited = self._blocked_ns - request.blocked_ns
        elapsed = round((now - request.sent_ns - waited) / self._period_ns) - idle
        kind, resumed = "switch" if play.started else "start", play.started and not play.index()
        blend = play.take(raw, executed)
        self._rejects_in_row, self._missed = 0, False
        self._stats.index_mismatches += executed != elapsed
        self._stats.swaps += kind == "switch"
        self._event(
            kind, request, executed=executed, elapsed_ticks=elapsed, disagreement=gap, latency_s=latency, obs_age_s=age,
            blend=blend, resumed=resumed,
        )  # fmt: skip

    def _failed(self, error: BaseException, now: int, request: _Request | None = None) -> None:
        """The policy raised: remember it, ask again later; the current chunk goes on."""
        self._last_error = error
        self._stats.policy_errors += 1
        self._errors_in_row += 1
        wait = self.config.error_backoff_s * 2.0 ** min(self._errors_in_row - 1, 60)
        self._retry_ns = now + to_ns(min(wait, self.config.error_backoff_max_s))
        self._event("error", request, reason=f"{type(error).__name__}: {error}")

    def _rejected(self, error: FlashRTError, request: _Request, latency: float) -> None:
        self._last_error = error
        self._stats.rejected_chunks += 1
        self._rejects_in_row += 1
        self._event("reject", request, latency_s=latency, reason=str(error))
        if self._rejects_in_row >= self.config.hold_after_rejects:
            self._play.drop()
        if self._rejects_in_row >= self.config.stop_after_rejects:
            self._stop(f"{self._rejects_in_row} unusable chunks in a row")

    def _stop(self, reason: str) -> None:
        if not self._stopped:
            self._stopped = True
            self._play.drop()
            self._event("stop", reason=reason)

    # ---- serving ----------------------------------------------------------------------------------------------------

    def _serve(self) -> np.ndarray | None:
        """Second half of a tick: its command, counted."""
        play, tick = self._play, self._play.tick
        self._prepared = False
        action = play.step()
        if action is None:
            self._stats.empty_ticks += 1
            return None
        self._stats.actions_served += 1
        if play.held_in_row:
            self._stats.held_actions += 1
            if play.started:
                self._count_miss()
            if play.held_in_row == 1:
                self._event("hold", tick=tick)
            if self.config.max_held is not None and play.held_in_row >= self.config.max_held:
                self._stop(f"{play.held_in_row} ticks held")
        return action

    def _count_miss(self) -> None:
        """Once per late chunk: the flag is cleared when one takes over or comes past its last row."""
        self._stats.deadline_misses += not self._missed
        self._missed = True

    # ---- records ----------------------------------------------------------------------------------------------------

    def _discard(self, request: _Request, reason: str) -> None:
        """Give up a request: it is not run if it has not started, and its result is nobody's."""
        request.job.cancel()
        self._stats.discarded_chunks += 1
        self._event("discard", request, reason=reason)

    def _event(self, kind: str, request: _Request | None = None, *, tick: int | None = None, **fields: object) -> None:
        tick = self._play.tick if tick is None else tick
        asked = None if request is None else request.tick
        self._events.append(RunnerEvent(kind, tick, self._epoch, request_tick=asked, **fields))
