"""Walks an MCAP file from its first byte to its last and lists the chunks in it, also when parts are cut off or damaged.

Nothing is taken from the file's own index: what is listed is what is there. Where bytes cannot be a record, the walk goes
on at the next chunk or message that can be told from damage.
"""

from __future__ import annotations

import os
import re
from binascii import crc32
from dataclasses import dataclass, field
from pathlib import Path

from . import mcap_records as m
from .findings import Findings
from .mcap_records import Channel, Malformed

MAX_RECORD = 64 << 20  # of schemas, channels and indexes, which are read whole
MAX_SUMMARY = 1 << 30
LOOSE_BYTES = 1 << 20  # messages outside of chunks are read together up to this size
SCAN_BLOCK = 1 << 20
# Where a chunk or a message of less than 4 GiB may begin.
CANDIDATES = {m.CHUNK: re.compile(rb"\x06(?=[\s\S]{4}\x00{4})"), m.MESSAGE: re.compile(rb"\x05(?=[\s\S]{4}\x00{4})")}
CHAIN = 4  # records in a row that make a message believable


@dataclass(slots=True)
class Part:
    """A chunk, or messages that stand together outside of chunks. counts: channel -> messages; None: not known yet.

    number: of the chunk in the file. at, stored: its bytes in the file. start_ns, end_ns: log times by head and index.
    """

    number: int
    at: int
    stored: int
    size: int
    crc: int
    compression: str
    start_ns: int
    end_ns: int
    loose: bool = False
    counts: dict[int, int] | None = None


@dataclass
class McapIndex:
    """What the walk found. channels, schemas: outside of chunks; summary_*: the copies behind the data."""

    parts: list[Part] = field(default_factory=list)
    channels: dict[int, Channel] = field(default_factory=dict)
    schemas: dict[int, str] = field(default_factory=dict)
    summary_channels: dict[int, Channel] = field(default_factory=dict)
    summary_schemas: dict[int, str] = field(default_factory=dict)
    announced: int | None = None  # messages by the statistics record
    damaged: bool = False
    cut: bool = False


