"""A trace serves what a real runner with that strategy serves, and is measured by the same metrics."""

import numpy as np
import pytest

from flashrt_core.runtime.chunk import SPLICES, boundary_metrics
from flashrt_core.runtime.clock import FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig
from flashrt_ros.replay.splice_trace import Rows, SpliceTrace, Trace, measure

HZ, HORIZON, DIMS = 20.0, 12, 3


def noisy_chunk(tick: int) -> np.ndarray:
    rng = np.random.default_rng(tick)
    t = (tick + np.arange(HORIZON)) / HZ
    return (np.sin(t)[:, None] + rng.normal(0, 0.02, DIMS)).astype(np.float32)


@pytest.mark.parametrize("splice", SPLICES)
@pytest.mark.parametrize("latency_s", [0.0, 0.12])
def test_trace_is_what_a_runner_serves(splice, latency_s):
    config = RTCConfig(target_hz=HZ, splice=splice, start_next_at=5, blend_steps=3 if splice in ("linear", "quintic") else 0)
    clock, served, tick = FakeClock(), [], 0
    trace = SpliceTrace(config, splice, 3)

    class Policy:
        def infer_actions(self, obs):
            return noisy_chunk(tick)

    with AsyncChunkRunner(Policy(), config, executor=SimulatedExecutor(latency_s, clock), clock=clock) as runner:
        seen = 0
        for _ in range(60):
            action = runner.next_action({}, block_if_empty=False)
            for event in runner.events[seen:]:
                if event.kind in ("start", "switch"):
                    trace.take(noisy_chunk(event.request_tick), event.executed, event.elapsed_ticks)
            seen = len(runner.events)
            trace.step()
            if action is not None:
                served.append(action)
            tick += 1
            clock.advance(1 / HZ)
        switches = [e for e in runner.events if e.kind == "switch"]
    assert np.array_equal(trace.trace.commands.array, np.stack(served))
    assert trace.trace.executed == [e.executed for e in switches]
    assert trace.trace.disagreements == pytest.approx([e.disagreement for e in switches])
    first = 60 - len(served)
    want = boundary_metrics(
        np.stack(served), [e.tick - first for e in switches], 1 / HZ, disagreements=[e.disagreement for e in switches],
        executed=[e.executed for e in switches], elapsed=[e.elapsed_ticks for e in switches],
    )  # fmt: skip
    assert measure(trace.trace, config) == want
    assert want.cb6_index_law == 1.0


def test_synchronous_takes_every_chunk_from_its_first_row():
    trace = SpliceTrace(RTCConfig(target_hz=HZ), "none", 0, synchronous=True)
    trace.take(noisy_chunk(0), 4, 4)
    trace.step()
    assert np.array_equal(trace.trace.commands.array[0], noisy_chunk(0)[0])


def test_begin_breaks_the_run():
    trace = SpliceTrace(RTCConfig(target_hz=HZ), "none", 0)
    for start in (0, 100):
        trace.begin()
        trace.take(noisy_chunk(start), 0, 0)
        for _ in range(4):
            trace.step()
    assert trace.trace.starts == [0, 4] and not trace.trace.switches
    assert measure(trace.trace, trace.config).cb3_step is None  # the jump from one run to the next is no step


def test_rows_and_merge():
    a, b = Trace(), Trace()
    for trace, value in ((a, 1.0), (b, 2.0)):
        for k in range(3000):
            trace.commands.add(np.full((1, 2), value * k))
        trace.starts, trace.switches, trace.disagreements = [0], [5], [value]
        trace.executed = trace.elapsed = [1]
    a.merge(b)
    assert a.commands.array.shape == (6000, 2) and a.commands.array[4000, 0] == 2000.0
    assert a.starts == [0, 3000] and a.switches == [5, 3005] and a.disagreements == [1.0, 2.0]
    rows = Rows()
    assert len(rows) == 0 and rows.array.shape == (0, 0)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("flashrt_ros.replay.splice_trace.MAX_TICKS", 10)
    trace = SpliceTrace(RTCConfig(target_hz=HZ), "none", 0)
    for _ in range(3):
        trace.take(noisy_chunk(0), 0, 0)
        for _ in range(8):
            trace.step()
    assert len(trace.trace.commands) == 10 and trace.trace.dropped == 14 and trace.trace.switches == [8]
    other = SpliceTrace(RTCConfig(target_hz=HZ), "none", 0)
    other.take(noisy_chunk(0), 0, 0)
    other.step()
    trace.trace.merge(other.trace)
    assert len(trace.trace.commands) == 10 and trace.trace.dropped == 15
    assert measure(trace.trace, trace.config).samples == 10
