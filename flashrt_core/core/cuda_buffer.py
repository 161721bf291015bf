"""CudaBuffer: a block of device memory owned by Python, over the CUDA runtime by ctypes.

Tested on the CPU with a fake runtime (test/core/test_cuda_buffer.py).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ..errors import DeviceError

_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
_CHUNK = 4 << 20  # host-to-device copies of more than 16 MiB fail on Jetson Thor (observed upstream)


class CudaRuntime(Protocol):
    """What a CudaBuffer needs; each method raises DeviceError when the runtime refuses."""

    def malloc(self, nbytes: int, managed: bool) -> int: ...
    def free(self, ptr: int) -> None: ...
    def memcpy(self, dst: int, src: int, nbytes: int, kind: int) -> None: ...
    def memset(self, ptr: int, value: int, nbytes: int) -> None: ...
    def synchronize(self) -> None: ...


class CudaBuffer:
    """nbytes of device memory. `ptr` is its address as a `ctypes.c_void_p` (`.value` for the int that ops take).

    managed=True asks for unified memory. runtime: another CudaRuntime, for tests. DeviceError without libcudart or GPU.
    """

    def __init__(self, nbytes: int, managed: bool = True, *, runtime: CudaRuntime | None = None):
        self._ptr = ctypes.c_void_p()
        if type(nbytes) is not int or nbytes < 1:
            raise DeviceError("CudaBuffer", expected="nbytes >= 1", found=nbytes)
        self._runtime = cuda_runtime() if runtime is None else runtime
        self._nbytes, self._managed = nbytes, managed
        self._ptr = ctypes.c_void_p(self._runtime.malloc(nbytes, managed))

    @classmethod
    def from_numpy(cls, arr: np.ndarray, *, runtime: CudaRuntime | None = None) -> CudaBuffer:
        """Device memory with a copy of the array (made contiguous)."""
        buffer = cls(arr.nbytes, managed=False, runtime=runtime)
        buffer.upload(arr)
        return buffer

    @classmethod
    def empty(
        cls, count: int, dtype: np.dtype | type | str, managed: bool = True, *, runtime: CudaRuntime | None = None
    ) -> CudaBuffer:
        """Uninitialised memory for `count` elements."""
        return cls(count * np.dtype(dtype).itemsize, managed=managed, runtime=runtime)

    @classmethod
    def zeros(
        cls, count: int, dtype: np.dtype | type | str, managed: bool = True, *, runtime: CudaRuntime | None = None
    ) -> CudaBuffer:
        """Zeroed memory for `count` elements."""
        buffer = cls.empty(count, dtype, managed, runtime=runtime)
        buffer.zero_()
        return buffer

    @classmethod
    def device_empty(
        cls, count: int, dtype: np.dtype | type | str, *, runtime: CudaRuntime | None = None
    ) -> CudaBuffer:
        return cls.empty(count, dtype, managed=False, runtime=runtime)

    @classmethod
    def device_zeros(
        cls, count: int, dtype: np.dtype | type | str, *, runtime: CudaRuntime | None = None
    ) -> CudaBuffer:
        return cls.zeros(count, dtype, managed=False, runtime=runtime)

    @property
    def ptr(self) -> ctypes.c_void_p:
        return self._ptr

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def upload(self, arr: np.ndarray) -> None:
        """Copies a host array to the start of the buffer. DeviceError when it does not fit or the buffer is closed."""
        arr = np.ascontiguousarray(arr)
        base = self._checked("upload", arr.nbytes)
        for start in range(0, arr.nbytes, _CHUNK):
            count = min(_CHUNK, arr.nbytes - start)
            self._runtime.memcpy(base + start, arr.ctypes.data + start, count, _TO_DEVICE)

    def download(self, arr: np.ndarray) -> np.ndarray:
        """Waits for the device, then fills the contiguous host array from the start of the buffer; returns it."""
        base = self._checked("download", arr.nbytes)
        if not arr.flags.c_contiguous or not arr.flags.writeable:
            raise DeviceError("download", expected="a contiguous, writable array", found="another layout")
        self._runtime.synchronize()
        self._runtime.memcpy(arr.ctypes.data, base, arr.nbytes, _TO_HOST)
        return arr

    def download_new(self, shape: int | Sequence[int], dtype: np.dtype | type | str) -> np.ndarray:
        """The first bytes of the buffer as a new array."""
        self._checked("download", int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return self.download(np.empty(shape, dtype))

    def zero_(self) -> None:
        """Fills with zero bytes."""
        self._runtime.memset(self._checked("zero_", 0), 0, self._nbytes)

    def close(self) -> None:
        """Frees the memory; a second call does nothing."""
        if self._ptr.value:
            ptr, self._ptr = self._ptr.value, ctypes.c_void_p()
            self._runtime.free(ptr)

    free = close

    def __enter__(self) -> CudaBuffer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self):
        try:
            self.close()
        except Exception:  # at interpreter exit the runtime may be gone; there is nobody to tell
            pass

    def __repr__(self) -> str:
        where = "managed" if self._managed else "device"
        return f"CudaBuffer({self._nbytes} bytes, {where}, ptr=0x{self._ptr.value or 0:x})"

    def _checked(self, what: str, nbytes: int) -> int:
        if not self._ptr.value:
            raise DeviceError(f"CudaBuffer.{what}", expected="an open buffer", found="a closed one")
        if nbytes > self._nbytes:
            raise DeviceError(f"CudaBuffer.{what}", expected=f"at most {self._nbytes} bytes", found=nbytes)
        return self._ptr.value


class LibCudart:
    """CudaRuntime over libcudart. DeviceError when the library is missing or sees no device."""

    def __init__(self):
        self._lib = _load_library()
        pointer, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        signatures = {
            "cudaGetDeviceCount": [ctypes.POINTER(integer)],
            "cudaMalloc": [ctypes.POINTER(pointer), size],
            "cudaMallocManaged": [ctypes.POINTER(pointer), size, ctypes.c_uint],
            "cudaFree": [pointer],
            "cudaMemcpy": [pointer, pointer, size, integer],
            "cudaMemset": [pointer, integer, size],
            "cudaDeviceSynchronize": [],
        }
        for name, arguments in signatures.items():
            function = getattr(self._lib, name)
            function.argtypes, function.restype = arguments, integer  # without argtypes, addresses are cut to 32 bits
        self._lib.cudaGetErrorString.argtypes, self._lib.cudaGetErrorString.restype = [integer], ctypes.c_char_p
        count = ctypes.c_int()
        self._check("cudaGetDeviceCount", self._lib.cudaGetDeviceCount(ctypes.byref(count)))
        if count.value < 1:
            raise DeviceError("CUDA", expected="a device", found="none")

    def malloc(self, nbytes: int, managed: bool) -> int:
        ptr = ctypes.c_void_p()
        if managed:
            attach_global = 1
            code = self._lib.cudaMallocManaged(ctypes.byref(ptr), nbytes, attach_global)
        else:
            code = self._lib.cudaMalloc(ctypes.byref(ptr), nbytes)
        self._check(f"cudaMalloc of {nbytes} bytes", code)
        return int(ptr.value or 0)

    def free(self, ptr: int) -> None:
        self._check("cudaFree", self._lib.cudaFree(ptr))

    def memcpy(self, dst: int, src: int, nbytes: int, kind: int) -> None:
        self._check("cudaMemcpy", self._lib.cudaMemcpy(dst, src, nbytes, kind))

    def memset(self, ptr: int, value: int, nbytes: int) -> None:
        self._check("cudaMemset", self._lib.cudaMemset(ptr, value, nbytes))

    def synchronize(self) -> None:
        self._check("cudaDeviceSynchronize", self._lib.cudaDeviceSynchronize())

    def _check(self, what: str, code: int) -> None:
        if code != 0:
            text = self._lib.cudaGetErrorString(code)
            raise DeviceError(what, expected="cudaSuccess", found=f"error {code} ({text.decode() if text else '?'})")


@functools.cache
def cuda_runtime() -> LibCudart:
    """The process-wide runtime, loaded at the first use."""
    return LibCudart()


def _load_library() -> ctypes.CDLL:
    names = [ctypes.util.find_library("cudart"), "libcudart.so.13", "libcudart.so.12", "libcudart.so"]
    for name in names:
        if name:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
    raise DeviceError("libcudart", expected="the CUDA runtime library", found="none on this machine")


def sync() -> None:
    """Waits for the device."""
    cuda_runtime().synchronize()
