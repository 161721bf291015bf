"""CudaCtx: the execution contract over CUDA. Streams are CUDA streams, buffers device memory, variants captured graphs.

Replay is one `cudaGraphLaunch` and holds no lock of Python's. While a graph is captured, ops append what they launch to
`ctx.recorder`, so that a captured variant can say what it is made of.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.cuda_graph import (
    DEVICE_TO_DEVICE,
    ERROR_OUT_OF_MEMORY,
    CudaCallError,
    GraphRuntime,
    graph_runtime,
)
from ..errors import DeviceError
from .exec_buffer import _check_size
from .exec_graph import Graph, Key, check_key
from .exec_plan import Plan
from .exec_status import BACKEND, CAPTURE, INVALID, OOM, ExecError

Launch = tuple[str, dict[str, Any]]  # op name, its arguments
logger = logging.getLogger(__name__)


def _spoilt(error: DeviceError) -> bool:
    """Whether a capture failed for something that is not in it. cudaErrorStreamCapture*: 900..908."""
    if isinstance(error, CudaCallError):
        return 900 <= error.code <= 908
    return "cudaErrorStreamCapture" in str(error)  # an op's launch, reported by the kernel library


class DeviceBuffer:
    """`nbytes` of device memory at `dptr()`, with pinned host memory beside it for transfers, made when first needed."""

    def __init__(self, ctx: CudaCtx, name: str, ptr: int, nbytes: int, owned: bool):
        self._ctx, self._name, self._ptr, self._nbytes, self._owned = ctx, name, ptr, nbytes, owned
        self._pinned = 0
        self.staged_at = -1  # ctx.syncs when the pinned memory was last the source or the target of a copy

    def dptr(self) -> int:
        return self._ptr

    def nbytes(self) -> int:
        return self._nbytes

    def name(self) -> str:
        return self._name

    def staging(self) -> np.ndarray:
        """uint8 [nbytes] of pinned host memory. Waits for the stream when a copy may still use it."""
        if not self._pinned:
            self._pinned = self._ctx.runtime.make("cudaMallocHost", self._nbytes)
        if self.staged_at == self._ctx.syncs:
            self._ctx.sync()
        return np.ctypeslib.as_array((ctypes.c_uint8 * self._nbytes).from_address(self._pinned))

    def close(self) -> None:
        """Frees what is owned; a second call does nothing."""
        ptr, pinned, self._pinned = self._ptr if self._owned else 0, self._pinned, 0
        self._owned = False
        if pinned:
            self._ctx.runtime.release("cudaFreeHost", pinned)
        if ptr:
            self._ctx.runtime.release("cudaFree", ptr)

    def __del__(self):
        try:
            if not sys.is_finalizing():
                self.close()
        except Exception:  # a broken context has nobody to tell here
            pass


class CapturedGraph:
    """An executable graph. nodes: its number of nodes. launches: the ops that were issued while it was captured."""

    def __init__(self, runtime: GraphRuntime, handle: int, nodes: int, launches: list[Launch], owned: bool = True):
        self.runtime, self.handle, self.nodes, self.launches, self._owned = runtime, handle, nodes, launches, owned

    def __call__(self, stream: int) -> None:
        self.runtime.call("cudaGraphLaunch", self.handle, stream)

    def __del__(self):
        if self._owned and not sys.is_finalizing():
            self.runtime.release("cudaGraphExecDestroy", self.handle)


class CudaEvent:
    """A point in the work of a stream. Made by `CudaCtx.event`."""

    def __init__(self, ctx: CudaCtx):
        self._ctx, self.handle = ctx, ctx.runtime.event()

    def record(self, stream_id: int = 0) -> None:
        self._ctx.runtime.call("cudaEventRecord", self.handle, self._ctx.stream_handle(stream_id))

    def ms_since(self, earlier: CudaEvent) -> float:
        """Milliseconds on the device's clock; waits for this event."""
        return self._ctx.runtime.elapsed_ms(earlier.handle, self.handle)

    def __del__(self):
        if not sys.is_finalizing():
            self._ctx.runtime.release("cudaEventDestroy", self.handle)


class CudaGraph(Graph):
    """Variants are captured CUDA graphs. Same keys, ports and return codes as on the host."""

    def capture(self, key: Key, record: Callable[[int], object], stream_id: int = 0) -> None:
        """Capture what `record(stream)` launches, thread-local mode. When it raises, the variants are as before.

        A capture that something outside has invalidated (F37) is made once more, so `record` may be called twice.
        """
        key = check_key(f"{self.name}.capture", key)
        ctx, stream = self._ctx, self._ctx.stream_handle(stream_id)
        if ctx.recorder is not None:
            raise ExecError(f"{self.name}.capture", CAPTURE, "another capture of this ctx is under way")
        try:
            handle, nodes, launches = self._captured(record, stream)
        except DeviceError as error:
            if not _spoilt(error):
                raise self._refused(error) from error
            logger.warning("%s: capture was spoilt from outside (%s), once more", self.name, error)
            try:
                handle, nodes, launches = self._captured(record, stream)
            except DeviceError as again:
                raise self._refused(again) from again
        ctx.runtime.call("cudaGraphUpload", handle, stream)  # the first replay allocates nothing
        self._store(key, CapturedGraph(ctx.runtime, handle, nodes, launches))

    def _captured(self, record: Callable[[int], object], stream: int) -> tuple[int, int, list[Launch]]:
        """(handle, nodes, launches) of one attempt."""
        ctx = self._ctx
        launches = ctx.recorder = []
        try:
            ctx.runtime.begin_capture(stream)
            try:
                record(stream)
                return *ctx.runtime.end_capture(stream), launches
            except BaseException:
                ctx.runtime.abort_capture(stream)
                raise
        finally:
            ctx.recorder = None

    def _refused(self, error: DeviceError) -> DeviceError:
        """What capture raises for an attempt's error: a CUDA call's as the exec contract says, an op's own as it is."""
        return ExecError(f"{self.name}.capture", CAPTURE, str(error)) if isinstance(error, CudaCallError) else error

    def adopt(self, key: Key, work: Callable[[int], object] | int) -> None:
        """Use an executable graph that someone else owns, by its handle, or a callable that takes the stream handle."""
        key = check_key(f"{self.name}.adopt", key)
        if isinstance(work, int) and not isinstance(work, bool):
            work = CapturedGraph(self._ctx.runtime, work, 0, [], owned=False)
        if not callable(work):
            raise ExecError(f"{self.name}.adopt", INVALID, f"neither a graph handle nor callable: {work!r}")
        self._store(key, work)

    def captured(self, key: Key) -> CapturedGraph:
        """The captured variant `key`. KeyError when there is none."""
        return self._variants[key]


