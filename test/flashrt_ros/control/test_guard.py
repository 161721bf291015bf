"""The guard: limits always kept, holds never move the robot, nothing sent before the anchor."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from support.arm import PERIOD_S, arm

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor
from flashrt_core.runtime.rest import rest_tail
from flashrt_core.runtime.rtc import AsyncChunkRunner, CallablePolicyAdapter, RTCConfig
from flashrt_ros.config.config_file import load_robot
from flashrt_ros.config.settings import ActionDim, RobotConfig, StateDim
from flashrt_ros.control.guard import Guard, stoppable_speed

T = PERIOD_S


def mixed() -> RobotConfig:
    """Every kind of dimension, with and without each limit."""
    limits = [(2.0, 15.0), (None, 7.0), (1.5, None), (0.5, 1.0), (None, None)]
    dims = [ActionDim(f"p{i}", "position", -1.0 - i / 10, 1.0 + i / 5, v, a) for i, (v, a) in enumerate(limits)]
    dims += [
        ActionDim("d0", "delta", -1.0, 1.0, 20.0, 300.0),
        ActionDim("d1", "delta", -0.5, 0.0),
        ActionDim("g0", "discrete", 0.0, 1.0, values=(0.0, 0.4, 1.0)),
        ActionDim("g1", "discrete", -1.0, 1.0, start=-1.0),
    ]
    state = tuple(StateDim(d.name, d.lower, d.upper) for d in dims[:5])
    return arm(actions=tuple(dims), state=state)


def anchored(robot: RobotConfig | None = None, state=None, **kwargs) -> Guard:
    robot = robot or arm()
    guard = Guard(robot, T, **{"anchor_gap": 1e9, **kwargs})
    assert guard.anchor(np.zeros(len(robot.state)) if state is None else np.asarray(state)) is None
    return guard


class Limits:
    """Checks each command against the configuration, from scratch."""

    def __init__(self, guard: Guard):
        dims = guard.robot.actions
        self.dims, self.names = dims, [d.name for d in dims]
        self.last, self.speed = guard.last_command, np.zeros(len(dims))

    def check(self, out: np.ndarray) -> None:
        assert out.dtype == np.float64 and np.isfinite(out).all()
        for i, d in enumerate(self.dims):
            assert d.lower <= out[i] <= d.upper, (d.name, out[i])
            assert not d.values or out[i] in d.values
            step = out[i] - self.last[i]
            if d.kind == "position":
                speed = step / T
                assert d.v_max is None or abs(speed) <= d.v_max * (1 + 1e-9), (d.name, speed)
                assert d.a_max is None or abs(speed - self.speed[i]) <= d.a_max * T * (1 + 1e-6) + 1e-9, (d.name, speed)
                self.speed[i] = speed
            elif d.kind == "delta":
                assert d.v_max is None or abs(out[i]) <= d.v_max * T * (1 + 1e-9)
                assert d.a_max is None or abs(step) <= d.a_max * T * T * (1 + 1e-9)
        self.last = out


def hostile(rng: np.random.Generator, last: np.ndarray) -> object:
    """One command that means no good."""
    n = len(last)
    kind = rng.integers(12)
    if kind == 0:
        return np.full(n, rng.choice([np.nan, np.inf, -np.inf]))
    if kind == 1:
        return np.where(rng.random(n) < 0.2, np.nan, last)
    if kind == 2:
        return np.where(rng.random(n) < 0.5, 1.7e308, -1.7e308)
    if kind == 3:
        return np.full(n, rng.choice([5e-324, -5e-324, 1e-310]))
    if kind == 4:
        return [None, "command", np.zeros(n + 1), np.zeros((2, n)), np.zeros(0), object(), [[]], 1.0][rng.integers(8)]
    if kind == 5:
        return rng.uniform(-3, 3, n)
    if kind == 6:
        return last + rng.normal(0, 0.02, n)
    if kind == 7:
        return -last
    if kind == 8:
        return (rng.integers(-2, 3, n)).astype(np.float32)
    if kind == 9:
        return rng.standard_cauchy(n)
    return last + 0.03


@pytest.mark.parametrize(
    "robot, count", [(mixed(), 100_000), (load_robot("tabletop"), 10_000)], ids=["mixed", "tabletop"]
)
def test_hostile_commands_never_leave_the_limits(robot, count):
    """FAULTS.md, fuzz counts: 1e5 hostile commands (rows of chunks), each repeated for a while or not."""
    rng = np.random.default_rng(1)
    guard = anchored(robot)
    limits = Limits(guard)
    command, repeat = None, 0
    low = np.full(len(robot.actions), np.inf)
    high = -low
    for _ in range(count):
        if not repeat:
            command, repeat = hostile(rng, limits.last), int(rng.choice([1, 1, 1, 5, 60]))
        repeat -= 1
        out = guard.check(command).command
        limits.check(out)
        low, high = np.minimum(low, out), np.maximum(high, out)
    full = np.array([d.upper - d.lower for d in robot.actions])
    assert np.all(high - low > 0.2 * full)  # it was driven about, not stuck


def test_stoppable_speed_is_the_largest_that_stops_in_time():
    rng = np.random.default_rng(0)
    room, a = rng.uniform(0, 2, 1000), rng.uniform(0.1, 50, 1000)

    def travel(v):
        total = np.zeros_like(v)
        while np.any(v > 0):
            total, v = total + np.maximum(v, 0) * T, v - a * T
        return total

    v = stoppable_speed(room, a, T)
    assert np.allclose(travel(v), room, atol=1e-9)
    assert np.all(travel(v * 1.001 + 1e-6) > room)
    assert stoppable_speed(np.array([0.5]), np.array([np.inf]), T) == 0.5 / T


def test_commands_within_limits_pass_unchanged():
    guard = anchored()
    for k in range(400):
        want = np.array([*(0.05 * np.sin(0.02 * k + np.zeros(3))), float(k > 100)])
        result = guard.check(want)
        assert np.allclose(result.command, want, atol=1e-12) and not result.clamped and not result.violations


def test_clamps_are_counted_and_named():
    guard = anchored()
    result = guard.check([5.0, 0.0, 0.0, 0.6])
    assert set(result.clamped) == {"shoulder", "gripper"}
    assert result.clamped["shoulder"] == pytest.approx(5.0 - 5.0 * T * T)  # a_max T^2 from rest
    assert result.command[3] == 1.0
    assert [v.id for v in result.violations] == ["F41"] and "shoulder" in result.violations[0].reason
    assert guard.clamp_counts == {"shoulder": 1, "gripper": 1}


def test_reaches_a_far_target_and_rests_on_the_limit():
    guard, limits = anchored(), None
    limits = Limits(guard)
    out = None
    for _ in range(200):
        out = guard.check([9.0, -9.0, 0.5, 0.0]).command
        limits.check(out)
    assert np.allclose(out, [1.0, -1.0, 0.5, 0.0], atol=1e-9)


@pytest.mark.parametrize("bad", [None, [np.nan] * 4, np.zeros(3), "x"])
def test_unusable_commands_brake_to_rest_within_limits(bad):
    guard = anchored()
    limits = Limits(guard)
    for _ in range(40):
        limits.check(guard.check([9.0, 0.0, 0.0, 0.0]).command)
    v = limits.speed[0]
    assert v > 0.4
    for _ in range(int(v / (5.0 * T)) + 2):
        result = guard.check(bad)
        assert result.held
        limits.check(result.command)
    before = guard.last_command
    assert np.array_equal(guard.check(bad).command, before)
    assert [x.id for x in guard.check(bad).violations] == ([] if bad is None else ["F40"] if len(bad) == 4 else ["F42"])


# ---- holds


def test_a_held_command_never_moves_the_robot_towards_it():
    """The guard lags behind a fast chunk; the hold that follows must not let it catch up."""
    guard = anchored()
    limits = Limits(guard)
    for _ in range(5):
        limits.check(guard.check([1.0, -1.0, 1.0, 0.0]).command)
    at, v = guard.last_command, limits.speed[0]
    assert np.abs(at[0]) < 0.1 and v > 0.4  # far behind, and moving
    for _ in range(100):
        limits.check(guard.check([1.0, -1.0, 1.0, 0.0], hold=True).command)
    assert np.abs(guard.last_command - at).max() <= v * v / (2 * 5.0) + v * T  # it braked, no more
    assert np.all(limits.speed == 0)


def test_after_lost_time_a_lagging_guard_stands_still():
    guard = anchored()
    for _ in range(5):
        guard.check([1.0, -1.0, 1.0, 0.0])
    at = guard.last_command
    guard.halt()
    for _ in range(10):
        assert np.array_equal(guard.check([1.0, -1.0, 1.0, 0.0], hold=True).command, at)


def test_a_hold_is_followed_as_it_decelerates():
    """In step with the runner the guard lets its ramp to rest through unchanged, and stays where it ends."""
    config = RTCConfig(target_hz=1 / T, v_max=1.0, a_max=5.0, discrete_dims=(3,))
    guard = anchored()
    rows = np.zeros((30, 4))
    rows[:, 0] = np.cumsum(np.minimum(np.arange(30) * 5.0 * T, 0.8) * T)
    for row in rows:
        guard.check(row)
    for row in rest_tail(rows[-1], rows[-2], config.spec):
        result = guard.check(row, hold=True)
        assert np.allclose(result.command, row, atol=1e-12) and result.held and not result.clamped
    rest = guard.last_command
    for _ in range(10):
        assert np.array_equal(guard.check(row, hold=True).command, rest)


def test_a_frozen_hold_stops_at_once():
    """After a gap the runner stands still at its last command; so does the guard, whatever its speed was."""
    guard = anchored()
    for k in range(40):
        guard.check([0.01 * k, 0.0, 0.0, 0.0])
    at = guard.last_command
    assert np.array_equal(guard.check(at, hold=True).command, at)


def test_a_held_delta_only_gets_smaller():
    robot = arm(actions=(ActionDim("d", "delta", -1.0, 1.0, None, 100.0),), state=())
    guard = Guard(robot, T)
    guard.anchor(np.zeros(0))
    for _ in range(30):
        guard.check([1.0])
    assert guard.last_command[0] == pytest.approx(1.0)
    assert guard.check([0.5], hold=True).command[0] == pytest.approx(1.0 - 100 * T * T)  # slows down within a_max
    assert guard.check([1.0], hold=True).command[0] == pytest.approx(1.0 - 100 * T * T)  # never speeds up
    assert guard.check([0.0], hold=True).command[0] == 0.0  # nothing asked, nothing sent
    assert guard.check([1.0]).command[0] == pytest.approx(100 * T * T)  # not a hold: the change is limited again


@pytest.mark.parametrize("seed", range(20))
def test_holds_of_the_runner_only_slow_down(seed):
    """A runner whose policy dies at a random moment, through the guard: the speed only falls and ends at zero."""
    rng = np.random.default_rng(seed)
    calls = {"left": int(rng.integers(1, 4))}

    def policy(obs):
        calls["left"] -= 1
        if calls["left"] < 0:
            raise RuntimeError("dead")
        return np.concatenate([np.cumsum(rng.normal(0, 0.05, (10, 3)), axis=0), np.zeros((10, 1))], axis=1)

    config = RTCConfig(target_hz=1 / T, v_max=(1.0, 1.0, 1.0, 9.0), a_max=(5.0, 5.0, 5.0, 9.0), discrete_dims=(3,))
    guard = anchored()
    limits = Limits(guard)
    speeds = []
    clock = FakeClock()
    executor = SimulatedExecutor(lambda _: rng.uniform(0, 0.15), clock)
    with AsyncChunkRunner(CallablePolicyAdapter(policy), config, executor=executor, clock=clock) as runner:
        runner.reset(anchor=guard.last_command)
        for _ in range(120):
            clock.advance(T)
            command = runner.next_action({}, block_if_empty=False)
            out = guard.check(command, hold=runner.holding).command
            before = limits.last
            if not runner.holding:
                limits.check(out)
                speeds.clear()
            else:
                speeds.append(np.abs(out - before)[:3].max() / T)
            limits.last, limits.speed = out, (out - before) / T
    assert speeds[-1] == 0.0
    assert all(b <= a + 1e-9 for a, b in itertools.pairwise(speeds))


# ---- anchor


def test_nothing_before_the_anchor_and_after_release():
    guard = Guard(arm(), T)
    assert not guard.anchored and guard.check(np.zeros(4)).command is None and guard.last_command is None
    guard.anchor(np.zeros(3))
    assert guard.anchored and guard.check(np.zeros(4)).command is not None
    guard.release()
    assert not guard.anchored and guard.check(np.zeros(4)).command is None


def test_anchor_starts_at_rest_where_the_robot_is():
    guard = anchored(state=[0.3, -0.2, 0.9])
    assert np.allclose(guard.last_command, [0.3, -0.2, 0.9, 0.0])
    assert np.allclose(guard.check(None).command, [0.3, -0.2, 0.9, 0.0])
    tabletop = Guard(load_robot("tabletop"), 0.05)
    assert tabletop.anchor(np.zeros(8)) is None
    assert np.array_equal(tabletop.last_command, [0, 0, 0, 0, 0, 0, -1])  # deltas rest, the gripper stays open


@pytest.mark.parametrize("again", ["anchor", "release"])
def test_a_new_anchor_is_at_rest(again):
    guard = anchored()
    for _ in range(20):
        guard.check([1.0, 0.0, 0.0, 0.0])
    if again == "release":
        guard.release()
    guard.anchor(np.array([0.2, 0.0, 0.0]))
    assert np.array_equal(guard.check(None).command, [0.2, 0.0, 0.0, 0.0])
    assert guard.check([1.0, 0.0, 0.0, 0.0]).command[0] == pytest.approx(0.2 + 5.0 * T * T)  # a_max from rest


def test_after_lost_time_a_delta_starts_from_rest():
    robot = arm(actions=(ActionDim("d", "delta", -1.0, 1.0, None, 100.0),), state=())
    guard = Guard(robot, T)
    guard.halt()  # before the anchor: nothing to stop
    guard.anchor(np.zeros(0))
    for _ in range(30):
        guard.check([1.0])
    guard.halt()
    assert guard.check([1.0]).command[0] == pytest.approx(100 * T * T)


@pytest.mark.parametrize("period", [0.0, -1.0, float("nan")])
def test_period_must_be_positive(period):
    with pytest.raises(ConfigError):
        Guard(arm(), period)


def test_anchor_outside_the_limits():
    guard = Guard(arm(), T, anchor_gap=0.05)
    assert guard.anchor(np.array([1.04, 0.0, 0.0])) is None
    assert guard.last_command[0] == 1.0
    assert guard.anchor(np.array([1.06, 0.0, 0.0])).id == "F17"
    assert guard.anchor(np.array([np.nan, 0.0, 0.0])).id == "F14"


def test_first_command_far_from_the_robot_is_refused():
    guard = anchored(anchor_gap=0.05)
    result = guard.check([0.0, 0.06, 0.0, 1.0])
    assert [v.id for v in result.violations] == ["F21"] and "elbow" in result.violations[0].reason
    assert np.array_equal(result.command, np.zeros(4))  # nothing moves, not even the gripper
    assert guard.check([0.0, 0.04, 0.0, 1.0]).violations == () or guard.last_command[1] > 0
    assert "F21" not in {v.id for v in guard.check([0.0, 0.5, 0.0, 1.0]).violations}  # only the first one counts


def test_limits_change_at_run_time():
    robot = arm()
    guard = anchored(robot)
    for _ in range(60):
        guard.check([1.0, 0.0, 0.0, 0.0])
    slow = dataclasses.replace(robot, actions=tuple(
        dataclasses.replace(d, v_max=0.1) if d.kind == "position" else d for d in robot.actions
    ))  # fmt: skip
    guard.set_limits(slow)
    speeds, last = [], guard.last_command
    for _ in range(60):
        out = guard.check([-1.0, 0.0, 0.0, 0.0]).command
        speeds.append((out - last)[0] / T)
        last = out
    assert np.all(np.abs(np.diff(speeds)) <= 5.0 * T + 1e-9)
    assert speeds[-1] == pytest.approx(-0.1)
    with pytest.raises(ConfigError):
        guard.set_limits(arm(actions=robot.actions[:2]))


def test_a_small_clamp_is_counted_and_no_fault():
    guard = anchored(load_robot("tabletop"), np.array([0, 0, 0.1, np.pi, 0, 0, 0.03, -0.03]))
    guard.check(np.array([0, 0, 0, 0, 0, 0, -1.0]))
    small = guard.check(np.array([0, 0, 0, 0, 0, 0, -1.003]))
    assert small.command[6] == -1.0 and "gripper" in small.clamped and not small.violations
    wild = guard.check(np.array([0, 0, 0, 0, 0, 0, -1.2]))
    assert wild.command[6] == -1.0 and [v.id for v in wild.violations] == ["F41"]
    assert guard.clamp_counts["gripper"] == 2
