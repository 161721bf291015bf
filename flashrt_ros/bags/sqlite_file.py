"""SqliteFile: one rosbag2 database file as a source of messages; rows that a damaged page hides are counted."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from shutil import disk_usage
from urllib.parse import quote

from .chunk_codec import BLOCK, MAX_CHUNK, expand_message
from .findings import BagError, Findings
from .mcap_records import Malformed
from .source import BagMessage

MAGIC = b"SQLite format 3\0"
Row = tuple[int, int, int]  # log time, row number, topic number
# What reading a damaged page raises; a length in it may be any number.
DAMAGE = (sqlite3.Error, OverflowError, MemoryError)
TEXT_LIMIT = 4096  # characters of a topic name or type


class SqliteFile:
    """An open rosbag2 database (tables `topics` and `messages`, all schema versions). Attributes as McapFile's."""

    storage = "sqlite3"
    compressions = ["none"]
    chunks = 0
    checked = False
    announced = None
    not_cdr: dict[str, str] = {}

    def __init__(self, path: Path, findings: Findings):
        self.name, self.bytes = path.name, path.stat().st_size
        self._closing = ExitStack()
        try:
            readable = self._whole_pages(path, self._check_size(path, findings))
            # immutable: nothing is locked and no file is made beside the bag
            self._db = sqlite3.connect(f"file:{quote(str(readable.absolute()))}?immutable=1&mode=ro", uri=True)
            self._closing.callback(self._db.close)
            if hasattr(self._db, "setlimit"):  # Python 3.11
                self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CHUNK)
            self._open(findings)
        except BaseException:
            self._closing.close()
            raise

    def _open(self, findings: Findings) -> None:
        try:
            self._db.execute("PRAGMA trusted_schema=0")
            # else sqlite opens no file that is shorter than its header says; nothing is written, the file is immutable
            self._db.execute("PRAGMA writable_schema=1")
            topics = self._db.execute("SELECT id, name, type FROM topics").fetchall()
            format_of = dict(self._db.execute("SELECT name, serialization_format FROM topics").fetchall())
        except DAMAGE as error:
            raise BagError("F77", f"bag file {self.name}", expected="a rosbag2 database with its topics",
                           found=str(error)[:120]) from None  # fmt: skip
        good = [t for t in topics if _is_topic(*t)]
        if len(good) < len(topics):
            findings.add("F77", f"{self.name}: {len(topics) - len(good)} topics are unreadable")
        self.not_cdr = {t: f for _, t, _ in good if (f := format_of.get(t)) not in ("cdr", None)}
        self._topics = {number: (topic, kind) for number, topic, kind in good if topic not in self.not_cdr}
        self.foreign = {number for number, topic, _ in good if topic in self.not_cdr}
        self.types = dict(self._topics.values())
        self.counts: Counter[str] = Counter({topic: 0 for topic in self.types})
        self._salvaged: list[Row] | None = None
        self.start_ns = self.end_ns = None
        self._back = self._step = 0
        try:
            self._survey(self._db.execute("SELECT topic_id, timestamp FROM messages ORDER BY id"))
        except DAMAGE as error:
            self._salvage(findings, str(error))
        self.listed = sum(self.counts.values())

    def _check_size(self, path: Path, findings: Findings) -> int:
        """The size of a page. F76 when the file is shorter than its header says, or a journal holds what is not in it."""
        with path.open("rb") as file:
            head = file.read(100)
        # https://www.sqlite.org/fileformat.html, 1.3: page size at 16 (1 means 65536), pages at 28
        if len(head) < 100 or head[: len(MAGIC)] != MAGIC:
            raise BagError("F77", f"bag file {self.name}", expected="an sqlite3 database", found="another beginning")
        page = int.from_bytes(head[16:18], "big")
        page = 65536 if page == 1 else page
        want = page * int.from_bytes(head[28:32], "big")
        if self.bytes < want:
            findings.add("F76", f"{self.name}: cut, {want - self.bytes} of {want} bytes are missing")
        journal = path.with_name(path.name + "-wal")
        if journal.is_file() and journal.stat().st_size:
            findings.add(
                "F76", f"{self.name}: {journal.stat().st_size} bytes in {journal.name} were never merged into it"
            )

        return page

    def _whole_pages(self, path: Path, page: int) -> Path:
        """The file, or a temporary copy without its last page when that is cut: sqlite would read the rest as zeros."""
        size = self.bytes - self.bytes % max(page, 1)
        if size == self.bytes:
            return path
        if size > disk_usage(tempfile.gettempdir()).free // 2:
            raise BagError("F76", f"bag file {self.name}", expected=f"room for a copy of {size} bytes", found="less")
        copy = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="flashrt-bag-"))) / path.name
        with path.open("rb") as source, copy.open("wb") as target:
            while block := source.read(min(size, BLOCK)):
                size -= target.write(block)
        return copy

    def _survey(self, rows: Iterator[tuple[object, object]]) -> None:
        """Counts, first and last time, and steps back, from (topic, time) in the order of recording."""
        counts: Counter[object] = Counter()
        low, high = None, None
        for topic, time in rows:
            if topic not in self._topics or not isinstance(time, int):
                continue  # noted when it is read
            counts[topic] += 1
            if high is None or time >= high:
                high = time
            else:
                self._back, self._step = self._back + 1, max(self._step, high - time)
            low = time if low is None or time < low else low
        for topic, count in counts.items():
            self.counts[self._topics[topic][0]] += count
        self.start_ns, self.end_ns = low, high

    def _salvage(self, findings: Findings, reason: str) -> None:
        """Look up every row by its number: what a damaged page holds is lost, the rest is not."""
        self.counts = Counter({topic: 0 for topic in self.types})
        self._back = self._step = 0
        last, known = self._last_row()
        rows: list[Row] = []
        lost = 0
        for number in range(1, last + 1):
            try:
                row = self._db.execute("SELECT topic_id, timestamp FROM messages WHERE id = ?", (number,)).fetchone()
            except DAMAGE:
                row = None
            if row is None or not isinstance(row[1], int):
                lost += 1
                continue
            rows.append((row[1], number, row[0]))
        self._survey((topic, time) for time, _, topic in rows)
        self._salvaged = rows
        text = f"{self.name}: {reason[:80]}; {len(rows)} messages read one by one"
        findings.add("F77", text if known else f"{text}, how many there were is not known", lost if known else 0)

    def _last_row(self) -> tuple[int, bool]:
        """(highest row number, whether it could be read). Unreadable: as many as could ever fit the file."""
        try:
            last = self._db.execute("SELECT max(id) FROM messages").fetchone()[0]
            if isinstance(last, int) and 0 <= last <= self.bytes // 8:
                return last, True
        except DAMAGE:
            pass
        return min(self.bytes // 8, 1_000_000), False

    def close(self) -> None:
        self._closing.close()

    def sources(self, findings: Findings, newest_ns: int) -> tuple[Sequence[SqliteSource], int]:
        """The file as one source; newest_ns as in McapFile."""
        if self._back:
            findings.add_back(self.name, self._back, self._step)
        if self.start_ns is None:
            return [], newest_ns
        if self.start_ns < newest_ns:
            step = (newest_ns - self.start_ns) / 1e9
            findings.add("F80", f"{self.name}: begins {step:.6g} s before the end of the file before it", 1)
        return [SqliteSource(self, findings)], max(newest_ns, self.end_ns)

    def ordered(self) -> Iterator[tuple[int, int, int]]:
        """(time, row number, topic number) by time. sqlite3.Error where a page is damaged."""
        if self._salvaged is not None:
            yield from sorted(self._salvaged)
        else:
            yield from self._db.execute("SELECT timestamp, id, topic_id FROM messages ORDER BY timestamp, id")

    def data(self, number: int) -> object:
        """The data of a row; sqlite3.Error where its page is damaged."""
        return (self._db.execute("SELECT data FROM messages WHERE id = ?", (number,)).fetchone() or (None,))[0]

    def topic(self, number: object) -> tuple[str, str] | None:
        return self._topics.get(number)


class SqliteSource:
    """The messages of one database file."""

    def __init__(self, file: SqliteFile, findings: Findings):
        self.start_ns = file.start_ns
        self._file, self._findings = file, findings

    def rows(self, topics: Collection[str] | None) -> Iterator[tuple[int, Row]]:
        given = 0
        try:
            for row in self._file.ordered():
                topic = self._file.topic(row[2])
                if not (isinstance(row[0], int) and isinstance(row[1], int)):
                    self._lost("a message without a time", 1)
                elif topic is None:
                    self._unknown(row[2])
                else:
                    given += 1
                    if topics is None or topic[0] in topics:
                        yield row[0], row
        except DAMAGE as error:
            self._lost(str(error)[:80], max(0, self._file.listed - given))

    def message(self, key: Row) -> BagMessage | None:
        try:
            data = self._file.data(key[1])
            if not isinstance(data, bytes):
                raise Malformed(f"{type(data).__name__} in the place of data")
            data = expand_message(data)
        except (*DAMAGE, Malformed) as error:
            self._lost(f"message {key[1]}: {str(error)[:80]}", 1)
            return None
        return BagMessage(*self._file.topic(key[2]), key[0], data)

    def _unknown(self, number: object) -> None:
        if number not in self._file.foreign:
            self._lost("a message of a topic that is not described", 1)

    def _lost(self, reason: str, count: int) -> None:
        self._findings.add("F77", f"{self._file.name}: {reason}", count)


def _is_topic(number: object, name: object, kind: object) -> bool:
    texts = all(isinstance(t, str) and 0 < len(t) <= TEXT_LIMIT and t.isprintable() for t in (name, kind))
    return isinstance(number, int) and texts
