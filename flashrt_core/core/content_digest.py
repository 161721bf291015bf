"""The digest of a file's content, by blocks and in several threads: one thread reads a gigabyte in about a second."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from ..errors import CheckpointError

BLOCK = 64 << 20
_CHUNK = 1 << 20


def content_digest(
    pool: Executor, name: str, file: int, size: int, advance: Callable[[int], None] | None = None
) -> Callable[[], str]:
    """Starts reading `size` bytes of an open file; the result waits for the digest, 64 hexadecimal digits.

    Up to BLOCK bytes it is the sha256 of the content, beyond that the sha256 over the sha256 (32 bytes each) of its blocks.
    advance(n) is called after each n bytes, from the threads. CheckpointError when the file ends early; `name` is for that.
    """
    blocks = [
        pool.submit(_hash_block, name, file, range(at, min(at + BLOCK, size)), advance)
        for at in range(0, max(size, 1), BLOCK)
    ]

    def wait() -> str:
        digests = [block.result() for block in blocks]
        return (digests[0] if len(digests) == 1 else _joined(digests)).hex()

    return wait


def _joined(digests: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(digests)).digest()


def _hash_block(name: str, file: int, span: range, advance: Callable[[int], None] | None) -> bytes:
    total, view, at = hashlib.sha256(), memoryview(bytearray(min(_CHUNK, len(span)))), span.start
    while at < span.stop:
        count = os.preadv(file, [view[: span.stop - at]], at)
        if not count:
            raise CheckpointError(
                name, expected=f"at least {span.stop:,} bytes", found=f"its end at {at:,}: it was changed"
            )
        total.update(view[:count])
        at += count
        if advance is not None:
            advance(count)
    return total.digest()
