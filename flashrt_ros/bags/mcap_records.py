"""The records of an MCAP file as bytes: where they begin, what is in them, and which bytes cannot be one.

Layouts from the MCAP specification, version 0 (https://mcap.dev/spec): every record is an opcode byte, a uint64 length and
that many bytes; all numbers are little-endian, text is preceded by its uint32 length.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = range(1, 8)
STATISTICS, DATA_END = 0x0B, 0x0F
HEAD = struct.Struct("<BQ")  # opcode, length
MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, uncompressed size, crc, length of the compression's name
FOOTER_BODY = struct.Struct("<QQI")  # summary start, summary offset start, summary crc
MAX_COMPRESSION_NAME = 16
MAX_NAME = 4096  # bytes of a topic, a type, an encoding
COMPRESSIONS = ("", "zstd", "lz4")
CHUNK_PEEK = HEAD.size + CHUNK_HEAD.size + MAX_COMPRESSION_NAME + 8


class Malformed(ValueError):
    """Bytes that cannot be the record they should be."""


@dataclass(frozen=True)
class Channel:
    """A topic's messages in one file. encoding: how messages are serialized; ROS 2 writes cdr."""

    id: int
    schema: int
    topic: str
    encoding: str


@dataclass(frozen=True)
class ChunkHead:
    """A chunk record without its content. data: offset of the stored bytes in the file; end: of the next record."""

    start_ns: int
    end_ns: int
    size: int
    crc: int
    compression: str
    data: int
    stored: int
    end: int


class Fields:
    """Reads the fields of one record's body in order; Malformed when it is too short."""

    def __init__(self, body: bytes):
        self._body, self._at = body, 0

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        part = self._body[self._at : self._at + size]
        if len(part) != size:
            raise Malformed(f"{len(part)} of {size} bytes")
        self._at += size
        return part

    def text(self) -> str:
        """A name: printable, at most MAX_NAME bytes."""
        size = self.number(4)
        if size > MAX_NAME:
            raise Malformed(f"a name of {size} bytes")
        try:
            text = self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("text that is not UTF-8") from None
        if not text.isprintable():
            raise Malformed("a name with control characters")
        return text


def read_channel(body: bytes) -> Channel:
    fields = Fields(body)
    return Channel(fields.number(2), fields.number(2), fields.text(), fields.text())


def read_schema(body: bytes) -> tuple[int, str]:
    """(id, type name)."""
    fields = Fields(body)
    return fields.number(2), fields.text()


def read_message_index(body: bytes) -> tuple[int, list[int]]:
    """(channel, log times of its messages in the chunk)."""
    fields = Fields(body)
    channel, length = fields.number(2), fields.number(4)
    entries = fields.take(length)
    if length % 16:
        raise Malformed(f"an index of {length} bytes")
    return channel, [time for time, _ in struct.iter_unpack("<QQ", entries)]


def read_statistics(body: bytes) -> tuple[int, int, dict[int, int]]:
    """(messages, chunks, channel -> messages)."""
    fields = Fields(body)
    messages = fields.number(8)
    fields.take(2 + 4 + 4 + 4)
    chunks = fields.number(4)
    fields.take(16)
    counts = fields.take(fields.number(4))
    if len(counts) % 10:
        raise Malformed("statistics")
    return messages, chunks, dict(struct.iter_unpack("<HQ", counts))


def read_chunk_head(peek: bytes, at: int, size: int) -> ChunkHead | None:
    """The head of a chunk record at `at` of a file of `size` bytes, from its first CHUNK_PEEK bytes; None: it is none.

    The record's length and the length of its content agree only in a chunk, so damaged bytes are not taken for one.
    """
    if len(peek) < HEAD.size + CHUNK_HEAD.size + 8 or peek[0] != CHUNK:
        return None
    length = HEAD.unpack_from(peek)[1]
    start, end, uncompressed, crc, name = CHUNK_HEAD.unpack_from(peek, HEAD.size)
    body = HEAD.size + CHUNK_HEAD.size
    if name > MAX_COMPRESSION_NAME or len(peek) < body + name + 8:
        return None
    stored = int.from_bytes(peek[body + name : body + name + 8], "little")
    if stored + CHUNK_HEAD.size + name + 8 != length or at + HEAD.size + length > size:
        return None
    try:
        compression = peek[body : body + name].decode("ascii")
    except UnicodeDecodeError:
        return None
    return ChunkHead(start, end, uncompressed, crc, compression, at + body + name + 8, stored, at + HEAD.size + length)


def records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(opcode, begin, end) of the body of every record in `data`. Malformed where one does not fit."""
    at, size, head = 0, len(data), HEAD.size
    unpack = HEAD.unpack_from
    while at < size:
        if at + head > size:
            raise Malformed(f"{size - at} bytes at the end")
        op, length = unpack(data, at)
        begin, at = at + head, at + head + length
        if at > size or not op:
            raise Malformed(f"a record of {length} bytes, opcode {op}, with {size - begin} bytes left")
        yield op, begin, at
