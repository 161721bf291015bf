"""BagReader: the messages of a rosbag2 recording in order of log time, and what is wrong with it.

Reads MCAP and sqlite3 bags, a folder or a bare file, split and compressed as rosbag2 does it. Every whole chunk of a cut or
damaged bag is read, every loss is a finding. Memory does not grow with the messages' sizes.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .chunk_codec import expand_file
from .findings import BagError, Finding, Findings
from .mcap_file import McapFile
from .mcap_records import MAGIC as MCAP_MAGIC
from .metadata import NAME as METADATA
from .metadata import Metadata, disagreements, read_metadata
from .source import BagMessage, merged
from .sqlite_file import MAGIC as SQLITE_MAGIC
from .sqlite_file import SqliteFile

__all__ = ["BagError", "BagMessage", "BagReader", "Finding", "TopicInfo"]
SUFFIXES = {".mcap": McapFile, ".db3": SqliteFile}


@dataclass(frozen=True)
class TopicInfo:
    """type: as in "sensor_msgs/msg/Image". count: messages that are in the bag's files, damaged ones included."""

    type: str
    count: int


class BagReader:
    """A bag, to be used as a context manager; iterating gives its messages and may be repeated.

    topics: of those asked for, what is in the bag. start_ns, end_ns: first and last log time, None for an empty bag.
    findings: of opening and of the last iteration; complete when that has run to its end.
    Raises BagError when there is nothing that can be read.
    """

    def __init__(self, path: str | Path, topics: Collection[str] | None = None):
        self.path = Path(path)
        self._wanted = None if topics is None else frozenset(topics)
        self._stack = ExitStack()
        self._opened, self._read = Findings(), Findings()
        self.files: list[McapFile | SqliteFile] = []
        self.topics: Mapping[str, TopicInfo] = {}
        self.metadata: Metadata | None = None
        self.start_ns: int | None = None
        self.end_ns: int | None = None

    def __enter__(self) -> BagReader:
        try:
            for file in self._files():
                self._open(file)
            self._summarize()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self.files = []

    def __iter__(self) -> Iterator[BagMessage]:
        self._read = Findings()
        sources, newest = [], 0
        for file in self.files:
            more, newest = file.sources(self._read, newest)
            sources += more
        last, late = 0, 0
        for message in merged(sources, self._wanted):
            if message.log_time_ns < last:
                late += 1  # only when a chunk's head and index both lie about its times
            else:
                last = message.log_time_ns
            yield message
        if late:
            self._read.add("F80", f"{late} messages came out of order: their chunk is said to begin later", late)

    @property
    def findings(self) -> list[Finding]:
        """By fault id."""
        return sorted([*self._opened.listed(), *self._read.listed()], key=lambda f: f.fault)

    @property
    def verified(self) -> bool:
        """Every message is protected by a CRC that was checked."""
        return all(file.checked for file in self.files)

    def describe_files(self) -> list[dict[str, object]]:
        """Name, storage, compression, bytes, chunks, messages and whether a CRC protects them, of each file."""
        return [
            {"name": f.name, "storage": f.storage, "compression": "+".join(f.compressions) or "none", "bytes": f.bytes,
             "chunks": f.chunks, "messages": f.listed, "crc": f.checked}
            for f in self.files
        ]  # fmt: skip

    def _files(self) -> list[Path]:
        """The bag's files in order."""
        if not self.path.exists():
            raise BagError("F79", f"bag {self.path}", expected="a rosbag2 folder or file", found="no such file")
        if self.path.is_file():
            if self.path.stat().st_size and _kind(self.path) is None:
                raise BagError("F79", f"bag {self.path}", expected="an .mcap or .db3 file", found="a file of another kind")
            return [self.path]
        there = {p.name: p for p in self.path.iterdir() if p.is_file() and _kind(p) is not None}
        self.metadata = read_metadata(self.path)
        named = [there.pop(name) for name in self.metadata.files if name in there]
        self._check_names(named, list(there))
        found = [*named, *sorted(there.values(), key=_in_order)]
        if not found:
            inside = sorted(p.name for p in self.path.iterdir() if (p / METADATA).is_file())
            hint = f"It holds {len(inside)} recording(s), give one: {', '.join(inside[:5])}" if inside else None
            raise BagError(
                "F79", f"bag {self.path.name}", expected="an .mcap or .db3 file in the folder", found="none", hint=hint
            )
        return found

    def _check_names(self, named: list[Path], extra: list[str]) -> None:
        """F78: no metadata.yaml, or one that names other files."""
        said = self.metadata
        if said.problem:
            self._opened.add("F78", f"{METADATA} is {said.problem}; topics and counts are from the files")
            return
        missing = [name for name in said.files if name not in {p.name for p in named}]
        for name in missing:
            self._opened.add("F76", f"{ascii(name)[:120]} is named in {METADATA} and is not there")
        for name in extra:
            self._opened.add("F78", f"{METADATA} does not name {name}, which is read as well")

    def _open(self, path: Path) -> None:
        kind = _kind(path)
        if path.suffix == ".zstd":  # rosbag2's compression mode "file"
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="flashrt-bag-")))
            target = folder / path.stem
            if not expand_file(path, target):
                self._opened.add("F76", f"{path.name}: the compressed file is cut or damaged; read up to there")
            path = target
        if not path.stat().st_size:
            self._opened.add("F76", f"{path.name}: empty file")
            return
        file = kind(path, self._opened)
        self._stack.callback(file.close)
        self.files.append(file)

    def _summarize(self) -> None:
        counts: Counter[str] = Counter()
        types: dict[str, str] = {}
        for file in self.files:
            for topic, type_name in file.types.items():
                if types.setdefault(topic, type_name) != type_name:
                    self._opened.add("F79", f"{topic} is {types[topic]} and, in {file.name}, {type_name}")
                counts[topic] += file.counts.get(topic, 0)
            for topic, encoding in file.not_cdr.items():
                self._opened.add("F79", f"{topic}: messages are {ascii(encoding)[:40]}, not CDR, and are left out")
            announced = file.announced
            if announced is not None and announced > file.listed:
                lost = announced - file.listed
                self._opened.add("F77", f"{file.name}: {announced} messages announced, {file.listed} found", lost)
            if not file.checked:
                why = "sqlite3 has no checksums" if file.storage == "sqlite3" else "it was written without CRC"
                self._opened.add("F81", f"{file.name}: unverified, {why}", file.listed)
        if not self.files or not (types or any(f.bytes for f in self.files if f.storage == "mcap" and f.chunks)):
            self._refuse_empty()
        if self.metadata is not None and not self.metadata.problem:
            self._compare(counts, types)
        self.topics = {
            t: TopicInfo(types[t], counts[t]) for t in sorted(types) if self._wanted is None or t in self._wanted
        }
        starts = [f.start_ns for f in self.files if f.start_ns is not None]
        ends = [f.end_ns for f in self.files if f.end_ns is not None]
        self.start_ns, self.end_ns = min(starts, default=None), max(ends, default=None)

    def _compare(self, counts: Mapping[str, int], types: Mapping[str, str]) -> None:
        """F78 where metadata.yaml is wrong; in a bag with losses it says how many messages there were."""
        said, total = self.metadata.messages, sum(counts.values())
        losses = [f for f in self._opened.listed() if f.is_loss]
        if losses and said is not None and said > total:
            known = sum(f.count for f in losses)
            text = f"{METADATA} announces {said} messages, {total} are there"
            self._opened.add(losses[0].fault, text, max(0, said - total - known))
            return
        for text in disagreements(self.metadata, counts, types):
            self._opened.add("F78", f"{METADATA}: {text}")

    def _refuse_empty(self) -> None:
        """Nothing was found. A whole bag without messages is fine, a damaged one without any is not."""
        found = [f for f in self._opened.listed() if f.is_loss]
        if found:
            raise BagError(
                found[0].fault, f"bag {self.path.name}", expected="at least one whole chunk", found=found[0].text
            )


def _kind(path: Path) -> type[McapFile | SqliteFile] | None:
    """By suffix, else by the first bytes."""
    stem = path.with_suffix("") if path.suffix == ".zstd" else path
    if stem.suffix in SUFFIXES:
        return SUFFIXES[stem.suffix]
    with path.open("rb") as file:
        head = file.read(16)
    return McapFile if head.startswith(MCAP_MAGIC) else SqliteFile if head == SQLITE_MAGIC else None


def _in_order(path: Path) -> list[object]:
    """Sort key that reads numbers as numbers: _2 before _10."""
    return [(0, int(t), "") if t.isdigit() else (1, 0, t) for t in re.split(r"(\d+)", path.name)]
