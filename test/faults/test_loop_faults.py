"""Fault rows of the control loop and its worker, each injected for real; level and bound are those of the fault table."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support.loop_rig import HZ, SIDE, LoopRig, arm, script
from support.rig import until

from flashrt_core.errors import ConfigError, DeviceError, NotBuilt
from flashrt_ros.control.health import Health, Level
from flashrt_ros.control.ticker import TickThread
from flashrt_ros.sim.tabletop import POLICY_DIR
from flashrt_ros.worker.interface import Script, ScriptedWorker, SubprocessWorker, Supervision, WorkerSpec, WorkerState

T = 1 / HZ


def ticks_of(values: list[float | None]) -> list[int]:
    return [round(v) for v in values]


@pytest.fixture
def process():
    """process(script, **limits) gives a started SubprocessWorker that is closed after the test."""
    made = []

    def make(play: Script | None = None, **limits) -> SubprocessWorker:
        worker = SubprocessWorker(WorkerSpec(script=play or script()), Supervision(**{"period_s": T, **limits}))
        made.append(worker)
        worker.start()
        return worker

    yield make
    for worker in made:
        worker.close(2.0)


class Live:
    """The loop of a LoopRig on a TickThread, as in the node. Commands with their times are in `rig.record`."""

    def __init__(self, worker, **options):
        self.rig = LoopRig(worker=worker, real=True, **options)
        self.lock = threading.Lock()
        self.ticker = TickThread(self.tick, T)

    def tick(self, late_s: float, skipped: int):
        return self.rig.tick(late_s, skipped)

    def __enter__(self):
        self.rig.activate()
        self.ticker.start()
        return self

    def __exit__(self, *exc):
        self.ticker.stop()
        self.rig.runner.close()

    @property
    def seen(self) -> list:
        return self.rig.record.records

    def level_within(self, level: Level, seconds: float, fault: str) -> float:
        """Wait until `fault` is active at `level` or worse; returns how long it took."""
        begin = time.monotonic()
        until(lambda: self.rig.health.active.get(fault, Level.OK) >= level, seconds)
        return time.monotonic() - begin


# ---- time


def test_F22_inference_slower_than_the_chunk_coasts_decelerates_and_resumes():
    """Bound T: the first tick without a row is a hold at once; a_max holds; at rest; then the right row."""
    late = {n: 0.7 for n in (3, 5)}
    rig = LoopRig(lambda n: late.get(n, 0.0), robot=arm(a_max=5000.0), config={"a_max": 500.0}, follow=True).activate()
    rig.run(120)
    start = next(i for i, x in enumerate(rig.levels) if x >= Level.HOLD)
    held = [r for r in rig.record.records if r.source == "hold"]
    assert held[0].seq == start - 1 and max(rig.levels[:start]) <= Level.NOTE, "within one period"
    _, _, a = rig.arm.motion()
    ramp = np.abs(a[held[0].seq : held[0].seq + 8, 0])
    assert 0 < ramp.max() <= 500.0 * (1 + 1e-4), "decelerates by a_max, which is a tenth of what the guard allows"
    assert held[10].command[0] == held[11].command[0], "at rest"
    resumed = [r for r in rig.record.records if r.source == "chunk" and r.seq > held[0].seq]
    assert resumed[0].row == 0, "the late chunk was past its last row; the next one starts from where the arm stands"
    assert rig.active() <= {"F41"} and rig.loop.counters.index_errors == 0


def test_F22_late_but_in_time_resumes_at_the_row_of_the_elapsed_ticks():
    rig = LoopRig(lambda n: 0.3 if n == 3 else 0.02).activate()
    out = rig.run(90)
    held = [r.seq for r in rig.record.records if r.source == "hold"]
    resumed = rig.record.records[held[-1] + 1]
    assert (len(held), resumed.row) == (5, 15) and ticks_of(out[held[-1] + 1 :]) == list(range(held[-1] + 1, 90))
    assert rig.health.counters == {"inference_slow": 1} and rig.loop.counters.index_errors == 0


def test_F23_latency_spike_skips_and_repeats_nothing():
    rig = LoopRig(lambda n: 0.4 if n == 15 else 0.04, play=script(horizon=50), config={"start_next_at": 20}).activate()
    out = rig.run(600)
    assert ticks_of(out[60:]) == list(range(60, 600)) and rig.loop.counters.index_errors == 0
    assert rig.health.counters == {"latency_spike": 1} and max(rig.levels) == Level.NOTE
    rows = [(r.chunk, r.row) for r in rig.record.records if r.source == "chunk"]
    assert all(b[1] == a[1] + 1 for a, b in itertools.pairwise(rows) if a[0] == b[0])


def test_F24_first_request_is_not_slow_and_the_first_chunk_starts_at_row_0(process):
    """Loading and warming up happen before `start` returns; the arm waits on its anchor for the first chunk."""
    begin = time.monotonic()
    worker = process(script(start_s=0.4, latencies_s=(0.05,)))
    assert time.monotonic() - begin >= 0.4
    with Live(worker) as live:
        until(lambda: any(r.source == "chunk" for r in list(live.seen)))
    first = next(r for r in live.seen if r.source == "chunk")
    assert first.row == 0 and live.rig.loop.counters.index_errors == 0
    assert {r.source for r in list(live.seen)[: first.seq]} <= {"anchor"}
    assert live.rig.loop.stats()["max_latency_s"] < 0.3


def test_F24_not_ready_not_active():
    worker = ScriptedWorker(script(), sleep=None)
    rig = LoopRig(worker=worker)
    worker.close()
    with pytest.raises(DeviceError, match="expected ready, found closed"):
        rig.activate()
    assert rig.tick() is None and rig.loop.mode.value == "inactive"


def test_F25_a_tick_that_overruns_is_noted_and_never_made_up():
    rig, calls = LoopRig(0.0, real=True), []

    class SlowSink:
        def command(self, record):
            time.sleep(0.07 if record.seq == 5 else 0)

        def chunk(self, plan): ...

    rig.loop.outlet.sinks.append(SlowSink())
    rig.activate()
    ticker = TickThread(lambda late, skipped: (calls.append(time.monotonic()), rig.tick(late, skipped)), T)
    ticker.start()
    until(lambda: len(calls) >= 20)
    ticker.stop()
    rig.runner.close()
    assert ticker.skipped >= 3 and rig.health.counters["tick_overrun"] >= 1
    assert min(np.diff(calls)) > 0.2 * T, "no burst"
    assert [r.seq for r in rig.record.records] == list(range(len(rig.record.records)))


def test_F26_wall_clock_steps_change_nothing(monkeypatch):
    steps = iter([3600.0, -3600.0] * 10_000)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(steps))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    worker = ScriptedWorker(script(latencies_s=(0.01,)))
    with Live(worker) as live:
        until(lambda: len(live.seen) > 25)
    assert not set(live.rig.health.counters) - {"gil_held", "tick_overrun"}, live.rig.health.counters
    assert live.ticker.lateness.max_s < 1.0


def test_F30_process_stopped_for_half_a_second(tmp_path):
    """SIGSTOP of a process with loop, ticker and worker: after it the old chunk is not replayed, the arm stands still."""
    code = f"""
