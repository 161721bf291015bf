"""StateSlot: joints by name, scaling, fields, whole objects for readers."""

from __future__ import annotations

import array
import threading

import numpy as np

from flashrt_core.runtime.clock import FakeClock
from flashrt_ros.config.settings import SafetyConfig, StateDim
from flashrt_ros.inputs.state_slot import StateSlot


def state_slot(*dims: StateDim, **safety) -> tuple[StateSlot, FakeClock]:
    clock = FakeClock(50.0)
    return StateSlot(dims, SafetyConfig(**safety), clock), clock


def test_scale_offset_and_fields():
    slot, clock = state_slot(
        StateDim("elbow", -180.0, 180.0, scale=180 / np.pi),
        StateDim("gripper", 0.0, 1.0, source="finger", scale=-25.0, offset=1.0),
        StateDim("elbow_speed", -5.0, 5.0, source="elbow", field="velocity"),
    )
    assert slot.put(["finger", "elbow"], [0.04, np.pi / 2], 3, velocities=[0.0, 1.5]) is None
    assert np.allclose(slot.state.values, [90.0, 0.0, 1.5]) and slot.state.values.dtype == np.float32
    assert slot.state.received_ns == clock.now_ns() and slot.state.stamp_ns == 3
    assert slot.put(["finger", "elbow"], [0.04, 0.0], 3).id == "F16"  # no velocities in it


def test_names_may_change_between_messages():
    slot, _ = state_slot(StateDim("a", -9, 9), StateDim("b", -9, 9))
    for names, values in ((["a", "b"], [1, 2]), (["b", "x", "a"], [2, 0, 1]), (("b", "a"), (2, 1))):
        assert slot.put(names, array.array("d", values), 1) is None
        assert slot.state.values.tolist() == [1, 2]
    many = ["a", "b", *(f"j{i}" for i in range(1023))]
    assert slot.put(many, [0.0] * 1025, 1).id == "F16" and slot.put(many[:1024], [0.0] * 1024, 1) is None
    assert slot.put(["a", "b"], [1, 2], 1) is None


def test_a_velocity_that_is_not_used_may_be_anything():
    slot, _ = state_slot(StateDim("a", -9, 9))
    assert slot.put(["a"], [1.0], 1, velocities=[np.nan, 3], efforts="x") is None


def test_readers_see_whole_objects():
    slot, _ = state_slot(*(StateDim(n, -9, 9) for n in "abc"), teleport_fraction=100.0)
    done = threading.Event()

    def write():
        for k in range(3000):
            slot.put(["a", "b", "c"], [k % 9] * 3, k + 1)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        state = slot.state
        assert state is None or (len(set(state.values.tolist())) == 1 and (state.stamp_ns - 1) % 9 == state.values[0])
    writer.join()
