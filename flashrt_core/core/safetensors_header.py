"""Parses the header of a safetensors file and refuses every header that is not exactly right.

Layout: 8 bytes little-endian length N; N bytes of JSON, {name: {dtype, shape, data_offsets}, __metadata__: {str: str}};
the data, which the tensors must cover without overlap or hole. Format: github.com/huggingface/safetensors, README.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import CheckpointError
from .strict_json import parse_json

MAX_HEADER = 16 << 20  # bytes
MAX_TENSORS = 65_536
MAX_RANK = 8
MAX_NAME = 512  # characters

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


class TensorInfo(NamedTuple):
    """One tensor of a file. begin/end: byte offsets from the start of the data section."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin

    @property
    def numel(self) -> int:
        return self.nbytes // ITEM_BYTES[self.dtype]


class Header(NamedTuple):
    """tensors by name in the order of the file; data_start: offset of the data section in the file, bytes."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int


def parse_header(data: memoryview, name: str) -> Header:
    """Header of the whole file in `data` (only 8 + N bytes are read). CheckpointError names `name` and the rule."""
    size = len(data)
    if size < 8:
        raise CheckpointError(name, expected="at least 8 bytes", found=f"{size} bytes", hint="The file is truncated.")
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= MAX_HEADER:
        raise CheckpointError(
            f"{name}: header length", expected=f"2..{MAX_HEADER} bytes", found=length, hint="Not a safetensors file."
        )
    if length > size - 8:
        raise CheckpointError(
            name, expected=f"at least {8 + length} bytes", found=f"{size} bytes", hint="The file is truncated."
        )
    raw = bytes(data[8 : 8 + length])
    if raw[:1] != b"{":
        raise CheckpointError(f"{name}: header", expected="JSON that starts with '{'", found=repr(raw[:1]))
    # Cheap counts first, so that a header full of brackets cannot make Python build millions of objects.
    if raw.count(b"{") > MAX_TENSORS + 2 or raw.count(b"[") > 2 * MAX_TENSORS + 2 or raw.count(b",") > 16 * MAX_TENSORS:
        raise CheckpointError(f"{name}: header", expected=f"at most {MAX_TENSORS} tensors", found="more brackets")
    table: dict = parse_json(raw, name=f"{name}: header", max_bytes=MAX_HEADER)  # an object: it starts with '{'
    metadata = _metadata(table.pop("__metadata__", {}), name)
    if len(table) > MAX_TENSORS:
        raise CheckpointError(f"{name}: header", expected=f"at most {MAX_TENSORS} tensors", found=len(table))
    tensors = {key: _tensor(f"{name}: {key[:80]}", key, entry) for key, entry in table.items()}
    _check_cover(tensors, size - 8 - length, name)
    return Header(tensors, metadata, 8 + length)


def _metadata(value: object, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise CheckpointError(f"{name}: __metadata__", expected="an object of strings", found=type(value).__name__)
    return value


def _tensor(where: str, key: str, entry: object) -> TensorInfo:
    if not 1 <= len(key) <= MAX_NAME or not key.isprintable():
        raise CheckpointError(
            f"{where!r}: tensor name", expected=f"1..{MAX_NAME} printable characters", found=f"{len(key)} characters"
        )
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        found = sorted(entry)[:6] if isinstance(entry, dict) else type(entry).__name__
        raise CheckpointError(where, expected="exactly dtype, shape and data_offsets", found=found)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    item = ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None
    if item is None:
        raise CheckpointError(f"{where}: dtype", expected=f"one of {', '.join(ITEM_BYTES)}", found=repr(dtype)[:40])
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(n) for n in shape):
        raise CheckpointError(f"{where}: shape", expected=f"at most {MAX_RANK} integers >= 0", found=repr(shape)[:80])
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        raise CheckpointError(f"{where}: data_offsets", expected="two integers >= 0", found=repr(offsets)[:80])
    begin, end = offsets
    span = 1
    for n in shape:
        span *= n or 1
    if span >= 1 << 60:  # an empty tensor may claim [0, 2^62]; no array can have that shape
        raise CheckpointError(f"{where}: shape", expected="fewer than 2^60 elements", found=repr(shape)[:80])
    count = 0 if 0 in shape else span
    if end - begin != count * item:
        raise CheckpointError(
            where, expected=f"{count * item} bytes for {dtype} {shape}", found=f"data_offsets {offsets}"
        )
    return TensorInfo(dtype, tuple(shape), begin, end)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63  # bool is an int too, hence `type is`


def _check_cover(tensors: dict[str, TensorInfo], data_bytes: int, name: str) -> None:
    position, before = 0, "the start of the data"
    for key, info in sorted(tensors.items(), key=lambda kv: kv[1][2:]):
        if info.begin != position:
            raise CheckpointError(
                f"{name}: {key[:80]}",
                expected=f"data_offsets that begin at {position}, where {before[:80]} ends",
                found=info.begin,
                hint="Tensors overlap." if info.begin < position else "There is a hole in the data.",
            )
        position, before = info.end, key
    if position > data_bytes:
        raise CheckpointError(
            name,
            expected=f"{position} bytes of tensor data",
            found=f"{data_bytes} bytes",
            hint="The file is truncated, or an offset points past its end.",
        )
    if position < data_bytes:
        raise CheckpointError(
            name,
            expected=f"{position} bytes of tensor data",
            found=f"{data_bytes} bytes",
            hint="Bytes after the last tensor.",
        )
