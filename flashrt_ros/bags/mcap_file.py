"""McapFile: one MCAP file as sources of messages, each chunk decompressed and checked against its CRC when it is needed."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from . import mcap_records as m
from .chunk_codec import MAX_CHUNK, check_crc, decompress, expand_message
from .findings import Findings
from .mcap_index import McapWalk, Part
from .mcap_records import Malformed
from .source import BagMessage

CACHE_BYTES = 256 << 20  # decompressed chunks kept while they overlap in time
Row = tuple[int, int, int, int]  # log time, channel, begin and end of the data in the chunk


class ChunkCache:
    """Decompressed chunks, the least recently used given up beyond CACHE_BYTES."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, key: int) -> bytes | None:
        data = self._chunks.get(key)
        if data is not None and len(self._chunks) > 1:
            self._chunks.move_to_end(key)
        return data

    def put(self, key: int, data: bytes) -> None:
        self._chunks[key] = data
        self._bytes += len(data)
        while self._bytes > CACHE_BYTES and len(self._chunks) > 1:
            self._bytes -= len(self._chunks.popitem(last=False)[1])

    def drop(self, key: int) -> None:
        self._bytes -= len(self._chunks.pop(key, b""))


class McapFile:
    """An open MCAP file. Opening walks the file and reads no message data unless an index is missing.

    counts: messages per topic, types: topic -> type. announced: messages by the file's own statistics, None without.
    storage, compressions, checked: for tables; checked: every chunk has a CRC.
    """

    storage = "mcap"

    def __init__(self, path: Path, findings: Findings):
        self.name = path.name
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.bytes = os.fstat(self._fd).st_size
            self._index = McapWalk(self._fd, path, findings).run()
            self._cache = ChunkCache()
            self._broken: set[int] = set()
            self._complete(findings)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        os.close(self._fd)

    def _complete(self, findings: Findings) -> None:
        """Fill in what indexes did not say, then the table of topics."""
        for part in self._index.parts:
            if part.counts is None:
                self._count(part)
        self._find_channels()
        self.types: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        for part in self._index.parts:
            for channel, count in (part.counts or {}).items():
                topic = self._topics.get(channel)
                if topic is not None:
                    self.types.setdefault(*topic)
                    self.counts[topic[0]] += count
        for channel in {**self._index.summary_channels, **self._index.channels}.values():
            if channel.id in self._topics:  # topics without messages
                self.types.setdefault(*self._topics[channel.id])
        self.compressions = sorted({p.compression or "none" for p in self._index.parts if not p.loose})
        self.chunks = sum(not p.loose for p in self._index.parts)
        self.checked = all(p.crc for p in self._index.parts)
        self.announced = self._index.announced
        self.listed = sum(sum((p.counts or {}).values()) for p in self._index.parts)
        times = [p for p in self._index.parts if p.counts]
        self.start_ns = min((p.start_ns for p in times), default=None)
        self.end_ns = max((p.end_ns for p in times), default=None)
        if self._index.cut and not self._index.damaged:
            findings.add("F76", f"{self.name}: ends without its closing records; nothing before is missing")

    def _count(self, part: Part) -> None:
        """Counts and times of a chunk without index, from its messages; a damaged one is noted when it is read."""
        rows, _ = self.load(part)
        part.counts = dict(Counter(row[1] for row in rows))
        if rows:
            part.start_ns, part.end_ns = min(r[0] for r in rows), max(r[0] for r in rows)
        self._cache.drop(part.number)

    def _find_channels(self) -> None:
        """Topic and type by channel: from the chunk of a channel's first message, which a CRC can protect, else from
        the summary."""
        wanted = {c for part in self._index.parts for c in (part.counts or {})}
        for part in self._index.parts:
            if part.loose or not (set(part.counts or ()) & (wanted - set(self._index.channels))):
                continue
            self.load(part)
            self._cache.drop(part.number)
            wanted -= set(part.counts)  # whether found or not: a channel stands before its first message
        schemas = {**self._index.summary_schemas, **self._index.schemas}
        self._topics: dict[int, tuple[str, str]] = {}
        self._encodings: dict[str, str] = {}
        for channel in {**self._index.summary_channels, **self._index.channels}.values():
            self._encodings.setdefault(channel.topic, channel.encoding)
            if channel.encoding == "cdr":
                self._topics[channel.id] = channel.topic, schemas.get(channel.schema, "")

    @property
    def not_cdr(self) -> dict[str, str]:
        """Topics that cannot be read here -> their encoding."""
        return {topic: encoding for topic, encoding in self._encodings.items() if encoding != "cdr"}

    def sources(self, findings: Findings, newest_ns: int) -> tuple[Sequence[McapSource], int]:
        """One source for each chunk with messages. newest_ns: latest log time of the files before; returned with the
        latest of this one added."""
        out = []
        for part in self._index.parts:
            if part.counts or part.counts is None or part.number in self._broken:
                out.append(McapSource(self, part, findings, newest_ns))
                newest_ns = max(newest_ns, part.end_ns)
        return out, newest_ns

    def topic(self, channel: int) -> tuple[str, str] | None:
        """(topic, type), None for a channel that is not known or not CDR."""
        return self._topics.get(channel)

    def knows(self, channel: int) -> bool:
        return channel in self._topics or channel in self._index.channels or channel in self._index.summary_channels

    def load(self, part: Part) -> tuple[list[Row], str]:
        """(rows in file order, what is wrong or ""). The chunk stays in the cache; its channels are taken in."""
        rows: list[Row] = []
        try:
            data = self._bytes_of(part, check=True)
            unpack = m.MESSAGE_HEAD.unpack_from
            for op, begin, end in m.records(data):
                if op == m.MESSAGE:
                    if end - begin < m.MESSAGE_HEAD.size:
                        raise Malformed(f"a message of {end - begin} bytes")
                    channel, _, time, _ = unpack(data, begin)
                    rows.append((time, channel, begin + m.MESSAGE_HEAD.size, end))
                elif op == m.CHANNEL:
                    found = m.read_channel(data[begin:end])
                    self._index.channels.setdefault(found.id, found)
                elif op == m.SCHEMA:
                    self._index.schemas.setdefault(*m.read_schema(data[begin:end]))
        except Malformed as error:
            self._broken.add(part.number)
            return rows, str(error)
        return rows, ""

    def _bytes_of(self, part: Part, check: bool = False) -> bytes:
        data = self._cache.get(part.number)
        if data is None:
            if part.stored > MAX_CHUNK:
                raise Malformed(f"{part.stored} bytes, at most {MAX_CHUNK}")
            stored = os.pread(self._fd, part.stored, part.at)
            data = decompress(stored, part.compression, part.size)
            if check:
                check_crc(data, part.crc)
            self._cache.put(part.number, data)
        return data

    def message(self, part: Part, row: Row) -> BagMessage:
        """The message of a row that `load` gave."""
        topic, kind = self._topics[row[1]]
        return BagMessage(topic, kind, row[0], expand_message(self._bytes_of(part)[row[2] : row[3]]))

    def release(self, part: Part) -> None:
        self._cache.drop(part.number)


