"""The chunk runner: documented contract, the defects it must not have, timing, adapters."""

import threading
import time

import numpy as np
import pytest
from support.rig import PlanTimePolicy, Rig

from flashrt_core.errors import FlashRTError
from flashrt_core.runtime.adapter import copy_observation
from flashrt_core.runtime.chunk import SPLICES, ChunkError
from flashrt_core.runtime.clock import FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor, ThreadExecutor
from flashrt_core.runtime.rtc import AsyncChunkRunner, CallablePolicyAdapter, RTCConfig, RTCStats


def until(condition, timeout_s=5.0):
    """Wait for a condition of another thread."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.001)


class GatedPolicy:
    """Blocks in each call until `gate` is set; knows how many threads are inside at once."""

    def __init__(self, rows=10):
        self.gate, self.rows = threading.Event(), rows
        self.inside = self.most_inside = self.calls = 0
        self.values = iter(range(0, 10**6, 100))

    def infer_actions(self, obs):
        self.inside += 1
        self.calls += 1
        self.most_inside = max(self.most_inside, self.inside)
        value = next(self.values)
        self.gate.wait(10)
        self.inside -= 1
        return np.full((self.rows, 1), float(value))


# ---- documented contract ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        {"target_hz": 0}, {"target_hz": -1}, {"target_hz": float("nan")}, {"action_horizon": 0}, {"start_next_at": -1},
        {"miss_policy": "wait"}, {"blend_steps": -1}, {"max_workers": 2}, {"max_workers": 0}, {"splice": "cubic"},
        {"max_obs_age_s": 0}, {"max_held": 0}, {"error_backoff_s": -1}, {"delta_dims": (0,), "discrete_dims": (0,)},
        {"a_max": -1.0}, {"action_horizon": "ten"}, {"blend_steps": 1.5}, {"max_chunks": 0},
    ],
    ids=str,
)  # fmt: skip
def test_config_validation_is_a_value_error(bad):
    with pytest.raises(ValueError):
        RTCConfig(**bad)


def test_config_defaults_and_positions():
    c = RTCConfig(50.0, 10, 4, "block", 2, 1)
    assert (c.target_hz, c.action_horizon, c.start_next_at, c.miss_policy, c.blend_steps) == (50, 10, 4, "block", 2)
    assert c.period_s == 0.02 and RTCConfig().target_hz == 20 and RTCConfig().miss_policy == "hold_last"
    assert [RTCConfig().start_row(h) for h in (1, 2, 9, 10)] == [1, 1, 4, 5] and c.start_row(2) == 2
    assert RTCConfig().splice_name == "none" and RTCConfig(blend_steps=3).splice_name == "linear"


def test_stats_have_the_documented_fields():
    documented = [
        "chunks_started", "chunks_completed", "actions_served", "deadline_misses", "held_actions", "swaps", "last_latency_s",
        "max_latency_s",
    ]  # fmt: skip
    assert list(RTCStats().to_json())[:8] == documented


def test_callable_adapter():
    chunk = np.ones((4, 2))
    assert CallablePolicyAdapter(lambda o: chunk).infer_actions(None) is chunk
    assert CallablePolicyAdapter(lambda o: {"actions": chunk[None]}).infer_actions(None).shape == (4, 2)
    assert CallablePolicyAdapter(lambda o: {"a": chunk}, output_key="a").infer_actions(None).shape == (4, 2)
    assert CallablePolicyAdapter(lambda o: (0, chunk), tuple_index=1).infer_actions(None).shape == (4, 2)
    for out in (np.ones(3), np.ones((2, 3, 4)), 1.0):
        with pytest.raises(ValueError, match="expected action chunk"):
            CallablePolicyAdapter(lambda o, out=out: out).infer_actions(None)
    with pytest.raises(ValueError, match="'actions'"):
        CallablePolicyAdapter(lambda o: {"action": chunk}).infer_actions(None)


def test_one_held_tick_is_one_miss_and_one_hold():
    """Contract pitfall 8. Latency 3 ticks, asked for at row 1 of 3: rows 0 1 2, then one tick late."""
    rig = Rig(latency_s=lambda n: 0.15 if n else 0, horizon=3)
    rig.run(4)
    assert (rig.runner.stats.deadline_misses, rig.runner.stats.held_actions, rig.runner.stats.actions_served) == (1, 1, 4)


def test_closed_runner_is_a_runtime_error():
    with AsyncChunkRunner(PlanTimePolicy()) as runner:
        runner.next_action({"tick": 0})
    for call in (lambda: runner.next_action({"tick": 1}), runner.reset, lambda: runner.wants_observation):
        with pytest.raises(RuntimeError, match="closed") as caught:
            call()
        assert isinstance(caught.value, FlashRTError)
    runner.close()


def test_action_horizon_cuts_the_chunk():
    rig = Rig(action_horizon=4, latency_s=lambda n: 10.0 if n else 0.0)
    rig.run(6)
    assert rig.of("hold")[0].tick == 4


def test_the_caller_gets_its_own_array():
    rig = Rig()
    for k in range(12):
        action = rig.runner.next_action({"tick": k})
        assert action[0] == k
        action[:] = -999


def test_block_if_empty_false_gives_none_or_the_anchor():
    rig = Rig(latency_s=0.1)
    assert rig.run(2, block_if_empty=False) == [None, None]
    assert rig.tick() == 2 and rig.runner.stats.empty_ticks == 2
    rig.runner.reset(anchor=np.array([7.5]))
    assert rig.runner.next_action({"tick": 0.0}, block_if_empty=False)[0] == 7.5
    assert rig.runner.stats.deadline_misses == 0


def test_first_chunk_waits_when_asked_to_and_starts_at_row_0():
    rig = Rig(latency_s=0.25)
    assert rig.run(12) == [float(k) for k in range(12)]
    assert rig.of("start")[0].executed == 0 and rig.runner.stats.index_mismatches == 0


# ---- the seven defects of the existing runner (reference/public_api.md, 2.9) ---------------------------------------------


def test_defect_1_worker_exception_is_not_permanent():
    """Call 1 raises: the rest of the chunk is served, the request is repeated, nothing reaches the caller."""
    policy = PlanTimePolicy(faults={1: ValueError("boom")})
    rig = Rig(policy, error_backoff_s=0.1)
    assert rig.run(30) == [float(k) for k in range(30)]
    stats = rig.runner.stats
    assert stats.policy_errors == 1 and stats.held_actions == 0
    assert str(rig.runner.last_error) == "boom"
    retry = rig.of("error")[0].tick + 2  # 0.1 s at 20 Hz
    assert rig.of("switch")[0].tick == retry == 7


def test_defect_1_backoff_doubles_up_to_its_bound():
    policy = PlanTimePolicy(faults={n: RuntimeError("down") for n in range(1, 9)})
    rig = Rig(policy, error_backoff_s=0.1, error_backoff_max_s=0.4)
    rig.run(60)
    ticks = [e.tick for e in rig.of("error")]
    assert np.diff(ticks).tolist() == [2, 4, 8, 8, 8, 8, 8]
    assert rig.of("switch")[0].tick == ticks[-1] + 8 and rig.tick() == 60


def test_defect_1_a_failing_first_chunk_does_not_raise():
    rig = Rig(PlanTimePolicy(faults={0: SystemError("cold")}))
    assert rig.tick() is None and rig.tick() is None
    assert rig.tick() == 2.0


@pytest.mark.parametrize("latency_ticks", range(5))
def test_defect_2_chunks_are_aligned_in_time(latency_ticks):
    """The served plan time never repeats or skips, whatever the latency; a chunk is first used after ceil(L / T) ticks."""
    rig = Rig(latency_s=latency_ticks * 0.05)
    assert rig.run(100) == [float(k) for k in range(100)]
    for event in rig.of("switch"):
        assert event.executed == event.elapsed_ticks == event.tick - event.request_tick == latency_ticks
    assert rig.runner.stats.index_mismatches == 0 and rig.runner.stats.swaps == len(rig.of("switch")) >= 10


@pytest.mark.parametrize(("latency_s", "hz", "ticks"), [(0.1, 30, 3), (0.101, 30, 4), (0.001, 50, 1), (0.06, 20, 2)])
def test_defect_2_injected_latency_rounds_up_to_whole_ticks(latency_s, hz, ticks):
    rig = Rig(latency_s=latency_s, horizon=20, target_hz=hz)
    rig.run(60)
    assert {e.executed for e in rig.of("switch")} == {ticks}


def test_defect_3_a_late_chunk_is_one_miss():
    """Latency 8 ticks, horizon 10, asked for at row 5: each chunk comes at row 13, held for rows 10, 11, 12."""
    rig = Rig(latency_s=lambda n: 0.4 if n else 0.0)
    rig.run(13)
    assert (rig.runner.stats.deadline_misses, rig.runner.stats.held_actions) == (1, 3)
    rig.run(8)  # the next one is asked for at 13 (row 8) and comes at 21; rows end at 15
    assert (rig.runner.stats.deadline_misses, rig.runner.stats.held_actions) == (2, 3 + 6)
    assert rig.tick() == 21.0


def test_defect_4_reset_never_calls_the_policy_twice_at_once():
    policy = GatedPolicy()
    policy.gate.set()
    with AsyncChunkRunner(policy, RTCConfig(start_next_at=1)) as runner:
        runner.next_action(0)
        policy.gate.clear()
        runner.next_action(0)
        until(lambda: policy.inside == 1)  # chunk "100" is under way
        before = runner.stats
        for _ in range(3):
            assert runner.reset() is False
            assert runner.next_action(0, block_if_empty=False) is None
        assert before.actions_served == 2 and runner.stats.actions_served == 0 and runner.stats.discarded_chunks == 1
        assert policy.inside == policy.most_inside == 1
        policy.gate.set()
        served = runner.next_action(0)
        assert policy.most_inside == 1
        assert served[0] == 200, "the chunk computed before the reset must not be served"
        assert policy.calls == 3, "requests that had not started are not run"


def test_defect_4_reset_with_an_observation_waits_for_its_chunk_and_clears_the_record():
    rig = Rig(latency_s=0.1)
    rig.run(20)
    assert rig.runner.reset({"tick": 50.0}) is True
    assert rig.runner.stats.swaps == 0 and rig.runner.stats.chunks_started == 1 and rig.runner.last_error is None
    assert [e.tick for e in rig.of("start")] == [0] and rig.runner.events[-1].epoch == 1
    rig.clock.advance(3.0)
    assert rig.runner.next_action() == [50.0] and rig.runner.stats.late_ticks == 0


def test_defect_5_no_lock_is_held_while_waiting_and_the_latency_counts():
    """While one thread waits in miss_policy "block", stats and reset of another thread go through."""
    policy = GatedPolicy(rows=1)
    policy.gate.set()
    with AsyncChunkRunner(policy, RTCConfig(miss_policy="block")) as runner:
        assert runner.next_action(0)[0] == 0
        policy.gate.clear()
        served = []
        thread = threading.Thread(target=lambda: served.append(runner.next_action(0)))
        thread.start()
        until(lambda: policy.inside == 1)
        start = time.monotonic()
        assert runner.stats.actions_served == 1 and not runner.stopped
        assert time.monotonic() - start < 0.5
        time.sleep(0.05)
        policy.gate.set()
        thread.join(5)
        stats = runner.stats
        assert served[0][0] == 100 and stats.held_actions == 0
        assert stats.last_latency_s == stats.max_latency_s >= 0.05


def test_defect_5_reset_releases_a_waiting_tick():
    policy = GatedPolicy(rows=1)
    policy.gate.set()
    with AsyncChunkRunner(policy, RTCConfig(miss_policy="block")) as runner:
        runner.next_action(0)
        policy.gate.clear()
        thread = threading.Thread(target=lambda: runner.next_action(0))
        thread.start()
        until(lambda: policy.inside == 1)
        runner.reset()
        policy.gate.set()
        thread.join(5)
        assert not thread.is_alive() and runner.stats.discarded_chunks == 1


def test_defect_5_a_wait_that_a_reset_overtook_leaves_the_new_epoch_alone():
    class Job:
        value = error = None
        finished_ns = 0

        def done(self):
            return False

        def wait(self, timeout_s=None):
            runner.reset(anchor=np.array([3.0]))  # as from another thread, in the middle of the wait
            return False

        def cancel(self): ...

    class Executor:
        def submit(self, fn):
            return Job()

        def close(self, timeout_s=1.0): ...

    runner = AsyncChunkRunner(PlanTimePolicy(), executor=Executor())
    runner.next_action({"tick": 0})
    assert {e.kind for e in runner.events} <= {"discard", "hold"} and runner.stats.discarded_chunks <= 1


def test_defect_5_block_waits_in_simulated_time_without_losing_a_row():
    rig = Rig(latency_s=lambda n: 0.45 if n else 0.0, miss_policy="block")
    assert rig.run(40) == [float(k) for k in range(40)]
    assert rig.runner.stats.held_actions == 0 and rig.runner.stats.index_mismatches == 0


def test_defect_5_block_asks_again_when_the_chunk_is_past_its_end():
    rig = Rig(latency_s=lambda n: 0.7 if n else 0.0, miss_policy="block", start_next_at=0)
    values = [rig.tick() for _ in range(25)]
    assert None not in values and rig.runner.stats.held_actions == 0


def test_defect_5_block_timeout_holds_instead():
    rig = Rig(latency_s=lambda n: 9.0 if n else 0.0, miss_policy="block", block_timeout_s=0.2)
    rig.run(10)
    before = rig.clock.now_ns()
    rig.run(5)
    assert rig.clock.now_ns() - before == int((0.2 + 5 * 0.05) * 1e9), "it waits once, not at every tick"
    assert rig.runner.stats.held_actions == 5 and rig.of("timeout")


@pytest.mark.parametrize("splice", ["linear", "quintic"])
def test_defect_6_the_blend_is_across_the_boundary(splice):
    """Chunks alternate between 0 and 1: the first tick of a new chunk is near the old value, the last rows are untouched."""
    rows = [np.full((10, 1), float(n % 2)) for n in range(9)]
    policy = PlanTimePolicy(faults=dict(enumerate(rows)))
    rig = Rig(policy, splice=splice, blend_steps=4)
    out = rig.run(15)
    assert out[:5] == [0.0] * 5 and 0 < out[5] < out[6] < out[7] < out[8] < 1 and out[9] == 1
    assert out[5] == pytest.approx(0.2 if splice == "linear" else 0.05792)
    assert rig.of("switch")[0].blend == 4 and rig.of("switch")[0].disagreement == 1.0


def test_defect_7_old_observations_are_not_used():
    rig = Rig(max_obs_age_s=0.2)
    rig.run(5)
    assert rig.runner.wants_observation
    rig.runner.next_action({"tick": 5.0}, obs_age_s=0.25)
    assert rig.runner.stats.stale_observations == 1 and rig.runner.stats.chunks_started == 1
    for age in (float("nan"), -1.0, float("inf")):
        assert rig.runner.wants_observation
        rig.runner.next_action({"tick": 6.0}, obs_age_s=age)
    assert rig.runner.stats.stale_observations == 4
    rig.runner.next_action({"tick": 9.0}, obs_age_s=0.2)
    assert rig.runner.stats.chunks_started == 2


def test_defect_7_a_chunk_from_an_old_observation_does_not_take_over():
    rig = Rig(latency_s=lambda n: 0.2 if n else 0.0, max_obs_age_s=0.15)
    rig.run(30)
    assert rig.runner.stats.swaps == 0 and rig.runner.stats.expired_chunks >= 3 and rig.runner.holding


def test_defect_7_stop_after_k_held_ticks():
    rig = Rig(latency_s=lambda n: 100.0 if n else 0.0, max_held=6)
    rig.run(15)
    assert not rig.runner.stopped
    held = rig.run(20)
    assert rig.runner.stopped and len(set(held[1:])) == 1 and rig.of("stop")[0].reason == "6 ticks held"
    assert not rig.runner.wants_observation and len(rig.of("stop")) == 1
    rig.runner.reset()
    assert not rig.runner.stopped


def test_defect_7_the_observation_is_copied():
    seen = []

    def policy(obs):
        seen.append({k: np.array(v) for k, v in obs.items() if k != "name"})
        return np.zeros((4, 1))

    gate = threading.Event()
    with AsyncChunkRunner(CallablePolicyAdapter(lambda o: gate.wait(5) and policy(o))) as runner:
        image = np.zeros((2, 2), np.uint8)
        obs = {"image": image, "list": [image], "name": "x"}
        runner.next_action(obs, block_if_empty=False)
        image[:] = 255  # the camera driver reuses its buffer
        obs["list"].clear()
        gate.set()
        until(lambda: seen)
    assert not seen[0]["image"].any() and seen[0]["list"].shape == (1, 2, 2)


def test_copy_observation_copies_arrays_at_any_depth():
    a = np.arange(3)
    obs = {"a": a, "b": [a, (a, {"c": a})], "s": "text", "n": None, "o": np.array([a, None], dtype=object)}
    got = copy_observation(obs)
    a[:] = 9
    assert got["a"].tolist() == got["b"][0].tolist() == got["b"][1][1]["c"].tolist() == got["o"][0].tolist() == [0, 1, 2]
    assert type(got["b"][1]) is tuple


def test_an_observation_that_cannot_be_copied_is_counted():
    rig = Rig()
    rig.tick()
    rig.run(4)
    assert rig.runner.wants_observation and rig.runner.next_action({"lock": threading.Lock()}) == [5.0]
    assert rig.runner.stats.policy_errors == 1 and isinstance(rig.runner.last_error, TypeError)


# ---- requests --------------------------------------------------------------------------------------------------------


def test_wants_observation_says_exactly_when_a_request_is_sent():
    rig, wanted = Rig(latency_s=0.1), []
    for _ in range(30):
        started = rig.runner.stats.chunks_started
        want = rig.runner.wants_observation
        assert want == rig.runner.wants_observation
        rig.tick()
        assert rig.runner.stats.chunks_started - started == want
        wanted.append(want)
    assert [k for k, w in enumerate(wanted) if w] == [0, 5, 10, 15, 20, 25]


def test_missing_observation_is_counted_and_asked_for_again():
    rig = Rig()
    rig.run(5)
    rig.tick(obs=False)
    assert rig.runner.stats.missing_observations == 1 and rig.runner.wants_observation
    rig.run(3, obs=False)
    assert rig.tick() == 9.0 and rig.of("switch")[0].tick == 9


def test_start_next_at_zero_asks_at_every_tick():
    rig = Rig(start_next_at=0)
    assert rig.run(10) == [float(k) for k in range(10)] and rig.runner.stats.chunks_started == 10


def test_request_early_follows_the_latency():
    late = Rig(latency_s=0.2, start_next_at=9)
    early = Rig(latency_s=0.2, start_next_at=9, request_early=True)
    late.run(60), early.run(60)
    assert late.runner.stats.held_actions > 0 and early.runner.stats.held_actions == 0


def test_held_ticks_may_leave_the_plan_where_it_is():
    """A policy slower than its horizon: by default every chunk is past its end, without advance it is served from row 0."""
    slow = {"latency_s": lambda n: 0.7 if n else 0.0}
    assert Rig(**slow).run(60)[-1] == 10.5
    rig = Rig(**slow, held_ticks_advance=False)
    out = rig.run(60)
    assert out[19:24] == [10.0, 11.0, 12.0, 13.0, 14.0] and rig.runner.stats.index_mismatches == 0


def test_wild_chunk_is_rejected_by_disagreement():
    policy = PlanTimePolicy(faults={1: np.full((10, 1), 500.0)})
    rig = Rig(policy, max_disagreement=0.15)
    assert rig.run(20) == [float(k) for k in range(20)]
    assert rig.runner.stats.rejected_chunks == 1 and "495" in rig.of("reject")[0].reason


# ---- coming to rest --------------------------------------------------------------------------------------------------


def exhausted(chunk, ticks, **config):
    """Commands of one chunk followed by silence."""
    rig = Rig(CallablePolicyAdapter(lambda o: chunk), latency_s=lambda n: 1e6 if n else 0.0, **config)
    return np.stack([rig.runner.next_action(0) for _ in range(ticks)])


def test_an_exhausted_position_chunk_decelerates_then_stays():
    chunk = 0.1 * np.arange(5.0)[:, None]  # 2 units/s
    out = exhausted(chunk, 12, a_max=10.0)[:, 0]
    assert np.allclose(np.diff(out)[4:], [0.075, 0.05, 0.025, 0, 0, 0, 0])


def test_an_exhausted_delta_chunk_goes_to_zero_and_keeps_the_gripper():
    chunk = np.tile(np.array([0.8, -0.4, -1.0]), (4, 1))
    out = exhausted(chunk, 10, delta_dims=(0, 1), discrete_dims=(2,))
    assert np.allclose(out[4:8, 0], [0.6, 0.4, 0.2, 0]) and np.allclose(out[4:8, 1], [-0.3, -0.2, -0.1, 0])
    assert (out[:, 2] == -1).all() and not out[8:, :2].any()


@pytest.mark.parametrize("splice", ["linear", "quintic"])
def test_resuming_from_a_hold_is_blended(splice):
    """Asked for at 9, there at 14 (row 5 of a plan that has moved on by 3.5 units), after holding at 10.5 from tick 12 on."""
    rig = Rig(latency_s=lambda n: 0.25 if n == 1 else 0.0, splice=splice, blend_steps=4, start_next_at=9)
    out = rig.run(18)
    (switch,) = rig.of("switch")
    assert (switch.tick, switch.executed, switch.disagreement, switch.resumed) == (14, 5, None, True)
    assert out[12:14] == [10.5, 10.5] and out[14] - out[13] < 0.25 * 3.5 and np.all(np.diff(out[13:]) > 0)


# ---- worker threads --------------------------------------------------------------------------------------------------


def test_thread_executor_serves_in_real_time():
    def policy(obs):
        time.sleep(0.004)
        return obs["tick"] + np.arange(20.0)[:, None]

    config = RTCConfig(target_hz=200)
    with AsyncChunkRunner(CallablePolicyAdapter(policy), config) as runner:
        for k in range(60):
            assert runner.next_action({"tick": k})[0] == k
            time.sleep(0.005)
        assert runner.stats.swaps >= 3 and 0.004 <= runner.stats.max_latency_s < 1
    assert not [t for t in threading.enumerate() if t.name == "flashrt-policy"]


def test_a_tick_does_not_wait_for_a_slow_policy():
    policy = GatedPolicy()
    policy.gate.set()
    with AsyncChunkRunner(policy, RTCConfig(start_next_at=1)) as runner:
        runner.next_action(0)
        policy.gate.clear()
        start = time.perf_counter()
        for _ in range(100):
            runner.next_action(0)
        assert time.perf_counter() - start < 1.0 and runner.stats.held_actions == 91
        policy.gate.set()


def test_close_does_not_wait_for_a_hung_policy():
    policy = GatedPolicy()
    runner = AsyncChunkRunner(policy)
    runner.next_action(0, block_if_empty=False)
    start = time.monotonic()
    runner.close(timeout_s=0.05)
    assert time.monotonic() - start < 2
    policy.gate.set()


def test_a_given_executor_is_left_open():
    executor = ThreadExecutor()
    for _ in range(2):
        with AsyncChunkRunner(PlanTimePolicy(), executor=executor) as runner:
            assert runner.next_action({"tick": 0}) == [0.0]
    executor.close()


def test_simulated_worker_is_one_worker():
    """A job sent while another is under way starts when that one ends."""
    clock = FakeClock()
    executor = SimulatedExecutor(0.1, clock)
    first, second = executor.submit(lambda: 1), executor.submit(lambda: 2)
    clock.advance(0.1)
    assert first.done() and not second.done()
    clock.advance(0.1)
    assert second.done() and second.value == 2
    with pytest.raises(ValueError):
        SimulatedExecutor(-1.0, clock)


def test_a_keyboard_interrupt_is_not_swallowed_by_the_simulated_worker():
    with pytest.raises(KeyboardInterrupt):
        Rig(PlanTimePolicy(faults={0: KeyboardInterrupt()})).tick()


def test_a_dead_executor_is_an_error_event():
    class Dead:
        def submit(self, fn):
            raise OSError("worker gone")

        def close(self, timeout_s=1.0): ...

    runner = AsyncChunkRunner(PlanTimePolicy(), executor=Dead())
    assert runner.next_action({"tick": 0}) is None
    assert runner.stats.policy_errors == 1 and runner.events[0].reason == "OSError: worker gone"


def test_events_are_bounded_and_json():
    rig = Rig(start_next_at=1, event_log=8)
    rig.run(50)
    assert len(rig.runner.events) == 8 and rig.runner.events[-1].to_json()["kind"] == "switch"
    assert rig.runner.stats.to_json()["actions_served"] == 50


def test_a_bad_anchor_changes_nothing():
    rig = Rig()
    rig.run(3)
    with pytest.raises(ChunkError):
        rig.runner.reset(anchor=np.array([np.nan]))
    assert rig.tick() == 3.0


@pytest.mark.parametrize("splice", SPLICES)
def test_every_splice_serves_an_agreeing_plan_unchanged(splice):
    rig = Rig(latency_s=0.1, splice=splice)
    assert rig.run(50) == pytest.approx(list(range(50)))


def test_same_run_is_bitwise_equal():
    def run():
        r = np.random.default_rng(5)
        policy = CallablePolicyAdapter(lambda o: r.normal(size=(10, 7)).astype(np.float32))
        rig = Rig(policy, latency_s=lambda n: (n % 5) * 0.05, splice="quintic", delta_dims=range(6), discrete_dims=(6,))
        return np.stack([rig.runner.next_action(k) if not rig.clock.advance(0.05) else None for k in range(200)])

    assert np.array_equal(run(), run())