import sys, time, json
sys.path.insert(0, {str(os.path.dirname(os.path.dirname(__file__)))!r})
from support.loop_rig import LoopRig, script
from flashrt_ros.sim.tabletop import POLICY_DIR
from flashrt_ros.control.ticker import TickThread
from flashrt_ros.worker.interface import ScriptedWorker
rig = LoopRig(worker=ScriptedWorker(script(horizon=100, latencies_s=(0.01, 0.01, 3.0))), real=True, config={{"start_next_at": 5}})
rig.activate()
ticker = TickThread(lambda late, skipped: rig.tick(late, skipped), 0.02)
ticker.start()
while len(rig.record.records) < 40: time.sleep(0.005)
print("stop me", flush=True)
sys.stdin.readline()
time.sleep(0.2)
ticker.stop()
records = list(rig.record.records)
print(json.dumps(dict(values=[float(r.command[0]) for r in records], at=[r.at_ns for r in records],
      source=[r.source for r in records], level=[int(r.level) for r in records], counters=rig.health.counters)), flush=True)
import os; os._exit(0)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "stop me\n"
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(child.pid, signal.SIGCONT)
        child.stdin.write("go\n")
        child.stdin.flush()
        out = json.loads(child.stdout.readline())
    finally:
        child.kill()
        child.wait()
    gaps = np.diff(out["at"]) / 1e9
    wake = int(np.argmax(gaps)) + 1
    assert gaps[wake - 1] >= 0.45 and out["counters"]["process_stopped"] == 1
    assert out["values"][wake] == out["values"][wake - 1] and out["source"][wake] == "hold", "T after wake"
    assert set(out["values"][wake:]) == {out["values"][wake]}, "nothing of the old chunk is replayed"
    assert out["level"][wake + 1] >= Level.HOLD and len(out["values"]) - wake <= 15, "no burst"


