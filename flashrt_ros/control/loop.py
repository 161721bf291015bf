"""ControlLoop: one command per control period, whatever the policy, the inputs or the operator do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from flashrt_core.errors import ConfigError, DeviceError, ObservationError
from flashrt_core.runtime.clock import NS, Clock
from flashrt_core.runtime.rtc import AsyncChunkRunner, RunnerClosed
from flashrt_core.runtime.rtc_stats import RTCStats, RunnerEvent

from ..config.settings import RobotConfig
from ..inputs.observation import Observation, ObservationBuilder
from ..worker.policy_worker import PolicyWorker
from .fault_watch import RUNNER_HOLDS, FaultWatch, late_faults
from .following import FollowMonitor
from .guard import Guard
from .health import FAULTS, Health, Level
from .hold import Ramp
from .outlet import INTERNAL, Outlet
from .tick_record import Sink, TickRecord

logger = logging.getLogger(__name__)


class Mode(str, Enum):
    """INACTIVE: silent. ACTIVE: one command per tick. TAKEN: silent, somebody else commands. ENDING: coming to rest."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    TAKEN = "taken"
    ENDING = "ending"


@dataclass
class ControlCounters:
    """Since the last activation. ticks: control periods while not inactive. chunks: those that took over.

    index_errors: action indices lost or repeated, by our own count of ticks against the runner's. internal_errors:
    exceptions caught in the tick. The outlet has those of commands, `stats` those of the runner.
    """

    ticks: int = 0
    chunks: int = 0
    index_errors: int = 0
    internal_errors: int = 0


