"""Simulated time over /clock: paused, jumping back, faster than real time."""

from __future__ import annotations

import threading
import time

import pytest
from flashrt_ros.msg import PolicyStatus
from rig_ros import FakeArm, NodeProcess, until
from rosgraph_msgs.msg import Clock

from flashrt_ros.convert import stamp_ns, to_time

NODE = "/simulated"


class SimClock:
    """Publishes /clock every 5 ms of real time; rate: simulated seconds per second, 0 = paused."""

    def __init__(self, probe, start_s: float = 100.0):
        self.now_ns, self.rate = int(start_s * 1e9), 1.0
        self._publisher, self._node = probe.node.create_publisher(Clock, "/clock", 10), probe.node
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            self.now_ns += int(5_000_000 * self.rate)
            self._publisher.publish(Clock(clock=to_time(self.now_ns)))
            time.sleep(0.005)

    def close(self) -> None:
        self._ended = True
        self._thread.join(1)
        self._node.destroy_publisher(self._publisher)


@pytest.fixture(scope="module")
def world(probe):
    clock = SimClock(probe)
    with FakeArm(probe) as arm, NodeProcess(name="simulated", use_sim_time=True) as node:
        arm.stamp = lambda: clock.now_ns
        probe.to("configure", "activate", name=NODE)
        until(lambda: len(arm.commands) > 25, 10)
        yield clock, arm, node
    clock.close()


def test_F28_paused_time_makes_no_ticks_and_no_faults(probe, world):
    clock, arm, _ = world
    heard = probe.statuses(NODE)
    clock.rate = 0.0
    arm.camera_hz = arm.state_hz = 0.0  # the simulator stands still with its time
    time.sleep(0.1)
    start, sent = time.monotonic(), len(arm.commands)
    time.sleep(1.2)  # longer than any age limit
    assert len(arm.commands) == sent
    clock.rate, arm.camera_hz, arm.state_hz = 1.0, 20.0, 50.0
    until(lambda: len(arm.commands) > sent + 20, 3)
    assert time.monotonic() - start < 5
    assert max(m.level for _, m in heard) <= PolicyStatus.NOTE


def test_F27_time_jumps_back_holds_then_goes_on(probe, world):
    clock, arm, _ = world
    heard = probe.statuses(NODE)
    until(lambda: heard, 3)
    clock.now_ns -= 20_000_000_000
    took = until(lambda: any("sim_time_back" in m.counters for _, m in heard), 3)
    assert took < 0.5
    # Inputs were forgotten: it holds until new ones are there, and then it starts anew, from where it stands.
    at = time.monotonic_ns()
    until(lambda: heard[-1][1].level == PolicyStatus.OK, 5)
    chunks = heard[-1][1].chunks
    until(lambda: heard[-1][1].chunks > chunks, 5)
    steps = abs(arm.since(at)[1:] - arm.since(at)[:-1])
    assert steps.max() <= 0.02 * 1.05  # v_max T: no jump of the command
    assert heard[-1][1].lifecycle == "active"


def newest(heard: list) -> PolicyStatus:
    """The next status that comes."""
    count = len(heard)
    until(lambda: len(heard) > count, 5)
    return heard[-1][1]


def test_time_five_times_faster_makes_five_times_the_ticks(probe, world):
    clock, arm, _ = world
    heard = probe.statuses(NODE)
    clock.rate = 5.0
    arm.camera_hz, arm.state_hz = 60.0, 150.0
    try:
        time.sleep(0.3)
        for _ in range(8):
            first, began = newest(heard), time.monotonic()
            time.sleep(1.5)
            last = newest(heard)
            periods = (stamp_ns(last.header.stamp) - stamp_ns(first.header.stamp)) / 20_000_000
            ticks, skipped = last.commands - first.commands, last.skipped - first.skipped
            assert 0 < ticks <= 1.05 * periods + 5, "never a burst"
            # Each period is a tick or, on a machine that does not keep up with 250 Hz, counted as skipped.
            real = (time.monotonic() - began) / 0.02
            if abs(ticks + skipped - periods) <= 0.1 * periods and periods > 2 * real:
                break
        else:
            raise AssertionError(f"{ticks} ticks, {skipped} skipped in {periods:.0f} periods of simulated time")
    finally:
        clock.rate, arm.camera_hz, arm.state_hz = 1.0, 20.0, 50.0


def test_deactivate_while_time_stands_still_ends(probe, world):
    clock, *_ = world
    clock.rate = 0.0
    try:
        start = time.monotonic()
        assert probe.change("deactivate", NODE)
        assert time.monotonic() - start < 7 and probe.state(NODE) == "inactive"
    finally:
        clock.rate = 1.0
    probe.to("activate", name=NODE)  # what was left on its way is not in the way of the next activation
    probe.to("deactivate", name=NODE)