def test_F31_interpreter_held_for_100_ms():
    """Another thread keeps the GIL: a late tick is noted, the commands go on without a jump."""
    worker = ScriptedWorker(script(horizon=100, latencies_s=(0.0,)))
    with Live(worker) as live:
        until(lambda: len(live.seen) > 20)
        before = sys.getswitchinterval()
        sys.setswitchinterval(0.12)  # a busy thread then keeps the GIL for that long
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        sys.setswitchinterval(before)
        until(lambda: len(live.seen) > 45)
    counters = live.rig.health.counters
    assert counters.get("gil_held", 0) + counters.get("tick_overrun", 0) >= 1 and "inference_slow" not in counters
    values = ticks_of([r.command[0] for r in live.seen])
    assert max(live.rig.levels) <= Level.NOTE and live.rig.loop.counters.index_errors == 0
    assert np.abs(np.diff(values)).max() <= 2, "the plan of the rig is one per tick"


# ---- worker


def test_F32_killed_worker_coasts_holds_and_comes_back(process):
    """SIGKILL while it computes: noticed within 100 ms, the chunk is served to its end, then hold, then respawn."""
    worker = process(script(horizon=30, latencies_s=(0.1,)))
    with Live(worker, config={"start_next_at": 3}) as live:
        until(lambda: len(live.seen) > 30)
        os.kill(worker.status().pid, signal.SIGKILL)
        took = live.level_within(Level.COAST, 2.0, "F32")
        chunks = live.rig.loop.counters.chunks
        until(lambda: live.rig.loop.counters.chunks > chunks + 1, 10.0)
        until(lambda: not live.rig.active() & {"F32", "F22"})
    assert took <= 0.1 + 2 * T, took
    assert (worker.status().deaths, worker.status().respawns) == (1, 1)
    assert live.rig.loop.counters.index_errors == 0 and np.isfinite(live.rig.record.commands).all()


def test_F32_dies_more_than_twice_in_a_minute_and_stops(process):
    worker = process(script(horizon=5, faults={n: "die" for n in range(3, 100)}))
    with Live(worker) as live:
        until(lambda: live.rig.loop.request == "deactivate", 20.0)
        assert worker.status().state is WorkerState.FAILED and worker.status().deaths == 3
        assert live.rig.health.active["F32"] == Level.STOP
        until(lambda: live.rig.arm.at_rest(3))
        count = len(live.seen)
        until(lambda: len(live.seen) > count + 3)  # the hold is published on
        live.rig.loop.deactivate()
        assert live.rig.loop.wait_inactive(1.0)