class ControlLoop:
    """Runner, inputs, guard, health and sinks as one tick. No thread and no ROS of its own: somebody calls `tick`.

    `tick` does bounded work, never waits and never raises: what goes wrong inside becomes a fault. The other methods may
    be called from any thread; they share a lock with the tick that is held for bounded work only.

    What a level means here: note and coast: serve the runner's next row. Hold: for faults of the policy side
    (RUNNER_HOLDS) the runner itself comes to rest, asks on and resumes; for all others the loop decelerates along the
    last commands, and when the fault is over the runner starts anew from the held command. Stop and exit: as hold, and
    once at rest `request` says what the node must do.
    """

    def __init__(
        self,
        robot: RobotConfig,
        observations: ObservationBuilder,
        runner: AsyncChunkRunner,
        guard: Guard,
        health: Health,
        sinks: Sequence[Sink],
        clock: Clock,
        worker: PolicyWorker | None = None,
    ):
        self.robot, self.observations, self.runner = robot, observations, runner
        self.health, self.clock = health, clock
        self.counters = ControlCounters()
        self._worker = worker
        self._period_s = runner.config.period_s
        self._watch = FaultWatch(runner, worker, self._period_s)
        self._lock = threading.RLock()
        self._idle = threading.Event()
        self._idle.set()
        self._mode = Mode.INACTIVE
        self._request: str | None = None
        self._cost_s = 0.0
        self._totals = RTCStats()
        self._held_ticks_advance = runner.config.held_ticks_advance
        self._follow = FollowMonitor(robot)
        self.outlet = Outlet(robot, guard, health, sinks, self._period_s)
        self._begin()

    # ---- what the node calls

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def request(self) -> str | None:
        """What the node must do now that the arm is at rest: None, "deactivate" or "exit"."""
        return self._request

    @property
    def last_command(self) -> np.ndarray | None:
        """The command published last, [A], or None."""
        with self._lock:
            return self.outlet.published[-1].copy() if self.outlet.published else None

    def activate(self, state: np.ndarray | None = None) -> None:
        """Start commanding with the next tick, from where the robot stands.

        state: measured state [state dims]; default: the newest. Raises ObservationError, DeviceError or ConfigError when
        inputs, worker or the robot's position do not allow it; the loop then stays inactive.
        """
        with self._lock:
            if self._mode is not Mode.INACTIVE:
                raise ConfigError("activate", expected="an inactive control loop", found=self._mode.value)
            self._check_ready()
            self._anchor(state)
            self.counters, self._totals = ControlCounters(), RTCStats()
            self._request = None
            self.outlet.restart()
            self.health.operator_clear(self.clock.now_ns())
            self._reset_runner(self.outlet.guard.last_command)
            self._mode = Mode.ACTIVE
            self._idle.clear()

    def deactivate(self) -> None:
        """Come to rest, then go silent; no chunk is served any more. The ticks must go on: `wait_inactive`."""
        with self._lock:
            if self._mode is Mode.TAKEN or (self._mode is Mode.ACTIVE and not self.outlet.published):
                self._end()
            elif self._mode is Mode.ACTIVE:
                self._hold = self._hold or Ramp.after(self.outlet.published, self.runner.config.spec)
                self._mode = Mode.ENDING  # from here on no tick asks the runner

    def wait_inactive(self, timeout_s: float) -> bool:
        """Wait, in the caller's thread, until the loop is inactive; False when the time is up."""
        return self._idle.wait(timeout_s)

    def abandon(self) -> None:
        """Silent at once, wherever the arm is: for when nobody calls `tick` any more (simulated time that stands still)."""
        with self._lock:
            if self._mode is not Mode.INACTIVE:
                self._end()

    def takeover(self) -> None:
        """Somebody else commands the robot: silent from the next tick on (F21)."""
        with self._lock:
            if self._mode is Mode.ACTIVE:
                self._mode = Mode.TAKEN
                self.outlet.guard.take_over()
                self._reset_runner(None)

    def release(self, state: np.ndarray | None = None) -> None:
        """Command again, from where the robot stands now. Raises as `activate` does, and then stays silent."""
        with self._lock:
            if self._mode is not Mode.TAKEN:
                raise ConfigError("release", expected="a control loop that was taken over", found=self._mode.value)
            self._check_ready()
            self._anchor(state)
            # An operator's act, as activate: the one who took over was a second publisher (F18), and may have gone again.
            self.health.operator_clear(self.clock.now_ns())
            self._reset_runner(self.outlet.guard.last_command)
            self._mode = Mode.ACTIVE

    def resume(self) -> None:
        """The operator ends a hold (health.auto_resume false). What still holds is raised again in the next tick."""
        with self._lock:
            self.health.operator_clear(self.clock.now_ns())

    def set_limits(self, robot: RobotConfig) -> None:
        """Other limits and safety settings for the same dimensions. ConfigError when the dimensions differ."""
        with self._lock:
            self.outlet.set_limits(robot)
            self.robot = robot
            self._follow.robot, self._follow.safety = robot, robot.safety
            self.observations.safety = robot.safety

    def set_splice(self, splice: str, blend_ticks: int = 0) -> None:
        """How the next chunks are joined (`chunk.SPLICES`). ConfigError for an unknown one."""
        self.runner.reconfigure(splice=splice, blend_steps=blend_ticks)

    def stats(self) -> dict[str, float | int]:
        """The runner's counters since the last activation, over all its resets."""
        with self._lock:
            return _added(self._totals, self.runner.stats).to_json()

    # ---- the tick

    def tick(self, late_s: float = 0.0, skipped: int = 0) -> TickRecord | None:
        """One control period. late_s, skipped: what the tick thread says about its timing. Returns what was published."""
        with self._lock:
            start = time.perf_counter()
            try:
                return self._tick(late_s, skipped)
            except RunnerClosed:
                self._silence()
                return None
            except Exception:
                self.counters.internal_errors += 1
                logger.exception("control tick")
                return self._emergency()
            finally:
                self._cost_s = time.perf_counter() - start

    def _tick(self, late_s: float, skipped: int) -> TickRecord | None:
        if self._mode is Mode.INACTIVE:
            return None
        now = self.clock.now_ns()
        self.counters.ticks += 1
        self.health.report(late_faults(late_s, skipped, self._cost_s, self._period_s), now)
        if self._mode is Mode.TAKEN:
            self.health.raise_("F21", "somebody else commands the robot", now_ns=now)
            self.health.cycle(now)
            return None
        if self._mode is Mode.ENDING:
            record = self.outlet.publish(self._hold.next(), "hold", now, -1, -1)
            if self._hold.at_rest:
                self._end()
            return record
        self._raise_inputs(now)
        self._raise_following(now)
        want = self._hold is None and self.runner.wants_observation
        self._taken = self._read_runner(now)
        self.health.report(self._watch.lasting(), now)
        level = self.health.cycle(now)
        if self._must_hold(level):
            return self._tick_held(level, now)
        if self._hold is not None:
            self._resume()
            want = self.runner.wants_observation
        return self._tick_served(want, now)

    def _tick_served(self, want: bool, now: int) -> TickRecord | None:
        """Serve the runner's next row."""
        obs = self._snapshot(now) if want else None
        age_s = 0.0
        if obs is not None:
            self._asked, self._asked_at, age_s = obs, self._advanced, max(0.0, obs.age_s(now))
        command = self.runner.next_action(obs, block_if_empty=False, obs_age_s=age_s)
        taken = self._read_runner(now) or self._taken
        self._taken = None
        served = command is not None and not self.runner.holding
        self._calls += 1
        self._advanced += served or self.runner.config.held_ticks_advance
        self._row = self._row + 1 if served else -1
        self._watch.served(not served)
        if command is None:
            return None  # nothing is known to command: silence is safe
        source = "chunk" if served else ("hold" if self.counters.chunks else "anchor")
        record = self.outlet.publish(command, source, now, self.counters.chunks - 1, self._row)
        # A chunk whose first row the guard refused is no plan: an output that sends it ahead would execute it all the same.
        if taken is not None and served and record is not None and record.source == "chunk":
            self.outlet.announce(taken, record, self.runner.plan, self._asked)
        return record

    def _tick_held(self, level: Level, now: int) -> TickRecord | None:
        if self._hold is None:
            base = self.outlet.base()
            self._reset_runner(base[-1] if base else None)
            self._hold = Ramp.after(base, self.runner.config.spec)
        record = None
        if self._hold is not None:
            record = self.outlet.publish(self._hold.next(), "hold", now, -1, -1)
        if level >= Level.STOP and (self._hold is None or self._hold.at_rest):
            self._request = "exit" if level >= Level.EXIT else "deactivate"
        return record

    def _must_hold(self, level: Level) -> bool:
        """Whether the loop itself must hold: a stop, or a hold that the runner does not do by itself."""
        if level != Level.HOLD or not self.health.auto_resume:
            return level >= Level.HOLD
        return any(x >= Level.HOLD and fault not in RUNNER_HOLDS for fault, x in self.health.active.items())

    # ---- faults

    def _raise_inputs(self, now: int) -> None:
        """Faults of the inputs; those that allow a coast become a hold when there is nothing left to coast on."""
        state_lost = False
        for report in self.observations.faults(now):
            if report.id == "F15":
                state_lost = True
                grown = self._state_lost
            else:
                grown = report.id in ("F01", "F02") and self._watch.holding
            least = FAULTS[report.id].level if report.level is None else report.level
            level = max(least, Level.HOLD) if grown else report.level
            self.health.raise_(report.id, report.reason, level=level, now_ns=now)
        self._state_lost = state_lost  # one period of coast, then a hold (F15: 50 ms + T)

    def _raise_following(self, now: int) -> None:
        last = self.outlet.published[-1] if self.outlet.published else None
        report = self._follow.update(last, self._fresh_state(now), now)
        if report is not None:
            self.health.report([report], now)

    def _read_runner(self, now: int) -> RunnerEvent | None:
        """Turn the runner's new events into faults; the event of a chunk that took over, if any."""
        taken = None
        for event in self._watch.new_events():
            if event.kind == "error" and self._prompt_refused():
                continue
            self.health.report(self._watch.on_event(event), now)
            if event.kind in ("start", "switch"):
                taken = event
                if self._asked is not None:
                    self.observations.prompt_slot.served(self._asked.prompt)
                self._count_index(event)
                self._plan_waits(False)
                if self.health.auto_resume:
                    for fault in [f for f, x in self.health.active.items() if f in RUNNER_HOLDS and x == Level.HOLD]:
                        self.health.clear(fault, now)
        return taken

    def _prompt_refused(self) -> bool:
        """Whether the policy's error is that it cannot take the prompt (F86): then the old one is in force again."""
        error, asked = self.runner.last_error, self._asked
        if asked is None or not isinstance(error, ObservationError) or error.thing != "prompt":
            return False
        return self.observations.prompt_slot.refused(asked.prompt, error)

    def _count_index(self, event: RunnerEvent) -> None:
        """The index law: a chunk starts at the row that is as many as our ticks since its observation was taken, and the
        runner has counted as many ticks as we have."""
        ahead = event.tick - self._calls
        wrong = abs(int(event.executed) - (self._advanced - self._asked_at)), abs(ahead - self._runner_ahead)
        self.counters.index_errors += max(wrong)
        self.counters.chunks += 1
        self._runner_ahead = ahead
        self._row = int(event.executed) - 1

    # ---- when it goes wrong

    def _emergency(self) -> TickRecord | None:
        """After an error of our own: stop, and hold what was published last."""
        try:
            now = self.clock.now_ns()
            self.health.raise_(INTERNAL, "the control tick raised; the log has the traceback", now_ns=now)
            return self._tick_held(self.health.cycle(now), now)
        except Exception:
            logger.exception("control tick, hold")
            self._request = "exit"  # not even a hold can be made
            return None

    # ---- inputs

    def _snapshot(self, now: int) -> Observation | None:
        """The observation for a request, or None; what forbids one was raised by `_raise_inputs`."""
        found = self.observations.snapshot(now)
        return None if isinstance(found, list) else found

    def _fresh_state(self, now: int) -> np.ndarray | None:
        """The measured state [state dims], or None when it is too old."""
        state = self.observations.state
        if state is None or now - state.received_ns > self.robot.safety.max_state_age_s * NS:
            return None
        return state.values

    def _anchor(self, state: np.ndarray | None) -> None:
        """Tell the guard where the robot stands, and forget what was commanded before."""
        if state is None:
            newest = self.observations.state
            state = np.zeros(0, np.float32) if newest is None else newest.values
        refused = self.outlet.guard.anchor(np.asarray(state))
        if refused is not None:
            raise ObservationError(
                refused.subject or "state", expected="a position to start from", found=refused.reason
            )
        self._begin()
        self._follow.reset()

    def _check_ready(self) -> None:
        if self._worker is not None and not self._worker.alive:
            raise DeviceError("policy worker", expected="ready", found=self._worker.status().state.value)
        for report in self.observations.faults(self.clock.now_ns()):
            if (FAULTS[report.id].level if report.level is None else report.level) >= Level.COAST:
                raise ObservationError(report.subject or "inputs", expected="fresh and good", found=str(report))
        if not self.observations.prompt:
            raise ObservationError("prompt", expected="a task in words", found="none")

    # ---- state

    def _begin(self) -> None:
        """Standstill: nothing published, nothing planned."""
        self.outlet.begin()
        self._hold: Ramp | None = None
        self._taken: RunnerEvent | None = None
        self._asked: Observation | None = None
        self._advanced = self._asked_at = self._calls = self._runner_ahead = 0
        self._row = -1
        self._state_lost = False

    def _resume(self) -> None:
        """A hold is over: the runner starts anew from where the arm stands."""
        self._hold = None
        self._reset_runner(self.outlet.base()[-1])

    def _reset_runner(self, anchor: np.ndarray | None) -> None:
        """Forget all chunks, the one under way too."""
        self._totals = _added(self._totals, self.runner.stats)
        self._plan_waits(True)  # the arm stands: the first chunk starts at its row 0 (F24)
        self.runner.reset(anchor=anchor)
        self._watch.reset()
        self._row, self._calls, self._runner_ahead = -1, 0, 0

    def _plan_waits(self, waits: bool) -> None:
        """Whether held ticks leave the row where it is; once a chunk has begun it is as the runner was configured."""
        advance = self._held_ticks_advance and not waits
        if advance != self.runner.config.held_ticks_advance:
            self.runner.reconfigure(held_ticks_advance=advance)

    def _end(self) -> None:
        self._reset_runner(None)
        self._silence()

    def _silence(self) -> None:
        self._mode = Mode.INACTIVE
        self.outlet.guard.release()
        self._begin()
        self._idle.set()


def _added(a: RTCStats, b: RTCStats) -> RTCStats:
    """Counters summed, maxima taken, the newest latency kept."""
    out = RTCStats(**{name: value + getattr(b, name) for name, value in a.to_json().items()})
    out.max_latency_s = max(a.max_latency_s, b.max_latency_s)
    for name in ("last_latency_s", "latency_estimate_s"):
        setattr(out, name, getattr(b, name) or getattr(a, name))
    return out
