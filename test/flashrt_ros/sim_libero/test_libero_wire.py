"""Messages to the simulator process: everything arrives, nothing hangs, nothing but numbers is taken."""

import json
import socket
import struct
import threading

import numpy as np
import pytest

from flashrt_core.errors import DeviceError
from flashrt_ros.sim.libero.wire import MAX_PAYLOAD, Wire, WireClosed, WireTimeout


@pytest.fixture
def ends():
    a, b = socket.socketpair()
    left, right = Wire(a), Wire(b)
    yield left, right
    left.close()
    right.close()


def test_message_and_arrays_arrive(ends):
    left, right = ends
    sent = {"p": np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "s": np.array([1.5, -2.0]), "none": np.zeros((0, 7))}
    threading.Thread(target=left.send, args=({"do": "step", "n": 3}, sent)).start()
    message, arrays = right.receive(5.0)
    assert message == {"do": "step", "n": 3}
    for name, value in sent.items():
        assert arrays[name].dtype == value.dtype and np.array_equal(arrays[name], value)


def test_a_big_array_is_read_in_pieces(ends):
    left, right = ends
    big = np.random.default_rng(0).integers(0, 255, (2, 360, 360, 3), dtype=np.uint8)
    sender = threading.Thread(target=left.send, args=({}, {"big": big}))
    sender.start()
    assert np.array_equal(right.receive(5.0)[1]["big"], big)
    sender.join()


def test_silence_and_end_are_told_apart(ends):
    left, right = ends
    with pytest.raises(WireTimeout):
        right.receive(0.01)
    left.close()
    with pytest.raises(WireClosed):
        right.receive(5.0)
    with pytest.raises(WireClosed):
        for _ in range(3):  # the first may still find room in the socket
            right.send({"do": "x"}, {"a": np.zeros(1 << 20)})


@pytest.mark.parametrize(
    "layout, payload",
    [
        ([["a", "|O", [1]]], 8),  # objects
        ([["a", "<f8", [2]]], 8),  # fewer bytes than announced
        ([["a", "<f8", [1]]], 16),  # more
        ([["a", "<f8", [-1]]], 8),
        ([["a", "nonsense", [1]]], 8),
        (["a"], 0),
        (7, 0),
    ],
)
def test_nonsense_is_a_typed_error(ends, layout, payload):
    left, right = ends
    header = json.dumps([{}, layout]).encode()
    left._socket.sendall(struct.pack("!II", len(header), payload) + header + b"\0" * payload)
    with pytest.raises(DeviceError, match="simulator message"):
        right.receive(5.0)


def test_a_huge_announcement_allocates_nothing(ends):
    left, right = ends
    left._socket.sendall(struct.pack("!II", 10, MAX_PAYLOAD + 1))
    with pytest.raises(DeviceError, match="at most"):
        right.receive(5.0)