def test_F33_hung_worker_is_killed_within_its_bound(process):
    bound = 0.2
    worker = process(script(horizon=10, faults={4: "hang"}), timeout_s=bound)
    with Live(worker) as live:
        pid = worker.status().pid
        until(lambda: worker.status().deaths == 1 or worker.status().fault == "F33", 5.0)
        asked = worker.status().requests
        live.level_within(Level.COAST, 1.0, "F33")
        until(lambda: worker.alive and worker.status().pid != pid, 10.0)
        until(lambda: worker.status().requests > asked + 1, 5.0)
    hung = [e for e in live.rig.health.events if e.id == "F33"]
    assert hung[0].level >= Level.COAST and live.rig.loop.counters.index_errors == 0
    requests = live.rig.loop.stats()
    assert requests["policy_errors"] >= 1


def test_F33_watchdog_kills_by_its_own_clock(process):
    worker = process(script(faults={0: "hang"}), watchdog_floor_s=0.1)
    begin = time.monotonic()
    with pytest.raises(DeviceError, match="killed by the watchdog"):
        worker.infer_actions(observation())
    assert 0.1 <= time.monotonic() - begin <= 0.1 + 2 * T + 0.1


def observation() -> dict[str, object]:
    return {"images": [np.zeros((SIDE, SIDE, 3), np.uint8)] * 2, "state": np.zeros(2, np.float32), "prompt": "go"}


def test_F38_device_error_exits_70_and_stops_after_two_restarts(process):
    worker = process(script(horizon=6, faults={n: "device" for n in range(2, 50)}))
    with Live(worker) as live:
        live.level_within(Level.HOLD, 5.0, "F34")
        assert "exit 70" in (worker.status().reason or "exit 70")
        until(lambda: live.rig.loop.request == "deactivate", 20.0)
        assert live.rig.health.active["F38"] == Level.STOP and "exit 70" in worker.status().reason
        assert worker.status().deaths == 3 and live.rig.arm.at_rest(2)


def test_F39_throttled_worker_is_noted_and_nothing_is_held():
    rig = LoopRig(lambda n: 0.10 if n < 12 else 0.16, play=script(horizon=40), config={"start_next_at": 10}).activate()
    rig.run(900)
    assert rig.health.counters == {"slow_policy": rig.health.counters.get("slow_policy", 0)}
    assert rig.health.counters["slow_policy"] >= 1 and max(rig.levels) == Level.NOTE
    assert rig.loop.stats()["latency_estimate_s"] == pytest.approx(0.16)
    assert rig.loop.stats()["deadline_misses"] == 0 and rig.loop.counters.index_errors == 0


@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_F40_bad_chunk_is_rejected_three_hold_ten_stop(fault):
    rig = LoopRig(0.0, play=script(faults={3: fault})).activate()
    rig.run(100)
    assert max(rig.levels) == Level.COAST and rig.health.counters["chunk_not_finite"] == 1 and not rig.active()
    rig = LoopRig(0.0, play=script(faults={n: fault for n in range(3, 200)})).activate()
    records = [rig.tick() for _ in range(100)]
    events = [(e.id, e.level) for e in rig.health.events if e.id == "F40"]
    assert [x for _, x in events] == [Level.COAST, Level.HOLD, Level.STOP]
    assert all(np.isfinite(r.command).all() for r in records) and rig.arm.at_rest(10)
    assert rig.loop.request == "deactivate" and records[-1].source == "hold"
    rejected = rig.loop.stats()["rejected_chunks"]
    assert rejected == 10


def test_F41_wild_chunk_is_rejected_or_clamped():
    """Far from the running chunk: rejected. Within D_max but too fast: clamped to the limits and counted."""
    rig = LoopRig(0.0, play=script(faults={3: "wild"}), config={"max_disagreement": 100.0}).activate()
    out = rig.run(60)
    assert ticks_of(out) == list(range(60)) and rig.health.counters == {"wild_chunk": 1}
    limited = arm(v_max=100.0, a_max=2000.0)
    rig = LoopRig(0.0, robot=limited, play=script(faults={3: "wild"})).activate()
    rig.run(60)
    _, v, a = rig.arm.motion()
    assert np.abs(v).max() <= 100.0 * (1 + 1e-9) and np.abs(a[2:]).max() <= 2000.0 * (1 + 1e-6)
    assert rig.loop.outlet.clamped > 0 and rig.health.counters["wild_chunk"] >= 1


