"""The guard behind a command that is too far away or too fast: it catches up and does not run past it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.arm import arm

from flashrt_ros.config.settings import ActionDim
from flashrt_ros.control.guard import Guard

T = 0.02
RANGE = 1000.0
ROUNDING = 1e-9 * RANGE


def one_joint(v_max: float | None, a_max: float | None) -> Guard:
    robot = arm(actions=(ActionDim("joint", "position", -RANGE, RANGE, v_max, a_max, start=0.0),), state=())
    guard = Guard(robot, T, anchor_gap=1e9)
    assert guard.anchor(np.zeros(0)) is None
    return guard


class Follower:
    """Sends commands through a guard and checks its limits at each step. at: position; speed: units/s."""

    def __init__(self, v_max: float | None, a_max: float | None):
        self.guard, self.v_max, self.a_max = one_joint(v_max, a_max), v_max or math.inf, a_max or math.inf
        self.at = self.speed = 0.0

    def send(self, command: float) -> float:
        out = float(self.guard.check([command]).command[0])
        speed = (out - self.at) / T
        assert abs(speed) <= self.v_max * (1 + 1e-9) + 1e-6
        assert abs(speed - self.speed) <= self.a_max * T * (1 + 1e-6) + 1e-6
        self.at, self.speed = out, speed
        return out

    @property
    def ramp(self) -> float:
        """How far it still goes when it brakes from now on as hard as it may."""
        length, v = 0.0, abs(self.speed) - self.a_max * T
        while v > 0:
            length, v = length + v * T, v - self.a_max * T
        return math.copysign(length, self.speed)


limits = st.tuples(st.floats(5, 500), st.floats(50, 5000))
targets = st.floats(-30, 30)


def test_a_far_step_is_reached_without_running_past_it():
    """At v_max 300 and a_max 500 a step to 20 used to go to 33.8 and to settle after 2 s."""
    joint = Follower(300.0, 500.0)
    path = [joint.send(20.0) for _ in range(60)]
    assert max(path) <= 20.0 + ROUNDING
    assert path[-1] == pytest.approx(20.0, abs=ROUNDING)
    first = next(k for k, x in enumerate(path) if x > 20.0 - ROUNDING) * T
    assert first <= 2 * math.sqrt(20.0 / 500.0) + 2 * T  # as fast as the acceleration allows


@settings(max_examples=150, deadline=None)
@given(limits, st.lists(targets, max_size=25), targets)
def test_a_command_that_stays_is_never_passed(limit, before, target):
    """Wherever other commands have left the joint: unless it is too late to stop, it stops there and stays."""
    joint = Follower(*limit)
    for command in before:
        joint.send(command)
    joint.send(target)  # the first of a kind may be the start of a motion
    left = target - joint.at
    too_late = left * joint.speed < 0 or abs(joint.ramp) > abs(left) + ROUNDING
    furthest = joint.at + joint.ramp if too_late else target
    low, high = sorted((joint.at, furthest))
    low, high = min(low, target), max(high, target)
    slowest = abs(furthest - joint.at) + abs(target - furthest)
    ticks = int((slowest / limit[0] + 4 * math.sqrt(slowest / limit[1]) + 2 * limit[0] / limit[1]) / T) + 10
    for _ in range(ticks):
        at = joint.send(target)
        assert low - ROUNDING <= at <= high + ROUNDING
    assert joint.at == pytest.approx(target, abs=ROUNDING) and abs(joint.speed) * T <= ROUNDING


@settings(max_examples=60, deadline=None)
@given(limits, st.floats(-0.9, 0.9), st.floats(-20, 20))
def test_a_command_that_moves_on_is_caught_up_with_and_not_passed(limit, share, start):
    joint, speed = Follower(*limit), share * limit[0]
    ahead = []
    for k in range(6000):
        command = start + speed * k * T
        if abs(command) > 0.9 * RANGE:
            return  # it came to the end of the range first
        ahead.append(command - joint.send(command))
        if len(ahead) > 10 and max(map(abs, ahead[-10:])) <= ROUNDING:
            break
    sign = math.copysign(1.0, start or speed)
    assert all(a * sign >= -ROUNDING for a in ahead) or speed * start < 0
    assert abs(ahead[-1]) <= ROUNDING


@settings(max_examples=100, deadline=None)
@given(limits, st.lists(st.floats(-1, 1), min_size=1, max_size=80))
def test_a_motion_within_the_limits_passes_unchanged(limit, changes):
    joint, at, speed = Follower(*limit), 0.0, 0.0
    for change in changes:
        speed = float(np.clip(speed + 0.999 * change * limit[1] * T, -0.999 * limit[0], 0.999 * limit[0]))
        if abs(at + speed * T) > 0.5 * RANGE:
            return
        at += speed * T
        assert joint.send(at) == pytest.approx(at, abs=ROUNDING)


@given(st.lists(targets, min_size=1, max_size=30))
def test_without_an_acceleration_limit_nothing_is_held_back(commands):
    joint = Follower(200.0, None)
    for command in commands:
        want = joint.at + float(np.clip(command - joint.at, -200.0 * T, 200.0 * T))
        assert joint.send(command) == pytest.approx(want, abs=ROUNDING)
