"""Small bags for tests: written by two independent libraries, with the offsets of their chunks for damage on purpose."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mcap.reader import make_reader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import StoragePlugin, Writer

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
        writer = McapWriter(
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


@dataclass(frozen=True)
class RobotBag:
    """A recording of a robot and what is in it. frames: (task, state float64, action float64, images, command's time)."""

    path: Path
    frames: list[tuple[str, np.ndarray, np.ndarray, list[np.ndarray], int]]


def scene(rng: np.random.Generator, size: int, shift: int) -> np.ndarray:
    """uint8 [size, size, 3]: smooth, as a camera's picture is, with a square that moves."""
    ramp = np.linspace(0, 200, size)
    picture = np.stack(
        [ramp[None, :] + 0 * ramp[:, None], ramp[:, None] + 0 * ramp[None, :], np.full((size, size), 90.0)], -1
    )
    picture[20:40, shift % (size - 30) : shift % (size - 30) + 20] = (220, 40, 30)
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def header(ns: int):
    """A std_msgs/Header."""
    stamp = STORE.types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=stamp, frame_id="x")


def robot_messages(robot, frame: int, at_ns: int, rng: np.random.Generator, size: int):
    """((topic, type, time, CDR) ..., state, action, images) of one control period of a robot of position joints."""
    out, images = [], []

    def put(topic, kind, ns, **fields):
        out.append((topic, kind, ns, bytes(STORE.serialize_cdr(STORE.types[kind](**fields), kind))))

    for i, camera in enumerate(robot.cameras):
        picture = scene(rng, size, 3 * frame + 10 * i)
        images.append(picture)
        ns = at_ns - 9_000_000 + 1_000_003 * i
        put(f"/{camera.topic}", "sensor_msgs/msg/Image", ns, header=header(ns - 12_345_678), height=size, width=size,
            encoding="rgb8", is_bigendian=0, step=3 * size, data=picture.reshape(-1))  # fmt: skip
    state = rng.uniform([d.lower for d in robot.state], [d.upper for d in robot.state])
    readings = [(v - d.offset) / d.scale for v, d in zip(state, robot.state, strict=True)]
    empty, ns = np.empty(0), at_ns - 2_000_000
    put("/joint_states", "sensor_msgs/msg/JointState", ns, header=header(ns), name=[d.source for d in robot.state],
        position=np.array(readings), velocity=empty, effort=empty)  # fmt: skip
    action = rng.uniform([d.lower for d in robot.actions], [d.upper for d in robot.actions])
    layout = STORE.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    put(f"/{robot.topics.forward}", "std_msgs/msg/Float64MultiArray", at_ns, layout=layout, data=action)
    return out, state, action, images


def robot_bag(path: Path, robot, lengths: tuple[int, ...] = (14, 9), size: int = 112, seed: int = 0) -> RobotBag:
    """A bag of episodes, each begun by a prompt, by the rosbags library."""
    rng, frames, now = np.random.default_rng(seed), [], START_NS
    period = round(1e9 / robot.control_hz)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    topics = {}
    with writer:
        for episode, length in enumerate(lengths):
            task = f"pick up block {episode}"
            messages = [("/policy_node/prompt", STRING, now - period, cdr_text(task))]
            for i in range(length):
                more, state, action, images = robot_messages(robot, i, now, rng, size)
                messages += more
                frames.append((task, state, action, images, now))
                now += period + int(rng.integers(-500_000, 500_000))
            for topic, kind, ns, data in messages:
                if topic not in topics:
                    topics[topic] = writer.add_connection(topic, kind, typestore=STORE)
                writer.write(topics[topic], ns, data)
            now += 3 * period
    return RobotBag(path, frames)
