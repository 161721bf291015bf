"""One safetensors file, mapped into memory: names and shapes now, tensors when asked for."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CheckpointError, CheckpointNotFound, nearest
from .pickles import refuse_pickle
from .quant.e4m3 import decode_e4m3
from .safetensors_header import ITEM_BYTES, Header, TensorInfo, parse_header

if TYPE_CHECKING:
    import torch

_NUMPY = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16, "F16": np.float16,
    "U32": np.uint32, "I32": np.int32, "F32": np.float32, "U64": np.uint64, "I64": np.int64, "F64": np.float64,
    "BF16": np.uint16, "F8_E4M3": np.uint8, "F8_E5M2": np.uint8,
}  # fmt: skip
_TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16",
    "U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64",
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
_MAP_NORESERVE = 0x4000  # Linux; the name is in `mmap` from Python 3.13 on
_CHUNK = 1 << 20  # elements looked at together when searching for NaN


class SafetensorsFile:
    """`keys()`, `info(key)`, `numpy(key)`, `torch(key)`, `raw(key)`, `metadata` of one file.

    The file is mapped copy-on-write: nothing is read until a tensor is used, and nothing written to a tensor reaches
    the disk. The mapping lives as long as any tensor made from it; there is no `close`, because torch would not notice
    it (`torch.frombuffer` keeps the buffer alive, but does not lock it). CheckpointError for a file that breaks the format.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.name = self.path.name
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):  # opening a FIFO would wait for ever
                raise CheckpointError(self.name, expected="a regular file", found="something else")
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                refuse_pickle(self.path, file.read(16))
                self.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                self.size = status.st_size
                # An empty file cannot be mapped; parse_header refuses it.
                self._buffer = _map(file.fileno()) if self.size else bytearray()
        except FileNotFoundError:
            raise CheckpointNotFound(self.name, expected=f"a file in {self.path.parent}", found="nothing") from None
        except OSError as exc:
            raise CheckpointError(self.name, expected="a readable file", found=exc.strerror or str(exc)) from None
        self._adopt(parse_header(memoryview(self._buffer), self.name))

    @classmethod
    def from_bytes(cls, data: bytes | bytearray, name: str = "<bytes>") -> SafetensorsFile:
        """The same over bytes in memory; a bytearray is used in place."""
        self = cls.__new__(cls)
        self.path, self.name, self.size, self.identity = Path(name), name, len(data), ()
        refuse_pickle(name, bytes(data[:16]))
        self._buffer = data if isinstance(data, bytearray) else bytearray(data)
        self._adopt(parse_header(memoryview(self._buffer), name))
        return self

    def _adopt(self, header: Header) -> None:
        self._tensors, self.metadata, self._data_start = header

    def keys(self) -> list[str]:
        """Tensor names in the order of the header."""
        return list(self._tensors)

    def __contains__(self, key: str) -> bool:
        return key in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def info(self, key: str) -> TensorInfo:
        """dtype (safetensors name), shape and byte range of a tensor, without reading it."""
        try:
            return self._tensors[key]
        except KeyError:
            raise CheckpointError(
                f"{self.name}: {key}",
                expected="a tensor of this name",
                found="none",
                hint=nearest_key(key, self._tensors),
            ) from None

    def raw(self, key: str) -> memoryview:
        """The bytes of a tensor, not copied, read-only."""
        info = self.info(key)
        start = self._data_start + info.begin
        return memoryview(self._buffer)[start : start + info.nbytes].toreadonly()

    def numpy(self, key: str) -> np.ndarray:
        """The tensor as an array. BF16 and FP8 are widened to float32 (exact); everything else is a read-only view."""
        info = self.info(key)
        stored = self._view(info).reshape(info.shape)
        if info.dtype == "BF16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        if info.dtype == "F8_E4M3":
            return decode_e4m3(stored)
        if info.dtype == "F8_E5M2":  # the upper byte of an IEEE half
            return (stored.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
        return stored

    def torch(self, key: str) -> torch.Tensor:
        """The tensor in its stored dtype on the CPU, sharing memory with the file mapping where it is aligned."""
        import torch

        info = self.info(key)
        dtype = getattr(torch, _TORCH[info.dtype])
        if info.nbytes == 0:
            return torch.empty(info.shape, dtype=dtype)
        if info.dtype == "BOOL":
            self._view(info)  # refuses bytes other than 0 and 1
        start, item = self._data_start + info.begin, ITEM_BYTES[info.dtype]
        if start % item:  # the mapping itself starts at a page
            copied = torch.frombuffer(self._buffer, dtype=torch.uint8, count=info.nbytes, offset=start).clone()
            return copied.view(dtype).reshape(info.shape)
        return torch.frombuffer(self._buffer, dtype=dtype, count=info.numel, offset=start).reshape(info.shape)

    def _view(self, info: TensorInfo) -> np.ndarray:
        start, dtype = self._data_start + info.begin, np.dtype(_NUMPY[info.dtype])
        count = info.numel
        if info.dtype == "BOOL" and (np.frombuffer(self._buffer, np.uint8, count, start) > 1).any():
            raise CheckpointError(f"{self.name}: BOOL tensor", expected="bytes 0 and 1", found="another value")
        flat = np.frombuffer(self._buffer, dtype, count, start)
        if start % dtype.itemsize:
            flat = flat.copy()
        flat.flags.writeable = False
        return flat


def _map(fd: int) -> mmap.mmap:
    # Writable and private, because torch warns about read-only buffers; NORESERVE, because a private writable mapping
    # larger than the memory of the machine is otherwise refused although its pages are only read.
    return mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE | _MAP_NORESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def check_finite(file: SafetensorsFile, keys: Iterable[str] | None = None) -> None:
    """CheckpointError that names the first tensor with a NaN or an infinity. Reads in chunks of a million elements."""
    for key in file.keys() if keys is None else keys:
        info = file.info(key)
        test = _NON_FINITE.get(info.dtype)
        if test is None:
            continue
        flat = file._view(info)
        for start in range(0, flat.size, _CHUNK):
            bad = test(flat[start : start + _CHUNK])
            if bad.any():
                at = np.unravel_index(start + int(np.argmax(bad)), info.shape)
                raise CheckpointError(
                    f"{file.name}: {key}",
                    expected="finite values",
                    found=f"NaN or infinity at {tuple(int(i) for i in at)} of {info.dtype} {list(info.shape)}",
                )


_NON_FINITE = {
    "F64": lambda x: ~np.isfinite(x),
    "F32": lambda x: ~np.isfinite(x),
    "F16": lambda x: (x.view(np.uint16) & 0x7C00) == 0x7C00,  # NumPy's isfinite is slow for halves
    "BF16": lambda x: (x & 0x7F80) == 0x7F80,
    "F8_E4M3": lambda x: (x & 0x7F) == 0x7F,
    "F8_E5M2": lambda x: (x & 0x7C) == 0x7C,
}


def nearest_key(key: str, known: Iterable[str]) -> str:
    """`errors.nearest` for tensor names: looks only among names with the same last part, which is enough and fast."""
    known = list(known)
    tail = key.rsplit(".", 1)[-1]
    alike = [k for k in known if k.rsplit(".", 1)[-1] == tail] or known
    hint = nearest(key, alike[:4096])
    return hint if hint.startswith("did you mean") else f"The file has {len(known)} tensors."
