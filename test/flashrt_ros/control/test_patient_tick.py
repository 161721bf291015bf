"""PatientTick: waits for what belongs to its moment and for the policy, but not for ever."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from flashrt_core.runtime.clock import FakeClock
from flashrt_ros.control.patient_tick import PatientTick


class Bench:
    """One camera, a state and a runner whose request is under way until `answer`."""

    def __init__(self, patience_s: float = 5.0):
        self.clock = FakeClock(10.0)
        now = self.clock.now_ns()
        self.camera, self.state = SimpleNamespace(frame=SimpleNamespace(stamp_ns=now)), SimpleNamespace(stamp_ns=now)
        self.answered, self.order = threading.Event(), []
        inputs = SimpleNamespace(images={"front": self.camera}, state=self.state, robot=SimpleNamespace(state=("joint",)))
        runner = SimpleNamespace(settle=self._settle)
        self.tick = PatientTick(lambda late, skipped: self.order.append("tick"), inputs, runner, self.clock, patience_s=patience_s)

    def _settle(self, timeout_s: float) -> bool:
        self.order.append("settle")
        return self.answered.wait(timeout_s)

    def later(self, change) -> threading.Thread:
        thread = threading.Thread(target=lambda: (time.sleep(0.02), self.order.append("came"), change()))
        thread.start()
        return thread


def test_everything_there_goes_on_at_once():
    bench = Bench()
    bench.answered.set()
    bench.tick(0.0, 0)
    assert bench.order == ["tick", "settle"] and bench.tick.late_inputs == bench.tick.late_policy == 0


@pytest.mark.parametrize("which", ["camera", "state"])
def test_the_tick_comes_after_the_inputs_of_its_moment(which):
    bench = Bench()
    bench.answered.set()
    bench.clock.advance(0.05)
    now = bench.clock.now_ns()
    items = {"camera": bench.camera.frame, "state": bench.state}
    for name, item in items.items():
        item.stamp_ns = now if name != which else item.stamp_ns
    thread = bench.later(lambda: setattr(items[which], "stamp_ns", now))
    bench.tick(0.0, 0)
    thread.join()
    assert bench.order == ["came", "tick", "settle"] and bench.tick.late_inputs == 0


def test_no_picture_at_all_is_waited_for_too():
    bench = Bench(patience_s=0.05)
    bench.answered.set()
    bench.camera.frame = None
    bench.tick(0.0, 0)
    assert bench.order == ["tick", "settle"] and bench.tick.late_inputs == 1


def test_patience_ends():
    bench = Bench(patience_s=0.05)
    bench.clock.advance(0.05)
    bench.tick(0.0, 0)
    assert bench.order == ["tick", "settle"]
    assert bench.tick.late_inputs == 1 and bench.tick.late_policy == 1
