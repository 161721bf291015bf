"""Hours of control with random faults of everything around the loop: no growth, no raise, no bad command, no lost index."""

import gc
import logging
import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import pytest
from support.loop_rig import HZ, VIEWS, LoopRig, arm, script

from flashrt_core.errors import FlashRTError
from flashrt_ros.control.health import Health, Level
from flashrt_ros.control.loop import Mode

SPAN, V_MAX, A_MAX = 1e3, 200.0, 5000.0
WARM_MINUTES = 2
# Blocks that may come and go with the state at the end. A leak of one block per chunk is 3,000 in 10 minutes.
LIMIT = 800
FAULTS = ("exception", "observation", "nan", "inf", "wild", "shape", "empty", "die")


class Soak:
    """A LoopRig and somebody who breaks things at random. leak: a list that the worker never empties."""

    def __init__(self, seed: int = 1, leak: list | None = None):
        self.r = np.random.default_rng(seed)
        faults = {n: str(self.r.choice(FAULTS)) for n in range(3_000_000) if n % 97 == 0} if leak is None else {}
        quiet = logging.getLogger("soak")
        quiet.disabled = True
        self.rig = LoopRig(
            lambda n: float(self.r.choice([0.0, 0.02, 0.06, 0.2, 0.9], p=[0.2, 0.4, 0.3, 0.09, 0.01])),
            robot=arm(span=SPAN, v_max=V_MAX, a_max=A_MAX, anchor_gap=50.0, teleport_fraction=0.2),
            play=script(faults=faults), follow=True, health=Health(logger=quiet, event_log=64),
            config={"event_log": 64, "splice": "quintic", "blend_steps": 5, "v_max": V_MAX, "a_max": A_MAX},
        )  # fmt: skip
        if leak is not None:
            inner = self.rig.worker.infer_actions
            self.rig.worker.infer_actions = lambda obs: leak.append(np.array(obs.seq)) or inner(obs)
        self.rig.record.records = type(self.rig.record.records)(maxlen=8)
        self.rig.record.chunks = type(self.rig.record.chunks)(maxlen=8)
        self.back_at: dict[str, int] = {}
        self.last: np.ndarray | None = None
        self.last_speed = np.zeros(2)
        self.activations = self.index_errors = self.stops = self.holds = 0

    def run(self, minutes: float) -> None:
        for _ in range(round(minutes * 60 * HZ)):
            self.tick()

    def tick(self) -> None:
        rig, loop = self.rig, self.rig.loop
        self.break_and_mend()
        record = rig.tick()
        rig.levels.clear()
        rig.arm.positions.clear()
        rig.arm.targets.clear()
        rig.arm.q = np.where(np.abs(rig.arm.q) > 900, 0.0, rig.arm.q)  # the plan of a script drives on for ever
        self.holds += rig.health.level >= Level.HOLD
        if record is not None:
            self.check(record.command)
        if loop.mode is Mode.INACTIVE:
            self.activate()
        elif loop.request is not None:
            self.stops += 1
            loop.deactivate()

    def check(self, command: np.ndarray) -> None:
        assert np.isfinite(command).all() and np.abs(command).max() <= SPAN
        if self.last is not None:
            assert np.abs(command - self.last).max() * HZ <= V_MAX * (1 + 1e-6)
        self.last = command

    def activate(self) -> None:
        rig = self.rig
        self.index_errors += rig.loop.counters.index_errors
        rig.worker.revive()
        rig.see()
        try:
            rig.loop.activate()
            self.activations += 1
            self.last = None
        except FlashRTError:
            pass  # cameras or joints are away: later

    def break_and_mend(self) -> None:
        """One in a few hundred ticks something happens; it is over some ticks later."""
        rig, now = self.rig, self.rig.now
        for name in [n for n, t in self.back_at.items() if now >= t]:
            del self.back_at[name]
            if name == "joints":
                rig.joints = True
            elif name == "taken":
                self.give_back()
            else:
                rig.cameras.add(name)
        luck = self.r.integers(0, 4000)
        wait = now + int(self.r.integers(1, 100))
        if luck < 4:
            view = VIEWS[luck % 2]
            rig.cameras.discard(view)
            self.back_at[view] = wait
        elif luck == 4:
            rig.joints = False
            self.back_at["joints"] = wait
        elif luck == 5:
            rig.loop.takeover()
            self.back_at["taken"] = wait
        elif luck == 6:
            rig.loop.deactivate()
        elif luck == 7:
            rig.clock.advance(float(self.r.uniform(0.01, 2.0)))  # the process was stopped
        elif luck == 8:
            rig.clock.jump(-float(self.r.uniform(0.01, 100.0)))  # simulated time began again
        elif luck == 9:
            rig.arm.q = self.r.uniform(-900, 900, 2)  # moved by hand
        elif luck == 10:
            rig.inputs.put_prompt(f"task {now}")
        elif luck < 30:
            rig.worker.revive()

    def give_back(self) -> None:
        rig = self.rig
        rig.see()
        try:
            rig.loop.release()
        except FlashRTError:
            self.back_at["taken"] = rig.now + 20
        self.last = None


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def rss_kib() -> int:
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.fixture(autouse=True)
def no_logs():
    """A log of a day is growth of its own."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class Seen:
    activations: int
    holds: int
    faults: frozenset[str]


def check(minutes: int, warm_minutes: int = WARM_MINUTES) -> Seen:
    """In a process of its own: in one that ran other tests, the resident size is theirs."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, minutes, warm_minutes).result()


def measure(minutes: int, warm_minutes: int) -> Seen:
    logging.disable(logging.CRITICAL)
    soak = Soak()
    soak.run(warm_minutes)
    before = blocks(), threading.active_count(), len(os.listdir("/proc/self/fd")), rss_kib()
    soak.run(minutes)
    after = blocks(), threading.active_count(), len(os.listdir("/proc/self/fd")), rss_kib()
    assert after[0] - before[0] < LIMIT, f"{after[0] - before[0]} blocks in {minutes} min"
    assert after[1:3] == before[1:3] and after[3] - before[3] <= 1024, (before, after)
    assert soak.index_errors == soak.rig.loop.counters.index_errors == 0
    assert soak.rig.loop.counters.internal_errors == soak.rig.loop.outlet.sink_errors == 0
    return Seen(soak.activations, soak.holds, frozenset(soak.rig.health.counters))


def test_soak_10_minutes():
    seen = check(10)
    assert seen.activations > 5 and seen.holds > 500, "it was not a quiet time"
    assert {"worker_died", "chunk_not_finite", "state_stopped", "process_stopped", "takeover"} <= seen.faults


def test_soak_finds_a_leaking_worker():
    leak: list = []
    soak = Soak(leak=leak)
    soak.run(WARM_MINUTES / 2)
    before = blocks()
    soak.run(5)
    assert blocks() - before > LIMIT < len(leak)


@pytest.mark.long
def test_soak_24_hours():
    """The resident size settles within two hours (0.6 MiB above that after two minutes), while the blocks stay the same."""
    assert check(22 * 60, warm_minutes=2 * 60).activations > 500
