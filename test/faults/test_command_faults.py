"""Rows F20, F21 and F40 to F42 of the fault matrix at the level of the guard."""

from __future__ import annotations

import numpy as np
import pytest
from support.arm import PERIOD_S, arm

from flashrt_core.runtime.clock import NS, FakeClock
from flashrt_ros.control.following import FollowMonitor
from flashrt_ros.control.guard import Guard
from flashrt_ros.control.health import FAULTS, Health, Level

T = PERIOD_S


@pytest.fixture
def guard():
    guard = Guard(arm(), T)
    assert guard.anchor(np.zeros(3)) is None
    return guard


def test_F20_robot_does_not_follow():
    robot, clock, health = arm(), FakeClock(5.0), Health()
    monitor, levels = FollowMonitor(robot), []
    stuck = np.zeros(3)
    for k in range(130):
        clock.advance(T)
        command = np.array([min(0.01 * k, 0.3), 0.0, 0.0, 0.0])
        report = monitor.update(command, stuck, clock.now_ns())
        if report is not None:
            assert "shoulder" in report.reason
            health.report([report], clock.now_ns())
        levels.append(health.cycle(clock.now_ns()))
    onset = 11  # the first command beyond 0.1 rad
    assert levels.index(Level.HOLD) == onset + round(0.5 / T)
    assert levels.index(Level.STOP) == onset + round(1.5 / T)
    monitor.reset()
    assert monitor.update(command, stuck, clock.now_ns()) is None


def test_F21_takeover_is_silent_and_reanchors(guard):
    assert guard.check([0.001, 0.0, 0.0, 0.0]).command is not None
    guard.take_over()
    for _ in range(100):
        assert guard.check([0.5, 0.0, 0.0, 0.0]).command is None
        assert guard.check(None, hold=True).command is None
    moved = np.array([0.4, 0.2, -0.1])  # where the operator left it
    assert guard.anchor(moved) is None
    old_plan = guard.check([0.002, 0.0, 0.0, 0.0])
    assert [v.id for v in old_plan.violations] == ["F21"] and FAULTS["F21"].level == Level.HOLD
    assert np.allclose(old_plan.command[:3], moved)  # refused: stands where it was left
    assert guard.check([*(moved + 0.051), 0.0]).violations[0].id == "F21"
    good = guard.check([*(moved + 0.002), 0.0])  # within two periods of the new plan it moves again
    assert "F21" not in {v.id for v in good.violations}
    assert not np.allclose(guard.last_command[:3], moved)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dim", range(4))
def test_F40_not_finite_is_never_sent(guard, bad, dim):
    command = np.full(4, 0.0)
    command[dim] = bad
    result = guard.check(command)
    assert [v.id for v in result.violations] == ["F40"] and np.isfinite(result.command).all() and result.held
    assert guard.robot.action_names[dim] in result.violations[0].reason


def test_F41_wild_but_finite_is_clamped_and_counted(guard):
    guard.check(np.zeros(4))  # joined; from here on a far command is limited, not refused
    last = guard.last_command
    for k in range(20):
        result = guard.check([1e30, -1e30, 3.0, 7.0])
        assert [v.id for v in result.violations] == ["F41"]
        assert np.all(np.abs(result.command - last)[:3] <= 1.0 * T + 1e-12)
        last = result.command
        assert guard.clamp_counts["shoulder"] == k + 1


@pytest.mark.parametrize("shape", [(0,), (3,), (5,), (1, 4), (4, 1), ()])
def test_F42_wrong_shape_says_the_shape(guard, shape):
    result = guard.check(np.zeros(shape))
    assert [v.id for v in result.violations] == ["F42"] and str(shape) in result.violations[0].reason
    assert np.array_equal(result.command, np.zeros(4))


def test_faults_are_reported_in_the_period_they_happen(guard):
    """Bound T: the violation comes with the very command, and Health acts on it in that cycle."""
    health = Health()
    health.report(guard.check([np.nan] * 4).violations, 1 * NS)
    assert health.cycle(1 * NS) == FAULTS["F40"].level == Level.COAST
