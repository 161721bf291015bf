"""Random schedules of ticks, faults, clock jumps and resets: the runner never raises, never waits, never loses its place."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flashrt_core.runtime.chunk import SPLICES
from flashrt_core.runtime.clock import FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig

T = 0.02
NAN = np.full((8, 3), np.nan)
# What the policy may do instead of a good answer.
FAULTS = [None, ValueError("x"), MemoryError(), NAN, np.zeros((0, 3)), np.zeros((8, 2)), np.zeros(3), "text", [[1], [2, 3]]]


class Schedule(RuleBasedStateMachine):
    """Dimension 0 is a position (plan time), 1 a delta, 2 a choice of -1 or 1."""

    @initialize(
        splice=st.sampled_from(sorted(SPLICES)), blend=st.integers(0, 6), start=st.sampled_from([None, 0, 1, 6, 99]),
        gap=st.sampled_from([None, 0.1]), age=st.sampled_from([None, 0.1]), d_max=st.sampled_from([None, 5.0]),
        held=st.sampled_from([None, 12]), early=st.booleans(), advance=st.booleans(), anchored=st.booleans(),
    )  # fmt: skip
    def begin(self, splice, blend, start, gap, age, d_max, held, early, advance, anchored):
        self.clock, self.latency, self.fault, self.horizon = FakeClock(100.0), 0.0, None, 8
        self.config = RTCConfig(
            target_hz=1 / T, splice=splice, blend_steps=blend, start_next_at=start, max_tick_gap_s=gap, max_obs_age_s=age,
            max_disagreement=d_max, max_held=held, request_early=early, held_ticks_advance=advance, delta_dims=(1,),
            discrete_dims=(2,), a_max=40.0, error_backoff_s=0.04, error_backoff_max_s=0.2,
        )  # fmt: skip
        executor = SimulatedExecutor(lambda n: self.latency, self.clock)
        self.runner = AsyncChunkRunner(self, self.config, executor=executor, clock=self.clock)
        self.plan, self.last, self.hold_rows, self.ticks = 0, None, [], 0
        if anchored:
            self.runner.reset(anchor=np.array([0.0, 0.3, 1.0]))

    def infer_actions(self, obs):
        """The policy under test's control."""
        if isinstance(self.fault, BaseException):
            raise self.fault
        if self.fault is not None:
            return self.fault
        rows = np.zeros((self.horizon, 3))
        rows[:, 0] = obs["plan"] + np.arange(self.horizon)
        rows[:, 1], rows[:, 2] = 0.5, 1.0 if obs["plan"] % 2 else -1.0
        return rows

    @rule(count=st.integers(1, 6), obs=st.booleans(), ask=st.booleans(), block=st.booleans())
    def tick(self, count, obs, ask, block):
        for _ in range(count):
            before, started, epoch = self.clock.now_ns(), self.runner.stats.actions_served > 0, self.runner.stats
            if ask:
                want = self.runner.wants_observation
            action = self.runner.next_action({"plan": float(self.plan)} if obs else None, block_if_empty=block)
            if started or not block:
                assert self.clock.now_ns() == before, "a tick waited"
            stats = self.runner.stats
            if ask:
                assert (stats.chunks_started - epoch.chunks_started) <= (want and obs)
            self.check(action, stats)
            self.clock.advance(T)
            self.plan += 1

    def check(self, action, stats):
        self.ticks += 1
        assert stats.actions_served + stats.empty_ticks == self.ticks
        if action is None:
            assert self.last is None, "a command was known and none was given"
            return
        assert action.shape == (3,) and np.isfinite(action).all() and action[2] in (-1.0, 1.0)
        if self.runner.holding:
            self.hold_rows.append(action)
            self.ends_at_rest()
        else:
            self.hold_rows = []
        self.last = action

    def ends_at_rest(self):
        """A hold slows down tick by tick on every dimension and is at rest at the latest after its ramp."""
        rows = np.array(self.hold_rows)
        speed = np.abs(np.diff(rows[:, 0]))
        assert (np.diff(speed) <= 1e-9).all() and (np.diff(np.abs(rows[:, 1])) <= 1e-9).all()
        assert (rows[:, 2] == rows[0, 2]).all()
        ramp = 10.0 / T  # no ramp is longer
        moved = speed[-1] if len(speed) else 0.0
        assert moved == 0 or len(rows) <= ramp

    @rule(latency=st.sampled_from([0.0, 0.01, 0.02, 0.05, 0.16, 0.5]))
    def set_latency(self, latency):
        self.latency = latency

    @rule(fault=st.sampled_from(range(len(FAULTS))))
    def set_fault(self, fault):
        self.fault = FAULTS[fault]

    @rule()
    def heal(self):
        self.fault = None

    @rule(rows=st.integers(1, 12))
    def set_horizon(self, rows):
        self.horizon = rows

    @rule(seconds=st.sampled_from([-3600.0, -0.05, 0.01, 0.3, 3600.0]))
    def jump(self, seconds):
        self.clock.jump(seconds)

    @rule(anchored=st.booleans(), now=st.booleans())
    def reset(self, anchored, now):
        got = self.runner.reset(
            {"plan": float(self.plan)} if now else None, anchor=np.array([0.0, 0.3, 1.0]) if anchored else None
        )
        assert not (got and not now)
        self.last, self.hold_rows, self.ticks = None, [], 0
        assert self.runner.stats.actions_served == 0 and not self.runner.stopped

    @precondition(lambda self: hasattr(self, "runner"))
    @invariant()
    def index_law(self):
        """A chunk starts at the row of the ticks executed since its observation; switches are never lost from the count."""
        stats = self.runner.stats
        for event in self.runner.events:
            if event.kind in ("start", "switch"):
                behind = event.tick - event.request_tick - event.executed
                assert behind == 0 or (behind > 0 and not self.config.held_ticks_advance)
        assert stats.held_actions <= stats.actions_served
        assert stats.deadline_misses <= stats.held_actions
        assert stats.chunks_completed + stats.policy_errors + stats.discarded_chunks <= stats.chunks_started + 1


TestSchedules = Schedule.TestCase
TestSchedules.settings = settings(
    max_examples=900, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