@pytest.mark.parametrize("fault", ["shape", "empty"])
def test_F42_wrong_shape_is_rejected_with_the_shape(fault):
    rig = LoopRig(0.0, play=script(faults={3: fault})).activate()
    out = rig.run(60)
    assert ticks_of(out) == list(range(60)) and rig.health.counters == {"chunk_shape": 1}
    reason = next(e.reason for e in rig.health.events if e.id == "F42")
    assert "(20, 1)" in reason if fault == "shape" else "(0, 2)" in reason


def test_F44_F45_start_errors_leave_the_process_alive():
    for name, cls in (("ConfigError", ConfigError), ("DeviceError", DeviceError)):
        worker = SubprocessWorker(WorkerSpec(script=script(start_error=name)))
        with pytest.raises(cls):
            worker.start()
        assert worker.status().state is WorkerState.FAILED and worker.status().respawns == 0
        worker.close()


def test_F45_hardware_that_is_not_there():
    """A real load_model in the process: the error of this machine without such a GPU arrives with its type."""
    worker = SubprocessWorker(WorkerSpec(checkpoint=str(POLICY_DIR), hardware="thor"))
    with pytest.raises((NotBuilt, ConfigError), match="thor"):
        worker.start()
    worker.close()


def test_F46_prompt_change_never_blocks_the_control_thread(process):
    """A prompt is part of the next request: whatever it costs the worker, no tick waits for it."""
    worker = process(script(horizon=60, latencies_s=(0.3,), digest=False))
    with Live(worker) as live:
        until(lambda: len(live.seen) > 25)
        for k in range(10):
            live.rig.inputs.put_prompt(f"task {k}")
            time.sleep(0.03)
        count = live.rig.loop.counters.chunks
        until(lambda: live.rig.loop.counters.chunks > count + 1)
    assert live.ticker.cost.percentile(99) < 0.1 and live.rig.loop.counters.index_errors == 0
    assert live.rig.record.chunks[-1].observation.prompt == "task 9"


# ---- lifecycle


def test_F68_deactivate_during_inference_discards_the_result(process):
    """Bound 2T: from the call on only the ramp is published, then nothing; the late chunk is nobody's."""
    worker = process(script(horizon=40, latencies_s=(0.3,)))
    limits = arm(a_max=2000.0)
    with Live(worker, robot=limits, config={"a_max": 2000.0, "start_next_at": 2}) as live:
        until(lambda: live.rig.loop.counters.chunks == 1 and any(r.row > 8 for r in list(live.seen)))
        live.rig.loop.deactivate()
        count = len(live.seen)
        assert live.rig.loop.wait_inactive(2.0)
        stopped = len(live.seen)
        time.sleep(0.45)  # the result has come by now
        assert len(live.seen) == stopped and live.rig.loop.counters.chunks == 1
    tail = list(live.seen)[count + 1 :]
    assert tail and {r.source for r in tail} == {"hold"}
    assert live.rig.loop.stats()["discarded_chunks"] == 1 and live.rig.arm.at_rest()


def test_levels_are_those_of_the_table():
    """The rows that this file raises exist, and start at the level that is tested here."""
    health = Health()
    for fault, level in {"F22": 2, "F23": 1, "F25": 1, "F31": 1, "F32": 2, "F33": 2, "F34": 3, "F38": 4, "F39": 1, "F40": 2,
                         "F42": 2, "F30": 3, "F21": 3}.items():  # fmt: skip
        assert health.raise_(fault) == level, fault
