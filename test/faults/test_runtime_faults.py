"""Fault rows that show at the level of the chunk runner; each injects the cause and checks reaction, bound and recovery."""

import threading
import time

import numpy as np
import pytest
from support.rig import PlanTimePolicy, Rig

from flashrt_core.runtime.adapter import CallablePolicyAdapter
from flashrt_core.runtime.boundary import boundary_metrics
from flashrt_core.runtime.clock import SteadyClock
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig

COUNT = [float(k) for k in range(1000)]


def test_F22_inference_slower_than_the_rest_of_the_chunk():
    """Coast on the valid rows, decelerate within a_max at the end, resume at the row of the elapsed ticks."""
    rig = Rig(latency_s=lambda n: 0.4 if n == 1 else 0.0, a_max=400.0 * 0.25)
    out = np.array(rig.run(40))
    assert out[:10].tolist() == COUNT[:10]  # coast
    (hold,), switch = rig.of("hold"), rig.of("switch")[0]
    assert (hold.tick, switch.tick, switch.executed, switch.elapsed_ticks) == (10, 13, 8, 8)
    assert out[13:].tolist() == COUNT[13:40]  # resume, aligned
    held = boundary_metrics(out[:13, None], [], 0.05, hold_ticks=[10])
    assert held.cb7_hold_a <= 100.0 + 1e-6 and rig.runner.stats.deadline_misses == 1


def test_F22_a_hold_ends_at_rest_within_v_over_a_plus_2T():
    rig = Rig(latency_s=lambda n: 1e6 if n else 0.0, a_max=50.0)  # v = 20 units/s
    out = np.array(rig.run(60))
    m = boundary_metrics(out[:, None], [], 0.05, hold_ticks=[10], a_max=50.0)
    assert m.cb7_hold_a <= 50.0 * (1 + 1e-6) and m.cb7_rest_s <= 20 / 50.0 + 2 * 0.05 and m.cb2_violations == 0


def test_F23_one_latency_spike_of_ten_times():
    """No index is skipped or repeated, before, during or after the spike."""
    rig = Rig(latency_s=lambda n: 0.4 if n == 5 else 0.04, horizon=50, target_hz=50)
    assert rig.run(400) == COUNT[:400]
    assert rig.runner.stats.held_actions == 0 and rig.runner.stats.index_mismatches == 0
    assert sorted({e.executed for e in rig.of("switch")}) == [2, 20]


def test_F24_slow_first_inference_starts_at_index_0():
    rig = Rig(latency_s=lambda n: 30.0 if n == 0 else 0.05)
    assert rig.run(50) == COUNT[:50]
    assert rig.of("start")[0].executed == 0 and rig.of("start")[0].latency_s == 30.0


def test_F24_warm_up_before_the_loop():
    rig = Rig(latency_s=lambda n: 30.0 if n == 0 else 0.05)
    assert rig.runner.reset({"tick": 0.0})
    before = rig.clock.now_ns()
    assert rig.tick() == 0.0 and rig.clock.now_ns() - before == int(0.05e9)


def test_F25_a_tick_that_overruns_serves_one_action_and_no_burst():
    rig = Rig(latency_s=0.05)
    rig.run(7)
    rig.clock.advance(0.5)  # ten periods
    assert rig.run(20) == COUNT[7:27]
    assert rig.runner.stats.late_ticks == 1 and rig.runner.stats.actions_served == 27


def test_F26_wall_clock_steps_have_no_effect(monkeypatch):
    """The steady clock does not read the wall clock: an hour's step either way changes no age and no deadline."""
    clock, steps = SteadyClock(), iter([3600.0, -3600.0] * 1000)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(steps))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    config = RTCConfig(target_hz=1000, max_obs_age_s=5.0, max_tick_gap_s=5.0)
    with AsyncChunkRunner(PlanTimePolicy(), config, clock=clock) as runner:
        for k in range(50):
            assert runner.next_action({"tick": float(k)}) is not None
        assert not [e for e in runner.events if e.kind in ("gap", "clock_back")]
        assert runner.stats.stale_observations == 0 and 0 <= runner.stats.max_latency_s < 5


def test_F27_time_jumping_back_resets_the_chunk():
    rig = Rig(latency_s=lambda n: 0.2 if n else 0.0)
    rig.run(7)  # a request is under way
    rig.clock.jump(-100.0)
    assert rig.tick() == 6.0 and rig.runner.holding  # stand still at the last command
    assert rig.kinds()[-3:] == ["clock_back", "discard", "hold"]
    out = rig.run(10)
    assert out[3] == 11.0 and rig.runner.stats.discarded_chunks == 1  # asked anew at tick 7, there four ticks later


def test_F27_a_backoff_does_not_outlast_a_jump_back():
    rig = Rig(PlanTimePolicy(faults={1: ValueError("x")}), error_backoff_s=2.0)
    rig.run(6)
    assert not rig.runner.wants_observation
    rig.tick()
    rig.clock.jump(-100.0)
    assert rig.runner.wants_observation


