"""Messages between the control process and the worker process: JSON over a pair of local sockets, and typed errors in it."""

from __future__ import annotations

import json
import math
import os
import select
import socket
import time
from collections.abc import Mapping

from flashrt_core import errors
from flashrt_core.errors import DeviceError, FlashRTError, OpError
from flashrt_core.runtime.chunk import ChunkError

MAX_MESSAGE = 64 * 1024
_MAX_TEXT = 2000
_KNOWN = {
    cls.__name__: cls
    for cls in (
        errors.NotBuilt, errors.CheckpointError, errors.CheckpointNotFound, errors.ConfigError, errors.ObservationError,
        errors.DeviceError, OpError, ChunkError,
    )
}  # fmt: skip


class ChannelClosed(DeviceError):
    """The other process is gone."""


class Channel:
    """One end of a socket pair that keeps messages apart (SOCK_SEQPACKET). Used by one thread at a time per direction."""

    def __init__(self, end: socket.socket):
        self._socket = end
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._closed = False

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """(our end, the end for the other process)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def send(self, message: Mapping[str, object], fd: int | None = None) -> None:
        """Raises ChannelClosed; a message is far smaller than the socket's buffer, so this does not wait."""
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE:
            raise DeviceError("worker message", expected=f"at most {MAX_MESSAGE} bytes", found=len(data))
        try:
            if fd is None:
                self._socket.sendall(data)
            else:
                socket.send_fds(self._socket, [data], [fd])
        except OSError as error:
            raise ChannelClosed("worker channel", expected="open", found=error.strerror) from None

    def receive(self, timeout_s: float | None = None) -> dict[str, object] | None:
        """The next message, None when the time is up. Raises ChannelClosed at the end, DeviceError for nonsense."""
        message, fds = self._receive(timeout_s, 0)
        assert not fds
        return message

    def receive_with_fd(self) -> tuple[dict[str, object], int]:
        """The next message, which carries one file descriptor."""
        message, fds = self._receive(None, 1)
        if message is None or len(fds) != 1:
            for fd in fds:
                os.close(fd)
            raise DeviceError("worker message", expected="one file descriptor", found=len(fds))
        return message, fds[0]

    def _receive(self, timeout_s: float | None, want_fds: int) -> tuple[dict[str, object] | None, list[int]]:
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            if self._poll.poll(None if left is None else math.ceil(left * 1e3)):
                break
            if end is not None and time.monotonic() >= end:
                return None, []
        try:
            if want_fds:
                data, fds, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, want_fds)
            else:
                data, fds = self._socket.recv(MAX_MESSAGE), []
        except OSError as error:
            raise ChannelClosed("worker channel", expected="open", found=error.strerror) from None
        if not data:
            raise ChannelClosed("worker channel", expected="open", found="closed by the other process")
        try:
            message = json.loads(data)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise DeviceError("worker message", expected="a JSON object", found=f"{len(data)} bytes of something else")
        return message, list(fds)

    def shutdown(self) -> None:
        """End both directions: whoever waits in `receive`, here or there, gets ChannelClosed."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()


def encode_error(error: BaseException) -> dict[str, object]:
    """Class name and fields of a typed error; of any other only its class, for what it says may hold paths."""
    for cls in type(error).__mro__:
        if cls is OpError:
            fields = {name: _text(getattr(error, name)) for name in ("op", "arg", "value", "rule", "shape")}
            return {"type": "OpError", "fields": fields}
        if cls.__name__ in _KNOWN and isinstance(error, FlashRTError):
            fields = {name: _text(getattr(error, name)) for name in ("thing", "expected", "found", "hint")}
            return {"type": cls.__name__, "fields": fields}
    return {"type": "", "fields": {"thing": type(error).__name__}}


def decode_error(data: Mapping[str, object]) -> FlashRTError:
    """The error again; what is not known becomes a DeviceError that points to the log."""
    name, fields = str(data.get("type", "")), data.get("fields")
    known = {str(k): None if v is None else str(v) for k, v in fields.items()} if isinstance(fields, dict) else {}
    cls = _KNOWN.get(name)
    try:
        if cls is OpError:
            return OpError(**known)
        if cls is not None:
            return cls(known.pop("thing"), **known)
    except (TypeError, KeyError):
        pass  # not our fields
    return DeviceError(
        "policy", expected="an answer", found=known.get("thing", "unknown"), hint="the log has the traceback"
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:_MAX_TEXT]
