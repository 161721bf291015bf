"""Reads JSON from untrusted files: size cap, UTF-8 only, no duplicate keys, no NaN or infinity, no absurd numbers."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

from ..errors import CheckpointError, CheckpointNotFound, FlashRTError

MAX_DIGITS = 20  # 2^64 has 20; longer integers cost quadratic time to parse


def parse_json(
    data: bytes | memoryview, *, name: str, max_bytes: int, error: type[FlashRTError] = CheckpointError
) -> object:
    """The value in `data`. `name` is what the error is about (a file name, or `file: header`).

    Raises `error` for more than max_bytes, bytes that are not UTF-8, duplicate keys, NaN/Infinity, integers of more
    than 20 digits, nesting beyond Python's recursion limit, or any syntax error.
    """
    if len(data) > max_bytes:
        raise error(name, expected=f"at most {max_bytes} bytes of JSON", found=f"{len(data)} bytes")
    try:
        text = str(data, "utf-8")
    except UnicodeDecodeError as exc:
        raise error(name, expected="JSON in UTF-8", found=f"byte 0x{data[exc.start]:02x} at {exc.start}") from None

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        out = dict(items)
        if len(out) != len(items):
            seen: set[str] = set()
            for key, _ in items:
                if key in seen:
                    raise error(name, expected="each key once", found=f"duplicate key {key[:80]!r}")
                seen.add(key)
        return out

    def integer(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise error(name, expected=f"integers of at most {MAX_DIGITS} digits", found=f"one of {len(digits)}")
        return int(digits)

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise error(name, expected="finite numbers", found=digits[:40])
        return value

    def constant(word: str) -> object:
        raise error(name, expected="finite numbers", found=word)

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_int=integer, parse_float=number, parse_constant=constant)
    except json.JSONDecodeError as exc:
        raise error(name, expected="valid JSON", found=f"{exc.msg} at character {exc.pos}") from None
    except RecursionError:
        raise error(name, expected="flat JSON", found="too many nested brackets") from None


def read_json(path: Path, *, max_bytes: int, error: type[FlashRTError] = CheckpointError) -> object:
    """`parse_json` of a file; never reads more than max_bytes + 1. CheckpointNotFound when it is not there."""
    return parse_json(read_capped(path, max_bytes), name=path.name, max_bytes=max_bytes, error=error)


def read_capped(path: Path, max_bytes: int) -> bytes:
    """The content of a file, cut one byte after max_bytes so that the caller's size check can refuse it."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
            raise CheckpointError(path.name, expected="a regular file", found="something else")
        with path.open("rb") as file:
            # read(n) allocates n bytes at once, so n must follow the file, not the cap
            return file.read(min(os.fstat(file.fileno()).st_size, max_bytes) + 1)
    except FileNotFoundError:
        raise CheckpointNotFound(path.name, expected=f"a file in {path.parent}", found="nothing") from None
    except OSError as exc:
        raise CheckpointError(path.name, expected="a readable file", found=exc.strerror or str(exc)) from None
