"""CUDA streams, events, pinned memory and captured graphs over libcudart by ctypes, which releases the GIL in every call."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from ..errors import DeviceError
from .cuda_buffer import cuda_runtime

CAPTURE_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal: calls of other threads do not end the capture
_NON_BLOCKING = 1  # cudaStreamNonBlocking: no implicit order with the legacy default stream
_EVENT_DEFAULT = 0
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3  # cudaMemcpyKind
ERROR_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation


class CudaCallError(DeviceError):
    """A CUDA runtime call that failed; `code` is its cudaError_t."""

    def __init__(self, call: str, code: int, text: str):
        self.code = code
        super().__init__(call, expected="cudaSuccess", found=f"error {code} ({text})")


class GraphRuntime:
    """The calls that an execution context needs. DeviceError when the library or a device is missing."""

    def __init__(self) -> None:
        self.capturing = False
        self._deferred: list[tuple[str, int]] = []
        self.lib = cuda_runtime()._lib
        pointer, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        out = ctypes.POINTER(pointer)
        signatures: dict[str, list[Any]] = {
            "cudaStreamCreateWithPriority": [out, ctypes.c_uint, integer],
            "cudaStreamSynchronize": [pointer],
            "cudaStreamWaitEvent": [pointer, pointer, ctypes.c_uint],
            "cudaStreamBeginCapture": [pointer, integer],
            "cudaStreamEndCapture": [pointer, out],
            "cudaGraphInstantiate": [out, pointer, ctypes.c_ulonglong],
            "cudaGraphGetNodes": [pointer, out, ctypes.POINTER(size)],
            "cudaGraphLaunch": [pointer, pointer],
            "cudaGraphUpload": [pointer, pointer],
            "cudaGraphDestroy": [pointer],
            "cudaGraphExecDestroy": [pointer],
            "cudaEventCreateWithFlags": [out, ctypes.c_uint],
            "cudaEventRecord": [pointer, pointer],
            "cudaEventSynchronize": [pointer],
            "cudaEventElapsedTime": [ctypes.POINTER(ctypes.c_float), pointer, pointer],
            "cudaEventDestroy": [pointer],
            "cudaMalloc": [out, size],
            "cudaFree": [pointer],
            "cudaMallocHost": [out, size],
            "cudaFreeHost": [pointer],
            "cudaMemcpyAsync": [pointer, pointer, size, integer, pointer],
            "cudaMemsetAsync": [pointer, integer, size, pointer],
            "cudaMemGetInfo": [ctypes.POINTER(size), ctypes.POINTER(size)],
            "cudaDeviceSynchronize": [],
        }
        for name, arguments in signatures.items():
            function = getattr(self.lib, name)
            function.argtypes, function.restype = arguments, integer

    def call(self, name: str, *args: Any) -> None:
        """One runtime call; CudaCallError when it fails."""
        code = getattr(self.lib, name)(*args)
        if code:
            text = self.lib.cudaGetErrorString(code)
            raise CudaCallError(name, code, text.decode() if text else "?")

    def make(self, name: str, *args: Any) -> int:
        """A call whose first argument receives a handle or an address."""
        handle = ctypes.c_void_p()
        self.call(name, ctypes.byref(handle), *args)
        return int(handle.value or 0)

    def stream(self, priority: int = 0) -> int:
        return self.make("cudaStreamCreateWithPriority", _NON_BLOCKING, priority)

    def event(self) -> int:
        return self.make("cudaEventCreateWithFlags", _EVENT_DEFAULT)

    def elapsed_ms(self, begin: int, end: int) -> float:
        """Milliseconds between two recorded events; waits for the second."""
        self.call("cudaEventSynchronize", end)
        ms = ctypes.c_float()
        self.call("cudaEventElapsedTime", ctypes.byref(ms), begin, end)
        return ms.value

    def release(self, name: str, handle: int) -> None:
        """A call that frees something. Put off until a capture is over: cudaFree would break it, and Python's collector
        may let go of an old buffer at any moment."""
        if self.capturing:
            self._deferred.append((name, handle))
        else:
            self.call(name, handle)

    def begin_capture(self, stream: int) -> None:
        """Start a capture of this thread's calls on the stream."""
        self.call("cudaStreamBeginCapture", stream, CAPTURE_THREAD_LOCAL)
        self.capturing = True

    def _capture_over(self) -> None:
        self.capturing = False
        deferred, self._deferred = self._deferred, []
        for name, handle in deferred:
            self.call(name, handle)

    def end_capture(self, stream: int) -> tuple[int, int]:
        """(executable graph, number of nodes) of what was captured; the template is destroyed."""
        template = ctypes.c_void_p()
        self.call("cudaStreamEndCapture", stream, ctypes.byref(template))
        self._capture_over()
        graph = template.value
        try:
            count = ctypes.c_size_t()
            self.call("cudaGraphGetNodes", graph, None, ctypes.byref(count))
            return self.make("cudaGraphInstantiate", graph, 0), count.value
        finally:
            self.call("cudaGraphDestroy", graph)

    def abort_capture(self, stream: int) -> None:
        """Leave capture mode after a failure; what was captured is dropped."""
        graph = ctypes.c_void_p()
        self.lib.cudaStreamEndCapture(stream, ctypes.byref(graph))  # fails when the capture is already invalid
        if graph.value:
            self.lib.cudaGraphDestroy(graph)
        self.lib.cudaGetLastError()
        self._capture_over()

    def free_bytes(self) -> int:
        """Free device memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value


@functools.cache
def graph_runtime() -> GraphRuntime:
    """The process-wide runtime, loaded at the first use."""
    return GraphRuntime()
