"""Rows F14 to F17, F19 and F26 to F29 of the fault matrix at the level of the observations: state and time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from support.arm import JOINTS, PERIOD_S, Rig, arm, running_rig

from flashrt_core.runtime.clock import NS
from flashrt_ros.control.health import FAULTS, Level
from flashrt_ros.inputs.observation import Observation

T = PERIOD_S
OK, NOTE, COAST, HOLD = Level.OK, Level.NOTE, Level.COAST, Level.HOLD
EPS = 1e-9


@pytest.fixture
def rig():
    return running_rig()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_F14_state_not_finite(rig, bad):
    limit = rig.robot.safety.max_state_age_s
    seen = rig.obs.state.seq
    send = rig.send_state
    rig.send_state = lambda: send(positions=[0.1, bad, 0.1])
    assert rig.tick() == COAST and "F14" in rig.health.active
    assert rig.obs.state.seq == seen  # not stored
    assert rig.until("F15", COAST, limit + T + EPS)  # its age runs
    assert not isinstance(rig.snapshot(), Observation)
    rig.send_state = send
    rig.still_good()


def test_F15_joint_state_stops(rig):
    limit = rig.robot.safety.max_state_age_s
    rig.paused = {"state"}
    last = rig.obs.state.received_ns
    rig.until("F15", COAST, limit + T + EPS)
    assert limit < (rig.clock.now_ns() - last) / NS <= limit + T + EPS
    assert "joint_states" in rig.health.to_status()["reason"]
    assert not isinstance(rig.snapshot(), Observation)
    rig.paused = set()
    rig.still_good()


def test_F15_no_state_yet():
    rig = Rig()
    rig.paused = {"state"}
    assert rig.run(0.2) == COAST and [r.id for r in rig.snapshot()] == ["F15"]
    without = Rig(arm(state=()))  # a robot whose policy sees no state
    without.publish = lambda: [without.send_image(view) for view in without.robot.views]
    assert without.run(0.2) == OK and without.snapshot().state.shape == (0,)


def test_F16_joints_by_name(rig):
    names = [*JOINTS[::-1], "gripper_left"]
    assert rig.send_state(names=names, positions=[0.3, 0.2, 0.1, 9.0]) is None  # reordered, one too many
    assert np.allclose(rig.obs.state.values, [0.1, 0.2, 0.3])
    send = rig.send_state
    for names in (JOINTS[:2], (*JOINTS[:2], "wirst"), (*JOINTS, "elbow"), ()):
        rig.send_state = lambda n=names: send(names=list(n), positions=[0.0] * len(n))
        assert rig.tick() >= HOLD and "F16" in rig.health.active
        assert "wrist" in rig.health.to_status()["reason"] or len(names) == 4
        rig.send_state = send
        rig.still_good()
    for positions in ([0.0, 0.0], [0.0] * 4, [], [[0.0]] * 3, ["a", "b", "c"], None):
        assert rig.send_state(positions=positions).id == "F16"


def test_F17_wrong_units(rig):
    send = rig.send_state
    assert send(positions=[1.199, -1.199, 0.0]) is None  # limits x 1.2
    rig.send_state = lambda: send(positions=[0.0, 57.3, 0.0])  # degrees
    assert rig.tick() >= HOLD
    assert rig.health.active["F17"] == HOLD
    assert "elbow" in rig.health.to_status()["reason"]
    assert rig.obs.state.values[1] == pytest.approx(-1.199)
    rig.send_state = send
    rig.still_good()


def test_F19_teleport(rig):
    rig.moving = False
    rig.joints = rig.obs.state.values + np.array([0.0, 0.0, 0.9])
    assert rig.tick() == OK  # a fast move, not a jump
    rig.joints = rig.joints - np.array([0.0, 0.0, 1.01])
    assert rig.tick() == HOLD and rig.health.active == {"F19": HOLD}  # within one period
    assert "wrist" in rig.health.to_status()["reason"]
    assert [rig.tick() for _ in range(5)] == [HOLD] * 4 + [OK]  # a single event: five good periods end it
    rig.paused = {"state"}
    rig.run(0.3)
    rig.joints, rig.paused = -rig.joints, set()
    rig.tick()
    assert "F19" not in rig.health.active  # after a silence the robot may be anywhere


def test_F19_blocks_the_request_of_its_period(rig):
    rig.moving = False
    rig.send_state(positions=[0.99, 0.9, 0.9])
    rig.send_state(positions=[-0.99, 0.9, 0.9])
    for view in rig.robot.views:
        rig.send_image(view)
    assert [r.id for r in rig.snapshot()] == ["F19"]


@pytest.mark.parametrize("hours", [1, -1])
def test_F26_wall_clock_steps(rig, hours):
    """Stamps follow the wall clock, ages do not: no coast, no hold, requests go on."""
    shift = hours * 3600 * NS
    rig.stamp_offset_ns = {"front": shift, "hand": shift, "state": shift}
    for _ in range(100):
        assert rig.tick() <= NOTE
        assert isinstance(rig.snapshot(), Observation) or rig.snapshot() == []
        assert rig.obs.status(rig.clock.now_ns())["front"]["age_s"] <= 2 * T + EPS


def test_F27_sim_time_jumps_back(rig):
    old = rig.obs.images["front"].frame
    rig.clock.jump(-50.0)
    assert [r.id for r in rig.obs.faults(rig.clock.now_ns())] == ["F27"]  # at the first look after the jump
    assert FAULTS["F27"].level == HOLD
    assert rig.obs.images["front"].frame is None and rig.obs.state is None and old is not None
    rig.run(0.3)
    rig.still_good()


def test_F28_paused_time_makes_nothing_old(rig):
    for _ in range(1000):  # the control thread looks, time stands still
        assert rig.obs.faults(rig.clock.now_ns()) == []
    rig.still_good()


@pytest.mark.parametrize("speed", [1, 10])
def test_F29_only_the_given_clock_counts(monkeypatch, speed):
    """Simulated time at any speed is the same run: nothing asks the machine what time it is."""

    def run():
        rig = Rig()
        return [(rig.tick(), [im.tobytes() for im in getattr(rig.snapshot(), "images", ())]) for _ in range(100)]

    expected = run()
    machine = {"now": 0}

    def machine_time(*_):
        machine["now"] += speed * 10**9
        return machine["now"]

    for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"):
        monkeypatch.setattr(time, name, machine_time)
    assert run() == expected
