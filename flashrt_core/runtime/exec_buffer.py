"""Buffer: a named piece of memory with a fixed address."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import DTypeLike

from .exec_status import INVALID, OOM, ExecError

ALIGNMENT = 256  # bytes; what cudaMalloc gives, so that a layout that works here works there


class Buffer:
    """`nbytes` of host memory at `dptr()`. Made by `Ctx.buffer` (owned) or `Ctx.wrap` (someone else's)."""

    def __init__(self, name: str, data: np.ndarray):
        self._name, self._bytes = name, data  # uint8 [nbytes]

    def dptr(self) -> int:
        """Address of the first byte; the same for the buffer's whole life."""
        return self._bytes.ctypes.data

    def nbytes(self) -> int:
        return self._bytes.size

    def name(self) -> str:
        return self._name

    def array(self, dtype: DTypeLike = np.uint8, shape: int | tuple[int, ...] | None = None) -> np.ndarray:
        """The memory as an array, no copy. Default shape: as many items as fit. Raises ExecError when too large."""
        item = np.dtype(dtype)
        shape = (self.nbytes() // item.itemsize,) if shape is None else (shape,) if isinstance(shape, int) else shape
        need = int(np.prod(shape, dtype=np.int64)) * item.itemsize
        if item.hasobject or need > self.nbytes() or min(shape, default=0) < 0:
            raise ExecError(f"{self._name}.array", INVALID, f"{item} {shape} needs {need} of {self.nbytes()} bytes")
        return self._bytes[:need].view(item).reshape(shape)


def allocate(name: str, nbytes: int) -> Buffer:
    """Zeroed host memory at an address that is a multiple of ALIGNMENT."""
    _check_size("buffer", name, nbytes)
    try:
        raw = np.zeros(nbytes + ALIGNMENT, dtype=np.uint8)
    except (MemoryError, ValueError) as error:
        raise ExecError(f"buffer {name!r}", OOM, f"{nbytes} bytes: {error}") from None
    skip = -raw.ctypes.data % ALIGNMENT
    return Buffer(name, raw[skip : skip + nbytes])


def wrap(name: str, ptr: int, nbytes: int) -> Buffer:
    """Memory that someone else owns and keeps alive."""
    _check_size("wrap", name, nbytes)
    if isinstance(ptr, bool) or not isinstance(ptr, int) or ptr <= 0:
        raise ExecError(f"wrap {name!r}", INVALID, f"not an address: {ptr!r}")
    return Buffer(name, np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(ptr)))


def _check_size(what: str, name: str, nbytes: int) -> None:
    if isinstance(nbytes, bool) or not isinstance(nbytes, (int, np.integer)) or nbytes <= 0:
        raise ExecError(f"{what} {name!r}", INVALID, f"nbytes must be a whole number > 0, not {nbytes!r}")