class CudaPlan(Plan):
    def sync(self) -> None:
        """Wait until the last execution has ended, on every stream of the context."""
        for stream_id in self._ctx.streams:
            self._ctx.sync(stream_id)


class CudaCtx:
    """Owns streams, buffers, graphs and plans of the current device. Used by one thread. Stream 0 is a stream of its own,
    not CUDA's default stream. recorder: launches of the capture under way, or None."""

    def __init__(self, runtime: GraphRuntime | None = None):
        self.runtime = runtime or graph_runtime()
        self.recorder: list[Launch] | None = None
        self.streams: dict[int, int] = {0: self.runtime.stream()}
        self.syncs = 0  # completed waits for stream 0

    def stream(self, priority: int = 0) -> int:
        new = len(self.streams)
        self.streams[new] = self.runtime.stream(priority)
        return new

    def wrap_stream(self, ptr: int) -> int:
        if isinstance(ptr, bool) or not isinstance(ptr, int) or ptr < 0:
            raise ExecError("wrap_stream", INVALID, f"not a stream handle: {ptr!r}")
        new = len(self.streams)
        self.streams[new] = ptr
        return new

    def stream_handle(self, stream_id: int) -> int:
        if stream_id not in self.streams:
            raise ExecError("stream", INVALID, f"no stream {stream_id!r}; there are {len(self.streams)}")
        return self.streams[stream_id]

    def event(self) -> CudaEvent:
        return CudaEvent(self)

    def stream_wait(self, stream_id: int, event: CudaEvent) -> None:
        self.runtime.call("cudaStreamWaitEvent", self.stream_handle(stream_id), event.handle, 0)

    def sync(self, stream_id: int = 0) -> None:
        """Wait for the stream."""
        self.runtime.call("cudaStreamSynchronize", self.stream_handle(stream_id))
        self.syncs += stream_id == 0

    def submit(self, what: str, call: Callable[[int], object], handle: int = 0) -> None:
        """`call(handle)`: how a graph launches a variant. ExecError (BACKEND) when it fails."""
        if self.recorder is not None:
            raise ExecError(what, CAPTURE, "a captured graph cannot be launched into a capture")
        try:
            call(handle)
        except CudaCallError as error:
            raise ExecError(what, BACKEND, str(error)) from error

    def buffer(self, name: str, nbytes: int) -> DeviceBuffer:
        """Zeroed device memory. Raises ExecError (rc INVALID, OOM)."""
        _check_size("buffer", name, nbytes)
        try:
            ptr = self.runtime.make("cudaMalloc", int(nbytes))
        except CudaCallError as error:
            rc = OOM if error.code == ERROR_OUT_OF_MEMORY else BACKEND
            raise ExecError(f"buffer {name!r}", rc, f"{nbytes} bytes: {error}") from error
        self.runtime.call("cudaMemsetAsync", ptr, 0, nbytes, self.stream_handle(0))
        return DeviceBuffer(self, name, ptr, int(nbytes), owned=True)

    def wrap(self, name: str, ptr: int, nbytes: int) -> DeviceBuffer:
        """Device memory that someone else owns and keeps alive."""
        _check_size("wrap", name, nbytes)
        return DeviceBuffer(self, name, ptr, nbytes, owned=False)

    def copy(self, dst: DeviceBuffer, doff: int, src: DeviceBuffer, soff: int, n: int, stream_id: int = 0) -> None:
        """n bytes from src at soff to dst at doff, on the stream. Raises ExecError on a range outside its buffer."""
        for buffer, offset in ((dst, doff), (src, soff)):
            if n < 0 or offset < 0 or offset + n > buffer.nbytes():
                found = f"bytes {offset}..{offset + n} of {buffer.name()!r} ({buffer.nbytes()} bytes)"
                raise ExecError("copy", INVALID, found)
        stream = self.stream_handle(stream_id)
        self.runtime.call("cudaMemcpyAsync", dst.dptr() + doff, src.dptr() + soff, n, DEVICE_TO_DEVICE, stream)

    def graph(self, name: str, max_variants: int = 0) -> CudaGraph:
        if max_variants < 0:
            raise ExecError(f"graph {name!r}", INVALID, f"max_variants must be >= 0, not {max_variants}")
        return CudaGraph(self, name, max_variants)

    def plan(self) -> CudaPlan:
        return CudaPlan(self)
