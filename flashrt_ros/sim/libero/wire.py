"""Messages between an evaluation and its simulator process: a JSON header and raw arrays over a pair of local sockets."""

from __future__ import annotations

import json
import math
import select
import socket
import struct
import time
from collections.abc import Mapping

import numpy as np

from flashrt_core.errors import DeviceError

MAX_HEADER, MAX_PAYLOAD = 1 << 20, 64 << 20
_SIZES = struct.Struct("!II")
_KINDS = "biuf"  # plain numbers only: an array never carries objects


class WireClosed(DeviceError):
    """The other process is gone."""


class WireTimeout(DeviceError):
    """The other process did not answer in time."""


class Wire:
    """One end of a stream socket pair; one thread at a time."""

    def __init__(self, end: socket.socket):
        self._socket = end
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def send(self, message: Mapping[str, object], arrays: Mapping[str, np.ndarray] | None = None) -> None:
        """message: plain data; arrays: numbers by name. Raises WireClosed."""
        blocks = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
        layout = [[name, block.dtype.str, list(block.shape)] for name, block in blocks.items()]
        header = json.dumps([message, layout], allow_nan=False).encode()
        size = sum(block.nbytes for block in blocks.values())
        if len(header) > MAX_HEADER or size > MAX_PAYLOAD:
            raise DeviceError("simulator message", expected=f"at most {MAX_PAYLOAD} bytes", found=len(header) + size)
        try:
            self._socket.sendall(_SIZES.pack(len(header), size) + header)
            for block in blocks.values():
                self._socket.sendall(block.data.cast("B") if block.size else b"")
        except OSError as error:
            raise WireClosed("simulator", expected="a running process", found=error.strerror) from None

    def receive(self, timeout_s: float | None = None) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        """(message, arrays). Raises WireTimeout, WireClosed, and DeviceError for what is not a message."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        header_size, size = _SIZES.unpack(self._read(_SIZES.size, end))
        if header_size > MAX_HEADER or size > MAX_PAYLOAD:
            raise DeviceError("simulator message", expected=f"at most {MAX_PAYLOAD} bytes", found=header_size + size)
        header, payload = self._read(header_size, end), self._read(size, end)
        try:
            message, layout = json.loads(header)
            return dict(message), _arrays(layout, payload)
        except (ValueError, TypeError) as error:
            raise DeviceError("simulator message", expected="a header and its arrays", found=str(error)[:100]) from None

    def close(self) -> None:
        self._socket.close()

    def _read(self, count: int, end: float | None) -> bytearray:
        data, at = bytearray(count), 0
        view = memoryview(data)
        while at < count:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not self._poll.poll(None if left is None else math.ceil(left * 1e3)):
                raise WireTimeout("simulator", expected="an answer in time", found="none")
            try:
                got = self._socket.recv_into(view[at:])
            except OSError as error:
                raise WireClosed("simulator", expected="a running process", found=error.strerror) from None
            if not got:
                raise WireClosed("simulator", expected="a running process", found="its end")
            at += got
        return data


def _arrays(layout: list, payload: bytearray) -> dict[str, np.ndarray]:
    out, at = {}, 0
    for name, kind, shape in layout:
        dtype = np.dtype(str(kind))
        if dtype.kind not in _KINDS:
            raise ValueError(f"array of {dtype}")
        count = math.prod(int(n) for n in shape)
        out[str(name)] = np.frombuffer(payload, dtype, count, at).reshape(shape)
        at += count * dtype.itemsize
    if at != len(payload):
        raise ValueError(f"{len(payload)} bytes of arrays, {at} announced")
    return out
