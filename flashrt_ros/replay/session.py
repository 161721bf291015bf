"""Session: the control loop of the node on a bag's time: it asks the policy when the node would have, commands go nowhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flashrt_core.errors import ObservationError
from flashrt_core.runtime.chunk import SPLICES
from flashrt_core.runtime.clock import NS, FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor, SimulatedJob
from flashrt_core.runtime.rtc import AsyncChunkRunner

from ..config.settings import RobotConfig
from ..control.guard import Guard
from ..control.health import FAULTS, Health
from ..control.loop import ControlLoop
from ..control.tick_record import PlannedChunk, TickRecord
from ..inputs.observation import Observation
from ..worker.policy_worker import PolicyWorker
from .action_error import ActionErrors
from .decode import Seen
from .feed import BagEnd
from .inputs import QUIET, ReplayedInputs
from .outcome import BagOutcome
from .recorded import Matcher
from .settings import ReplaySettings
from .splice_trace import SpliceTrace
from .timeline import Tick

EXCERPT_TICKS = 400
FAULT_NAMES = {row.name: f"{fault} {row.name}" for fault, row in FAULTS.items()}
OPEN_LOOP = {"follow_tolerance": 1e6, "anchor_gap": 1e6}  # nothing follows these commands: F20, F21 have no meaning


class MeasuredExecutor(SimulatedExecutor):
    """Delivers a result after as much of the bag's time as the call took here."""

    def __init__(self, clock: FakeClock):
        self._took_s = 0.0
        super().__init__(lambda number: self._took_s, clock)

    def submit(self, fn: Callable[[], object]) -> SimulatedJob:
        start, value, error = time.perf_counter(), None, None
        try:
            value = fn()
        except Exception as raised:
            error = raised
        self._took_s = time.perf_counter() - start

        def result() -> object:
            if error is not None:
                raise error
            return value

        return super().submit(result)


class Asker:
    """The adapter between runner and worker: gives each call its noise and keeps what came back until it is matched."""

    def __init__(self, worker: PolicyWorker, settings: ReplaySettings, outcome: BagOutcome):
        self._worker, self._settings, self._outcome = worker, settings, outcome
        self.global_tick = 0
        self.asked: tuple[Observation, np.ndarray] | None = None  # of the tick under way

    def infer_actions(self, obs: Observation) -> np.ndarray:
        seed = self._settings.noise_seed(self.global_tick)
        request = {"images": obs.images, "state": obs.state, "prompt": obs.prompt, "seed": seed}
        start = time.perf_counter()
        try:
            chunk = self._worker.infer_actions(request)
        except Exception as error:  # the runner counts it and goes on, as on the robot
            self._outcome.reasons.setdefault("policy", f"{type(error).__name__}: {error}")
            raise
        self._outcome.model_ms.append((time.perf_counter() - start) * 1e3)
        self._outcome.requests += 1
        self.asked = obs, chunk
        return chunk


