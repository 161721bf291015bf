"""CudaBuffer over a fake runtime that keeps device memory in host arrays and checks every call."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest

from flashrt_core.core import cuda_buffer
from flashrt_core.core.cuda_buffer import CudaBuffer
from flashrt_core.errors import DeviceError


class FakeRuntime:
    """Device memory is host memory filled with 0xAB; out-of-range copies, leaks and double frees are errors."""

    def __init__(self):
        self.blocks: dict[int, np.ndarray] = {}
        self.calls: list[tuple] = []

    def malloc(self, nbytes, managed):
        block = np.full(nbytes, 0xAB, np.uint8)
        self.blocks[block.ctypes.data] = block
        self.calls.append(("malloc", nbytes, managed))
        return block.ctypes.data

    def free(self, ptr):
        del self.blocks[ptr]

    def memcpy(self, dst, src, nbytes, kind):
        device = dst if kind == 1 else src
        assert any(base <= device and device + nbytes <= base + b.nbytes for base, b in self.blocks.items())
        self.calls.append(("memcpy", nbytes, kind))
        ctypes.memmove(dst, src, nbytes)

    def memset(self, ptr, value, nbytes):
        self.blocks[ptr][:nbytes] = value

    def synchronize(self):
        self.calls.append(("synchronize",))


@pytest.fixture
def runtime():
    return FakeRuntime()


def test_round_trip_in_chunks(runtime):
    values = np.random.default_rng(0).normal(size=(5, 300_000)).astype(np.float32)  # 6 MB: two chunks of 4 MiB
    buffer = CudaBuffer.from_numpy(values.T, runtime=runtime)  # not contiguous
    assert buffer.nbytes == values.nbytes and buffer.ptr.value in runtime.blocks
    assert [c[1] for c in runtime.calls if c[0] == "memcpy"] == [4 << 20, values.nbytes - (4 << 20)]
    assert runtime.calls[0] == ("malloc", values.nbytes, False)
    assert np.array_equal(buffer.download_new(values.T.shape, np.float32), values.T)
    assert runtime.calls[-2] == ("synchronize",)


def test_zeros_empty_and_sizes(runtime):
    assert CudaBuffer.zeros(10, np.float16, runtime=runtime).download_new(10, np.float16).tolist() == [0] * 10
    assert CudaBuffer.device_zeros(3, np.int32, runtime=runtime).nbytes == 12
    assert CudaBuffer.empty(3, "uint8", runtime=runtime).download_new(3, np.uint8).tolist() == [0xAB] * 3
    assert CudaBuffer.device_empty(4, np.float64, runtime=runtime).nbytes == 32
    assert runtime.calls[0] == ("malloc", 20, True)


def test_freed_once_by_close_with_and_del(runtime):
    with CudaBuffer(8, runtime=runtime) as buffer:
        assert len(runtime.blocks) == 1
    assert not runtime.blocks and not buffer.ptr.value
    buffer.close()
    buffer.free()
    kept = CudaBuffer(8, runtime=runtime)
    assert runtime.blocks
    del kept
    gc.collect()
    assert not runtime.blocks
    with pytest.raises(DeviceError, match="closed"):
        buffer.upload(np.zeros(1))


def test_bounds(runtime):
    buffer = CudaBuffer(8, runtime=runtime)
    with pytest.raises(DeviceError, match="at most 8"):
        buffer.upload(np.zeros(9, np.uint8))
    with pytest.raises(DeviceError, match="at most 8"):
        buffer.download_new(9, np.uint8)
    with pytest.raises(DeviceError, match="contiguous"):
        buffer.download(np.zeros((2, 8), np.uint8)[:, ::2])
    for bad in (0, -1, 1.5, None):
        with pytest.raises(DeviceError, match="nbytes"):
            CudaBuffer(bad, runtime=runtime)


def test_without_the_library(monkeypatch):
    def absent(name):
        raise OSError(name)

    monkeypatch.setattr(cuda_buffer.ctypes, "CDLL", absent)
    cuda_buffer.cuda_runtime.cache_clear()
    with pytest.raises(DeviceError, match="libcudart"):
        CudaBuffer(8)
    cuda_buffer.cuda_runtime.cache_clear()


class FakeLibrary:
    """What ctypes sees of libcudart, with one code for every call."""

    def __init__(self, code=0, devices=1):
        self.code, self.devices = code, devices

    def __getattr__(self, name):
        def function(*args):
            if name == "cudaGetErrorString":
                return b"out of memory"
            if name == "cudaGetDeviceCount":
                args[0]._obj.value = self.devices
                return 0
            return self.code

        self.__dict__[name] = function
        return function


def test_library_errors_are_named(monkeypatch):
    monkeypatch.setattr(cuda_buffer, "_load_library", lambda: FakeLibrary(devices=0))
    with pytest.raises(DeviceError, match="device"):
        cuda_buffer.LibCudart()
    monkeypatch.setattr(cuda_buffer, "_load_library", lambda: FakeLibrary(code=2))
    runtime = cuda_buffer.LibCudart()
    for call in (lambda: runtime.malloc(8, False), lambda: runtime.malloc(8, True), lambda: runtime.free(1),
                 lambda: runtime.memcpy(1, 1, 1, 1), lambda: runtime.memset(1, 0, 1), runtime.synchronize):  # fmt: skip
        with pytest.raises(DeviceError, match="error 2"):
            call()
    assert runtime._lib.cudaMemcpy.argtypes[:2] == [ctypes.c_void_p] * 2  # the default would cut addresses to 32 bits
