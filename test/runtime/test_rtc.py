"""The chunk runner: documented contract, the defects it must not have, timing, adapters."""

import threading
import time

import numpy as np
import pytest
from support.rig import GatedPolicy, PlanTimePolicy, Rig

from flashrt_core.errors import FlashRTError
from flashrt_core.runtime.chunk import SPLICES, ChunkError
from flashrt_core.runtime.clock import FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor, ThreadExecutor
from flashrt_core.runtime.rtc import AsyncChunkRunner, CallablePolicyAdapter, RTCConfig, RTCStats

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


def test_ticks_before_the_first_chunk_leave_the_plan_where_it_is_too():
    rig = Rig(latency_s=0.15, held_ticks_advance=False)
    assert rig.run(5, block_if_empty=False) == [None, None, None, 0.0, 1.0]


def test_settle_waits_for_the_request_under_way():
    go = threading.Event()

    def policy(obs):
        go.wait(5)
        return np.zeros((4, 1))

    with AsyncChunkRunner(CallablePolicyAdapter(policy), RTCConfig(target_hz=50)) as runner:
        runner.reset(anchor=np.zeros(1))
        assert runner.settle(0.0)  # nothing is under way
        runner.next_action({}, block_if_empty=False)
        assert not runner.settle(0.01)
        go.set()
        assert runner.settle(5.0)