class McapWalk:
    """One walk over an open file."""

    def __init__(self, descriptor: int, path: Path, findings: Findings):
        self._fd, self._name, self._findings = descriptor, path.name, findings
        self._size = os.fstat(descriptor).st_size
        self.index = McapIndex()
        self._indexed: Part | None = None  # the chunk that message indexes now belong to
        self._in_summary = False

    def run(self) -> McapIndex:
        """The index; damage is noted as F76 and F77."""
        at = len(m.MAGIC)
        begin = self._read(0, at)
        if begin != m.MAGIC and not m.MAGIC.startswith(begin):
            self._note_damage("the file does not begin as MCAP does")
        while at < self._size:
            following = self._record(at)
            if following is None and self._is_end(at):
                return self.index
            at = following if following is not None else self._after_damage(at)
        self.index.cut = True
        return self.index

    def _read(self, at: int, count: int) -> bytes:
        return os.pread(self._fd, count, at) if at < self._size else b""

    def _note_damage(self, text: str) -> None:
        self.index.damaged = True
        self._findings.add("F77", f"{self._name}: {text}")

    def _is_end(self, at: int) -> bool:
        return self._size - at == len(m.MAGIC) and self._read(at, len(m.MAGIC)) == m.MAGIC

    def _record(self, at: int) -> int | None:
        """Take in the record at `at` and return where the next one begins; None: there is none here."""
        peek = self._read(at, m.CHUNK_PEEK)
        if len(peek) < m.HEAD.size:
            return None
        op, length = m.HEAD.unpack_from(peek)
        end = at + m.HEAD.size + length
        if not op or end > self._size:
            return None
        if op == m.CHUNK:
            return self._chunk(peek, at)
        if op == m.MESSAGE:
            return self._message(peek, at, length)
        if op != m.MESSAGE_INDEX:
            self._indexed = None
        if op in (m.SCHEMA, m.CHANNEL, m.MESSAGE_INDEX, m.STATISTICS, m.FOOTER):
            self._small(op, at, length)
        if op == m.DATA_END:
            self._in_summary = True
        return end

    def _chunk(self, peek: bytes, at: int) -> int | None:
        head = m.read_chunk_head(peek, at, self._size)
        if head is None:
            return None
        part = Part(len(self.index.parts), head.data, head.stored, head.size, head.crc, head.compression,
                    head.start_ns, head.end_ns)  # fmt: skip
        self.index.parts.append(part)
        self._indexed = part
        return head.end

    def _message(self, peek: bytes, at: int, length: int) -> int | None:
        if length < m.MESSAGE_HEAD.size or len(peek) < m.HEAD.size + m.MESSAGE_HEAD.size:
            return None
        channel, _, time, _ = m.MESSAGE_HEAD.unpack_from(peek, m.HEAD.size)
        end = at + m.HEAD.size + length
        part = self.index.parts[-1] if self.index.parts else None
        if part is None or not part.loose or part.at + part.stored != at or part.stored > LOOSE_BYTES:
            part = Part(len(self.index.parts), at, 0, 0, 0, "", time, time, loose=True, counts={})
            self.index.parts.append(part)
        part.stored = part.size = end - part.at
        part.start_ns, part.end_ns = min(part.start_ns, time), max(part.end_ns, time)
        part.counts[channel] = part.counts.get(channel, 0) + 1
        self._indexed = None
        return end

    def _small(self, op: int, at: int, length: int) -> None:
        """Schemas, channels, indexes, statistics and the footer; what is malformed is noted and left out."""
        try:
            if length > MAX_RECORD:
                raise Malformed(f"{length} bytes")
            body = self._read(at + m.HEAD.size, length)
            if op == m.MESSAGE_INDEX:
                self._message_index(*m.read_message_index(body))
            elif op == m.STATISTICS:
                self.index.announced = m.read_statistics(body)[0]
            elif op == m.FOOTER:
                self._footer(body, at)
            elif op == m.CHANNEL:
                channel = m.read_channel(body)
                (self.index.summary_channels if self._in_summary else self.index.channels)[channel.id] = channel
            else:
                number, name = m.read_schema(body)
                (self.index.summary_schemas if self._in_summary else self.index.schemas)[number] = name
        except Malformed as error:
            self._note_damage(f"record {op} at byte {at}: {error}")

    def _message_index(self, channel: int, times: list[int]) -> None:
        part = self._indexed
        if part is None or not times:
            return
        if part.counts is None:
            part.counts = {}
        part.counts[channel] = len(times)
        low, high = min(times), max(times)
        if low < part.start_ns or high > part.end_ns:  # neither has a checksum
            self._note_damage(f"chunk {part.number}: its head and its index give different times")
        part.start_ns, part.end_ns = min(part.start_ns, low), max(part.end_ns, high)

    def _footer(self, body: bytes, at: int) -> None:
        if len(body) != m.FOOTER_BODY.size:
            raise Malformed(f"a footer of {len(body)} bytes")
        start, _, crc = m.FOOTER_BODY.unpack(body)
        covered = at + m.HEAD.size + m.FOOTER_BODY.size - 4
        bounded = start <= at and covered - start <= MAX_SUMMARY
        if crc and start and not (bounded and crc32(self._read(start, covered - start)) == crc):
            self.index.summary_channels.clear()
            self.index.summary_schemas.clear()
            self.index.announced = None
            raise Malformed("CRC error in the summary, which is not used")

    def _after_damage(self, at: int) -> int:
        """Where to go on when no record begins at `at`; damage is noted."""
        self._indexed = None
        closed = self._read(self._size - len(m.MAGIC), len(m.MAGIC)) == m.MAGIC
        following = self._next(m.CHUNK, at + 1)
        if following is None and all(part.loose for part in self.index.parts):
            following = self._next(m.MESSAGE, at + 1)
        if following is None and closed:
            following = self._summary(at)
        if following is not None:
            self._note_damage(f"no record at byte {at}; {following - at} bytes passed over")
            return following
        if closed:
            self._note_damage(f"no record at byte {at}; the last {self._size - at} bytes are unreadable")
        else:
            self.index.damaged = True
            self._findings.add(
                "F76", f"{self._name}: cut inside a record at byte {at}; {self._size - at} bytes dropped"
            )
        return self._size

    def _summary(self, at: int) -> int | None:
        """Begin of the summary by the footer, when it lies behind `at`."""
        foot = self._size - len(m.MAGIC) - m.FOOTER_BODY.size - m.HEAD.size
        if foot <= at:
            return None
        body = self._read(foot, m.HEAD.size + m.FOOTER_BODY.size)
        if m.HEAD.unpack_from(body) != (m.FOOTER, m.FOOTER_BODY.size):
            return None
        start = m.FOOTER_BODY.unpack_from(body, m.HEAD.size)[0]
        self._in_summary = True
        return start if at < start < foot else foot

    def _next(self, op: int, start: int) -> int | None:
        """The first chunk, or believable run of messages, at or behind `start`."""
        at = start
        while at < self._size:
            block = self._read(at, SCAN_BLOCK + m.CHUNK_PEEK)
            for found in CANDIDATES[op].finditer(block):
                where = at + found.start()
                if found.start() < SCAN_BLOCK and self._believable(where):
                    return where
            at += SCAN_BLOCK
        return None

    def _believable(self, at: int) -> bool:
        peek = self._read(at, m.CHUNK_PEEK)
        if peek[0] == m.CHUNK:
            head = m.read_chunk_head(peek, at, self._size)
            return head is not None and head.compression in m.COMPRESSIONS
        known = {**self.index.channels, **self.index.summary_channels}
        for _ in range(CHAIN):
            if len(peek) < m.HEAD.size + 2:
                return False
            op, length = m.HEAD.unpack_from(peek)
            channel = int.from_bytes(peek[m.HEAD.size : m.HEAD.size + 2], "little")
            if op == m.DATA_END and length == 4:
                return True
            if op != m.MESSAGE or length < m.MESSAGE_HEAD.size or (known and channel not in known):
                return False
            at += m.HEAD.size + length
            peek = self._read(at, m.CHUNK_PEEK)
        return True
