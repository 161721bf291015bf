"""Regression tests for the seven defects of the existing runner (reference: public API notes, 2.9), each named after its number."""

import threading
import time

import numpy as np
import pytest
from support.rig import GatedPolicy, PlanTimePolicy, Rig, until

from flashrt_core.runtime.adapter import CallablePolicyAdapter, copy_observation
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig


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