class McapSource:
    """The messages of one chunk; what is lost, out of order or without checksum is noted when it is read."""

    def __init__(self, file: McapFile, part: Part, findings: Findings, newest_ns: int):
        self.start_ns = part.start_ns
        self._file, self._part, self._findings, self._newest = file, part, findings, newest_ns

    def rows(self, topics: Collection[str] | None) -> Iterator[tuple[int, Row]]:
        file, part = self._file, self._part
        rows, wrong = file.load(part)
        self._judge(rows, wrong)
        rows.sort(key=_time)
        for row in rows:
            topic = file.topic(row[1])
            if topic is not None and (topics is None or topic[0] in topics):
                yield row[0], row
        file.release(part)

    def _judge(self, rows: list[Row], wrong: str) -> None:
        file, part = self._file, self._part
        where = f"{file.name}: messages at byte {part.at}" if part.loose else f"{file.name}: chunk {part.number}"
        indexed = sum((part.counts or {}).values())
        if wrong:
            lost = max(0, indexed - len(rows))
            self._findings.add("F77", f"{where}: {wrong}, {lost or 'all its'} messages lost", lost)
        elif indexed != len(rows):
            self._findings.add("F77", f"{where}: {len(rows)} messages, {indexed} by its index")
        unknown = sum(not file.knows(row[1]) for row in rows)
        if unknown:
            self._findings.add("F77", f"{where}: {unknown} messages of a channel that is not described", unknown)
        newest, back, step = self._newest, 0, 0
        for row in rows:
            if row[0] < newest:
                back, step = back + 1, max(step, newest - row[0])
            else:
                newest = row[0]
        if back:
            self._findings.add_back(file.name, back, step)

    def message(self, key: Row) -> BagMessage | None:
        try:
            return self._file.message(self._part, key)
        except Malformed as error:  # a single message that is compressed by itself
            self._findings.add("F77", f"{self._file.name}: message of {self._file.topic(key[1])[0]}: {error}", 1)
            return None


def _time(row: Row) -> int:
    return row[0]