def test_F30_a_process_stopped_for_500_ms_replays_nothing():
    """The chunk and the request under way are judged stale; hold at once, nothing of them is sent."""
    rig = Rig(latency_s=lambda n: 0.1 if n else 0.0, max_tick_gap_s=0.2)
    rig.run(6)
    rig.clock.advance(0.5)
    assert rig.tick() == 5.0 and rig.runner.holding
    assert rig.kinds()[-3:] == ["gap", "discard", "hold"] and "0.550 s" in rig.of("gap")[0].reason
    assert rig.run(5)[1:] == COUNT[8:12]


def test_F31_interpreter_held_for_100_ms():
    """Counted as late; the command goes on where it was."""
    config = RTCConfig(target_hz=50)
    with AsyncChunkRunner(PlanTimePolicy(), config) as runner:
        served = []
        for k in range(8):
            served.append(float(runner.next_action({"tick": float(k)})[0]))
            time.sleep(0.1 if k == 3 else 0.002)
        assert runner.stats.late_ticks == 1 and served == COUNT[:8]


def test_F33_a_hung_worker_ends_in_a_hold_and_a_stop():
    """Seen from the runner: the chunk is used up, then rest, then stop after max_held. Killing it is the worker's watchdog."""
    gate = threading.Event()
    policy = CallablePolicyAdapter(lambda o: np.zeros((4, 1)) if o == 0 else gate.wait(10) or np.zeros((4, 1)))
    with AsyncChunkRunner(policy, RTCConfig(max_held=5)) as runner:
        runner.next_action(0)
        start = time.perf_counter()
        for _ in range(20):
            runner.next_action(1)
        assert runner.stopped and time.perf_counter() - start < 1.0
        gate.set()


def test_F39_throttled_worker():
    """60 % more latency: the estimate follows within 3 chunks; nothing is held while the chunk suffices."""
    rig = Rig(latency_s=lambda n: 0.10 if n < 5 else 0.16, horizon=20)
    rig.run(40)
    assert rig.runner.stats.latency_estimate_s == pytest.approx(0.10)
    rig.run(31)
    assert rig.runner.stats.chunks_completed <= 5 + 3 and rig.runner.stats.latency_estimate_s == pytest.approx(0.16)
    rig.run(300)
    stats = rig.runner.stats
    assert stats.held_actions == stats.deadline_misses == stats.policy_errors == 0
    assert {e.executed for e in rig.of("switch")} == {2, 4}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_F40_nan_chunk_is_rejected(value):
    bad = np.zeros((10, 1))
    bad[4] = value
    rig = Rig(PlanTimePolicy(faults={1: bad}))
    assert rig.run(30) == COUNT[:30]
    assert rig.runner.stats.rejected_chunks == 1 and "row 4, dim 0" in rig.of("reject")[0].reason


def test_F40_three_in_a_row_hold_ten_stop():
    rig = Rig(PlanTimePolicy(faults={n: np.full((10, 1), np.nan) for n in range(1, 99)}))
    out = rig.run(30)
    rejects = [e.tick for e in rig.of("reject")]
    assert rejects == list(range(5, 15)) and rig.of("hold")[0].tick == 7 and rig.of("stop")[0].tick == 14
    assert out[:7] == COUNT[:7] and rig.runner.stopped and np.all(np.isfinite(out))
    assert len(set(out[11:])) == 1, "at rest"


def test_F40_a_good_chunk_clears_the_count():
    rig = Rig(PlanTimePolicy(faults={n: np.full((10, 1), np.nan) for n in (1, 2, 4, 5, 7, 8)}))
    assert rig.run(60) == COUNT[:60] and rig.runner.stats.rejected_chunks == 6


def test_F41_wild_chunk_is_rejected_by_disagreement():
    rig = Rig(PlanTimePolicy(faults={1: np.full((10, 1), 500.0)}), max_disagreement=0.15)
    assert rig.run(30) == COUNT[:30]
    assert "expected <= 0.15, found 495.0" in rig.of("reject")[0].reason


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (np.zeros((0, 1)), r"(0, 1)"), (np.zeros((10, 2)), r"(10, 2)"), (np.zeros(10), r"(10,)"),
        (np.zeros((1, 2, 3)), "(1, 2, 3)"),
        ([[1.0], [2.0, 3.0]], "inhomogeneous"), ("rows", "()"), (np.zeros((3, 1), complex), "complex128"),
    ],
    ids=lambda x: str(np.shape(x)) if not isinstance(x, (str, list)) else None,
)  # fmt: skip
def test_F42_wrong_shape_is_rejected_with_the_shape(chunk, words):
    rig = Rig(PlanTimePolicy(faults={1: chunk}))
    assert rig.run(30) == COUNT[:30]
    assert rig.runner.stats.rejected_chunks == 1 and words in rig.of("reject")[0].reason


def test_F42_too_few_dims_for_the_configured_roles():
    rig = Rig(discrete_dims=(6,))
    assert rig.tick() is None and "indices below 1, found 6" in rig.of("reject")[0].reason


def test_F68_reset_during_inference_discards_the_result():
    """Deactivation is a reset: what was under way never reaches the command, also not after a new start."""
    rig = Rig(latency_s=lambda n: 0.2 if n else 0.0)
    rig.run(7)
    rig.runner.reset(anchor=np.array([6.0]))
    assert rig.kinds() == ["discard"]
    assert [rig.tick(obs=False) for _ in range(10)] == [6.0] * 10
    assert rig.runner.stats.chunks_completed == 0
