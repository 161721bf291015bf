"""FollowMonitor: holds, then stops, and starts again after every good period."""

import numpy as np
from support.arm import arm

from flashrt_ros.config.config_file import load_robot
from flashrt_ros.control.following import FollowMonitor

NS = 1_000_000_000


def test_a_period_within_the_tolerance_starts_over():
    monitor = FollowMonitor(arm())
    command, here, far = np.zeros(4), np.zeros(3), np.array([0.0, 0.11, 0.0])
    t = 0
    for _ in range(10):
        for _ in range(24):
            t += NS // 50
            assert monitor.update(command, far, t) is None
        t += NS // 50
        assert monitor.update(command, here, t) is None
    assert monitor.update(command, far, t) is None and monitor.update(command, far, t + NS) is not None


def test_unknown_and_unmeasured_are_not_judged():
    monitor = FollowMonitor(arm())
    for t in (0, NS, 2 * NS):
        assert monitor.update(None, np.ones(3), t) is None
        assert monitor.update(np.zeros(4), None, t) is None
    tabletop = FollowMonitor(load_robot("tabletop"))  # deltas only
    assert tabletop.update(np.ones(7), np.zeros(8), 0) is None
    assert tabletop.update(np.ones(7), np.zeros(8), 9 * NS) is None
