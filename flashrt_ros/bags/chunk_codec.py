"""Decompresses what a bag holds, to the size that it claims and no further, and checks its CRC."""

from __future__ import annotations

import sys
from binascii import crc32
from pathlib import Path
from shutil import disk_usage
from typing import Any, BinaryIO

from flashrt_core.errors import ConfigError

from .mcap_records import Malformed

MAX_CHUNK = 512 << 20  # bytes, as stored and as decompressed
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOCK = 1 << 20


def zstd() -> Any:
    """The zstd module: Python's own from 3.14 on, before that the package that rosbags brings."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd as module
        else:
            from backports import zstd as module
    except ImportError:
        raise _missing("backports.zstd") from None
    return module


def _missing(package: str) -> ConfigError:
    return ConfigError("bag", expected="the packages of the bag extra", found=f"{package} missing",
                       hint="In the checkout, run: pip install -e '.[bag]'")  # fmt: skip


def decompress(data: bytes, compression: str, size: int) -> bytes:
    """Exactly `size` bytes. Raises Malformed for anything else, before more than `size` bytes are made."""
    if not compression:
        out = data
    elif size > MAX_CHUNK:
        raise Malformed(f"{size} bytes decompressed, at most {MAX_CHUNK}")
    elif compression == "zstd":
        out = _expand(zstd().ZstdDecompressor(), data, size)
    elif compression == "lz4":
        try:
            from lz4.frame import LZ4FrameDecompressor
        except ImportError:
            raise _missing("lz4") from None
        out = _expand(LZ4FrameDecompressor(), data, size)
    else:
        raise Malformed(f"compression {compression!a}, known: zstd, lz4")
    if len(out) != size:
        raise Malformed(f"{len(out)} bytes, {size} expected")
    return out


def _expand(decoder: Any, data: bytes, size: int) -> bytes:
    try:
        return decoder.decompress(data, max_length=size + 1)
    except Exception as error:  # each library has errors of its own; all mean: these bytes are damaged
        raise Malformed(f"{type(error).__name__}: {str(error)[:80]}") from None


def check_crc(data: bytes, crc: int) -> None:
    """Raises Malformed when a CRC was written and is not that of `data`."""
    if crc and crc32(data) != crc:
        raise Malformed("CRC error")


def expand_message(data: bytes) -> bytes:
    """The message in a bag whose messages are compressed one by one; data that is not compressed comes back as it is.

    A CDR message begins with 0x00, a zstd frame with its magic number, so the two cannot be mixed up.
    """
    if data[:4] != ZSTD_MAGIC:
        return data
    decoder = zstd().ZstdDecompressor()
    out = _expand(decoder, data, MAX_CHUNK)
    if not decoder.eof:
        raise Malformed("a compressed message without end")
    return out


def expand_file(source: Path, target: Path) -> bool:
    """Decompress a whole zstd file; False when it is cut or damaged: `target` then holds what came before.

    ConfigError when it would fill more than half of the free disk.
    """
    decoder, room, done = zstd().ZstdDecompressor(), disk_usage(target.parent).free // 2, 0
    with source.open("rb") as file, target.open("wb") as out:
        for block in iter(lambda: file.read(BLOCK), b""):
            try:
                done += _write(decoder, block, out)
            except Exception:  # damaged: see `_expand`
                return False
            if done > room:
                raise ConfigError(
                    f"bag file {source.name}", expected=f"at most {room} bytes decompressed", found="more"
                )
            if decoder.eof:
                return True
    return False


def _write(decoder: Any, block: bytes, out: BinaryIO) -> int:
    data = decoder.decompress(block, max_length=64 * BLOCK)
    count = out.write(data)
    while not decoder.needs_input and not decoder.eof:
        count += out.write(decoder.decompress(b"", max_length=64 * BLOCK))
    return count