class Session:
    """One bag. `put` every input and `tick` every tick in order, then `end`; the figures are in `outcome`."""

    def __init__(
        self, settings: ReplaySettings, worker: PolicyWorker, scale: np.ndarray, bag: str, start_ns: int,
        on_chunk: Callable[[int, PlannedChunk], None] = lambda at_ns, plan: None,
    ):  # fmt: skip
        """scale: [A], normalised unit of each action dimension. on_chunk: (log time, chunk that takes over)."""
        self.settings, info = settings, worker.info
        robot = settings.robot
        robot.check_policy(info.views, info.state_dim, info.action_dim)
        self._start_ns, self._on_chunk = start_ns, on_chunk
        self._clock = FakeClock()
        self._clock.advance_to_ns(start_ns)
        self._robot = _open_loop(robot)
        self.inputs = ReplayedInputs(self._robot, info.image_size, self._clock, info.views, settings.node.prompt)
        self._config = settings.node.runner_config(robot)
        latency = settings.latency
        self._executor = (
            MeasuredExecutor(self._clock) if latency.measured else SimulatedExecutor(latency.seconds(settings.seed), self._clock)
        )  # fmt: skip
        blend = settings.node.blend_ticks
        self._splices = {name: SpliceTrace(self._config, name, blend) for name in SPLICES}
        slow = latency.bounds_ms != (0.0, 0.0)
        self._synchronous = {n: SpliceTrace(self._config, n, blend, synchronous=True) for n in SPLICES} if slow else {}
        self.outcome = BagOutcome(
            bag, ActionErrors(scale, info.horizon), {n: s.trace for n, s in self._splices.items()},
            {n: s.trace for n, s in self._synchronous.items()}, np.zeros(len(robot.actions), np.int64),
        )  # fmt: skip
        self._asker = Asker(worker, settings, self.outcome)
        self._matcher = Matcher(settings, self.outcome, info.horizon, info.views, start_ns)
        self._dims = len(robot.actions)
        self._chunks: deque[tuple[int, np.ndarray]] = deque(maxlen=8)  # (observation, rows as the policy gave them)
        self._loop: ControlLoop | None = None
        self._episode = -1
        self._active = False
        self._plan: PlannedChunk | None = None

    # ---- events of the feed

    def put(self, seen: Seen) -> None:
        """An input, at its log time."""
        self._clock.advance_to_ns(seen.at_ns)
        self.inputs.put(seen)

    def tick(self, tick: Tick) -> None:
        """One control period of the node, compared with the command recorded for it."""
        self._clock.advance_to_ns(tick.at_ns)
        if tick.episode != self._episode:
            self._begin(tick.episode)
        out = self.outcome
        out.ticks += 1
        self._plan = self._asker.asked = None
        record = self._loop.tick() if self._active or self._activate() else None
        if self._plan is not None:
            self._on_chunk(tick.at_ns, self._plan)  # not in the loop, which goes on when a sink raises
        self._asker.global_tick += 1
        asked = self._asker.asked
        if asked is not None and self._usable(asked[1]):
            self._asked(tick, *asked)
        self._matcher.tick(tick, record)
        self._count(record, tick.command)
        self._play()
        if tick.episode == 0 and tick.tick < EXCERPT_TICKS:
            self._excerpt(tick, record)

    def end(self, end: BagEnd) -> BagOutcome:
        """Nothing more comes."""
        self._finish_episode()
        out = self.outcome
        out.findings, out.messages = end.findings, end.messages
        out.duration_s = (end.end_ns - self._start_ns) / NS
        out.skipped, out.unreadable = self.inputs.skipped, self.inputs.unreadable
        if end.unreadable_commands:
            out.unreadable["commands"] += end.unreadable_commands
            out.reasons["commands"] = end.command_problem
        out.refused = self.inputs.counters
        out.reasons = {**self.inputs.reasons, **out.reasons}
        return out

    # ---- sink of the control loop

    def command(self, record: TickRecord) -> None:
        """`tick` gets it from the loop."""

    def chunk(self, plan: PlannedChunk) -> None:
        """A chunk has taken over in this tick."""
        self._plan = plan
        now = self._clock.now_ns()
        self.outcome.chunks += 1
        self.outcome.action_delay_ms.append((now - plan.observation.received_ns) / 1e6)

    # ---- inside

    def _begin(self, episode: int) -> None:
        """Another episode: as after an activation of the node, whose inputs go on."""
        self._finish_episode()
        self._episode, self._active = episode, False
        self.outcome.episodes += 1
        self._health = Health(auto_resume=self._robot.safety.auto_resume, logger=QUIET)
        self._runner = AsyncChunkRunner(self._asker, self._config, executor=self._executor, clock=self._clock)
        guard = Guard(self._robot, self._config.period_s)
        self._loop = ControlLoop(
            self._robot, self.inputs, self._runner, guard, self._health, [self], self._clock
        )
        self._guard = guard
        for splice in (*self._splices.values(), *self._synchronous.values()):
            splice.begin()

    def _finish_episode(self) -> None:
        if self._loop is None:
            return
        self._matcher.end_episode()
        out, stats = self.outcome, self._loop.stats()
        names = ("rejected_chunks", "expired_chunks", "policy_errors", "index_mismatches", "discarded_chunks", "deadline_misses")
        out.stats.update({name: int(stats[name]) for name in names})
        out.stats["index_errors"] += self._loop.counters.index_errors
        out.stats["internal_errors"] += self._loop.counters.internal_errors
        out.faults.update({FAULT_NAMES.get(name, name): n for name, n in self._health.counters.items()})
        out.clamped.update(self._guard.clamp_counts)
        self._runner.close()
        self._loop = None

    def _activate(self) -> bool:
        """Try to, as an operator would in every tick until the inputs are there."""
        try:
            self._loop.activate()
            self._active = True
        except ObservationError as error:
            word, _, reason = str(error.found).partition(" ")
            fault = word if word.startswith("F") else error.thing
            self.outcome.not_ready[fault] += 1
            self.outcome.reasons.setdefault(fault, reason.partition(": ")[2] or str(error))
        return self._active

    def _usable(self, chunk: np.ndarray) -> bool:
        """Whether the runner will take it; what it refuses is counted there."""
        good = chunk.ndim == 2 and chunk.shape[1] == self._dims and len(chunk) and np.isfinite(chunk).all()
        return bool(good)

    def _asked(self, tick: Tick, obs: Observation, chunk: np.ndarray) -> None:
        """A request was made in this tick."""
        self._chunks.append((obs.seq, chunk))
        self._matcher.request(tick, obs, chunk, self._clock.now_ns())
        for splice in self._synchronous.values():
            splice.take(chunk, 0, 0)

    def _count(self, record: TickRecord | None, recorded: np.ndarray | None) -> None:
        out = self.outcome
        out.compared_ticks += recorded is not None
        out.silent_ticks += record is None
        out.held_ticks += record is not None and record.source == "hold"

    def _play(self) -> None:
        """Let every splice strategy have what the runner had in this tick."""
        plan = self._plan
        if plan is not None:
            event = next(e for e in reversed(self._runner.events) if e.kind in ("start", "switch"))
            chunk = next(c for seq, c in reversed(self._chunks) if seq == plan.observation.seq)
            for splice in self._splices.values():
                if event.kind == "start":
                    splice.begin()  # the loop itself held in between
                splice.take(chunk, int(event.executed), int(event.elapsed_ticks))
        for splice in (*self._splices.values(), *self._synchronous.values()):
            splice.step()

    def _excerpt(self, tick: Tick, record: TickRecord | None) -> None:
        nothing = np.full(self._dims, np.nan)
        excerpt = self.outcome.excerpt
        excerpt.recorded.append(nothing if tick.command is None else tick.command)
        excerpt.served.append(nothing if record is None else record.command)
        if self._plan is not None:
            excerpt.switches.append(tick.tick)


def _open_loop(robot: RobotConfig) -> RobotConfig:
    """The robot with the rules off that watch whether it follows its commands: in a replay it follows the recorded ones."""
    return replace(robot, safety=replace(robot.safety, **OPEN_LOOP))
