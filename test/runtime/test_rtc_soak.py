"""Hours of control in seconds: random latencies and faults must leave no trace in memory, threads or the index."""

import gc
import sys
import threading

import numpy as np
import pytest
from support.rig import Rig

HZ = 50
# Blocks that may come and go with the state at the end (events in the log, a request under way). A leak of one block per
# chunk is 900 in 10 minutes and 130,000 in 24 hours.
LIMIT = 500


def soak(minutes: int, leak: list | None = None) -> tuple[int, Rig]:
    """Run `minutes` of control after 2 minutes of warm-up. Returns the blocks of memory gained and the rig."""
    r = np.random.default_rng(1)
    rows = np.arange(50.0)[:, None] * np.ones(7)

    class Policy:
        def infer_actions(self, obs):
            if leak is not None:
                leak.append(np.array(obs["tick"]))
            luck = r.integers(0, 40)
            if luck == 0:
                raise RuntimeError("scripted")
            return np.full((50, 7), np.nan) if luck == 1 else obs["tick"] + rows

    rig = Rig(Policy(), latency_s=lambda n: float(r.choice([0.02, 0.1, 0.3, 1.2])), target_hz=HZ, event_log=64, splice="quintic")

    def run(ticks):
        for _ in range(ticks):
            want = rig.runner.wants_observation
            action = rig.runner.next_action({"tick": float(rig.now)} if want else None)
            assert action is None or action.shape == (7,)
            rig.clock.advance(1 / HZ)
            rig.now += 1

    def blocks():
        gc.collect()
        return sys.getallocatedblocks()

    run(2 * 60 * HZ)
    before = blocks()
    run(minutes * 60 * HZ)
    return blocks() - before, rig


def check(minutes: int) -> None:
    threads = threading.active_count()
    growth, rig = soak(minutes)
    stats = rig.runner.stats
    assert growth < LIMIT, f"{growth} blocks in {minutes} min and {stats.chunks_started} chunks"
    assert threading.active_count() == threads
    assert stats.index_mismatches == 0 and stats.actions_served + stats.empty_ticks == (minutes + 2) * 60 * HZ
    assert stats.policy_errors > minutes / 2 and stats.rejected_chunks > minutes / 2


def test_soak_10_minutes():
    check(10)


def test_soak_finds_a_leaking_policy():
    growth, rig = soak(10, leak=[])
    assert growth > LIMIT and growth > 0.5 * rig.runner.stats.chunks_started


@pytest.mark.long
def test_soak_24_hours():
    check(24 * 60)
