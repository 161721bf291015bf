"""Ctx: the execution contract on the host. It owns streams, buffers, graphs and plans: mechanism only, no policy.

The same calls exist over CUDA; here a stream runs its work at once and in order, a buffer is host memory, and a graph
is the list of calls recorded while it was captured. Ops take part in a capture by asking the ctx: `ctx.submit(name,
call, stream)` records or runs `call`, a callable without arguments whose arguments have been checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from . import exec_buffer
from .exec_buffer import Buffer
from .exec_graph import KEY_INHERIT, Graph, Recorder, ShapeKey, run_call
from .exec_plan import Plan
from .exec_status import BACKEND, CAPTURE, INVALID, NO_VARIANT, OK, OOM, UNBOUND, ExecError

__all__ = [
    "BACKEND", "CAPTURE", "INVALID", "KEY_INHERIT", "NO_VARIANT", "OK", "OOM", "UNBOUND", "Buffer", "Ctx", "Event",
    "ExecError", "Graph", "Plan", "Recorder", "ShapeKey",
]  # fmt: skip


@dataclass
class Stream:
    """handle: what ops get. submitted: calls run so far. waited: per other stream, how many of its calls come first."""

    handle: int
    priority: int = 0
    submitted: int = 0
    waited: dict[int, int] = field(default_factory=dict)


class Event:
    """A point in the work of a stream. Made by `Ctx.event`."""

    def __init__(self, ctx: Ctx):
        self._ctx = ctx
        self.stream_id: int | None = None
        self.position = 0  # calls of that stream that come before the point

    def record(self, stream_id: int = 0) -> None:
        """Mark the point after everything submitted to the stream so far."""
        self._ctx.stream_handle(stream_id)
        self.stream_id, self.position = stream_id, self._ctx.streams[stream_id].submitted


class Ctx:
    """One context of execution, used by one thread. Stream 0 exists from the start.

    recorder: the capture under way, or None. streams: by id.
    """

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.streams: dict[int, Stream] = {0: Stream(0)}
        self._native: dict[int, Stream] = {0: self.streams[0]}  # by handle

    # streams and events

    def stream(self, priority: int = 0) -> int:
        """A new stream; returns its id."""
        new = len(self.streams)
        handle = new
        while handle in self._native:  # a wrapped stream may have taken the number
            handle += 1
        self.streams[new] = self._native[handle] = Stream(handle, priority)
        return new

    def wrap_stream(self, ptr: int) -> int:
        """A stream that someone else made; returns its id. `ptr` becomes its handle."""
        if isinstance(ptr, bool) or not isinstance(ptr, int) or ptr < 0:
            raise ExecError("wrap_stream", INVALID, f"not a stream handle: {ptr!r}")
        new = len(self.streams)
        self.streams[new] = self._native.setdefault(ptr, Stream(ptr))
        return new

    def stream_handle(self, stream_id: int) -> int:
        """The int that ops get for this stream. Raises ExecError for an unknown id."""
        if stream_id not in self.streams:
            raise ExecError("stream", INVALID, f"no stream {stream_id!r}; there are {len(self.streams)}")
        return self.streams[stream_id].handle

    def event(self) -> Event:
        return Event(self)

    def stream_wait(self, stream_id: int, event: Event) -> None:
        """Later work of the stream comes after the event. An event never recorded holds nothing up, as in CUDA."""
        self.stream_handle(stream_id)
        if event.stream_id is not None:
            waited = self.streams[stream_id].waited
            waited[event.stream_id] = max(event.position, waited.get(event.stream_id, 0))

    def submit(self, what: str, call: Callable[[], object], handle: int = 0) -> None:
        """Run `call` on the stream with this handle, or record it when a capture is under way. What an op ends in.

        Raises ExecError for an unknown handle (INVALID) and when the call fails (BACKEND).
        """
        if handle not in self._native:
            raise ExecError(what, INVALID, f"no stream has the handle {handle!r}")
        if self.recorder is not None:
            self.recorder.append(call)
            return
        run_call(what, call)
        self._native[handle].submitted += 1

    # memory

    def buffer(self, name: str, nbytes: int) -> Buffer:
        """Zeroed, aligned host memory. Raises ExecError (rc INVALID, OOM)."""
        return exec_buffer.allocate(name, nbytes)

    def wrap(self, name: str, ptr: int, nbytes: int) -> Buffer:
        """Memory at an address that someone else owns and must keep alive."""
        return exec_buffer.wrap(name, ptr, nbytes)

    def copy(self, dst: Buffer, doff: int, src: Buffer, soff: int, n: int, stream_id: int = 0) -> None:
        """n bytes from src at soff to dst at doff; they may overlap. Raises ExecError on a range outside its buffer."""
        handle = self.stream_handle(stream_id)
        for buffer, offset in ((dst, doff), (src, soff)):
            if n < 0 or offset < 0 or offset + n > buffer.nbytes():
                found = f"bytes {offset}..{offset + n} of {buffer.name()!r} ({buffer.nbytes()} bytes)"
                raise ExecError("copy", INVALID, found)
        to, source = dst.array()[doff : doff + n], src.array()[soff : soff + n]

        def run() -> None:
            to[:] = source

        self.submit("copy", run, handle)

    # work

    def graph(self, name: str, max_variants: int = 0) -> Graph:
        """A graph without variants. max_variants: 0 = no limit."""
        if max_variants < 0:
            raise ExecError(f"graph {name!r}", INVALID, f"max_variants must be >= 0, not {max_variants}")
        return Graph(self, name, max_variants)

    def plan(self) -> Plan:
        return Plan(self)
