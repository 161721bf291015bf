"""Small bags for tests: written by two independent libraries, with the offsets of their chunks for damage on purpose."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from flashrt_ros.bags.bag import typestore

STRING = "std_msgs/msg/String"
STORE = typestore()
START_NS = 1_700_000_000_000_000_000
PERIOD_NS = 50_000_000


def cdr_text(text: str) -> bytes:
    """A std_msgs/String as CDR."""
    return bytes(STORE.serialize_cdr(STORE.types[STRING](data=text), STRING))


@dataclass(frozen=True)
class Row:
    """What a test put into a bag and wants back."""

    topic: str
    at_ns: int
    data: bytes


def rows(count: int = 40, topics: tuple[str, ...] = ("/a", "/b"), seed: int = 0) -> list[Row]:
    """`count` text messages, in time order, of different sizes."""
    rng = np.random.default_rng(seed)
    texts = [f"{i} " + "x" * int(rng.integers(0, 60)) for i in range(count)]
    return [Row(topics[i % len(topics)], START_NS + i * PERIOD_NS, cdr_text(t)) for i, t in enumerate(texts)]


def write_mcap(
    path: Path, messages: list[Row], *, compression: str = "zstd", crc: bool = True, chunk: int = 400,
    chunked: bool = True, summary: bool = True,
) -> Path:  # fmt: skip
    """An MCAP file by the format's own library, as rosbag2 lays it out."""
    kinds = {"zstd": CompressionType.ZSTD, "lz4": CompressionType.LZ4, "": CompressionType.NONE}
    with path.open("wb") as file:
        writer = Writer(
            file, chunk_size=chunk, compression=kinds[compression], enable_crcs=crc, use_chunking=chunked,
            repeat_channels=summary, repeat_schemas=summary, use_statistics=summary,
        )  # fmt: skip
        writer.start(profile="ros2", library="test")
        schema = writer.register_schema(STRING, "ros2msg", b"string data\n")
        channels = {}
        for i, row in enumerate(messages):
            if row.topic not in channels:
                channels[row.topic] = writer.register_channel(row.topic, "cdr", schema)
            writer.add_message(channels[row.topic], row.at_ns, row.data, row.at_ns, i)
        writer.finish()
    return path


def write_db3(path: Path, messages: list[Row], page: int = 512) -> Path:
    """A rosbag2 database with the tables of its third schema version."""
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA page_size={page}")
    db.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,"
        " serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,"
        " data BLOB NOT NULL);"
        "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
    )
    names = list(dict.fromkeys(r.topic for r in messages))
    for i, name in enumerate(names, 1):
        db.execute("INSERT INTO topics VALUES (?, ?, ?, 'cdr', '')", (i, name, STRING))
    for r in messages:
        values = names.index(r.topic) + 1, r.at_ns, r.data
        db.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", values)
    db.commit()
    db.close()
    return path


@dataclass(frozen=True)
class ChunkPlace:
    """Where a chunk record lies in a file and how many messages are in it."""

    begin: int
    end: int
    messages: int


def chunks_of(path: Path) -> list[ChunkPlace]:
    """The chunks of an undamaged file, by the format's own library."""
    with path.open("rb") as file:
        reader = make_reader(file)
        times = [message.log_time for _, _, message in reader.iter_messages()]
        return [
            ChunkPlace(
                c.chunk_start_offset, c.chunk_start_offset + c.chunk_length,
                sum(c.message_start_time <= t <= c.message_end_time for t in times),
            )
            for c in reader.get_summary().chunk_indexes
        ]  # fmt: skip
