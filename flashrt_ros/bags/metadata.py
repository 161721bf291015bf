"""metadata.yaml of a rosbag2 folder, read and written: files, topics with their QoS, and where it is wrong about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from flashrt_core.errors import CheckpointNotFound, ConfigError
from flashrt_core.inputs import read_yaml

NAME = "metadata.yaml"
TOP = "rosbag2_bagfile_information"
VERSION = 9  # rosbag2's own number for what `write_metadata` writes (rosbag2_storage/yaml.hpp)
FOREVER = (9223372036, 854775807)  # seconds, nanoseconds: how rosbag2 writes a duration without end
HISTORY = {1: "keep_last", 2: "keep_all"}
RELIABILITY = {1: "reliable", 2: "best_effort"}
DURABILITY = {1: "transient_local", 2: "volatile"}


@dataclass(frozen=True)
class OfferedQos:
    """The QoS that a publisher offers, as ROS's own numbers (rmw/qos_profiles.h).

    history: 1 keep last, 2 keep all. reliability: 1 reliable, 2 best effort. durability: 1 transient local, 2 volatile.
    """

    history: int = 1
    depth: int = 10
    reliability: int = 1
    durability: int = 2

    def to_yaml(self) -> dict[str, object]:
        """As metadata.yaml has it since version 9."""
        forever = {"sec": FOREVER[0], "nsec": FOREVER[1]}
        return {
            "history": HISTORY.get(self.history, "unknown"), "depth": self.depth,
            "reliability": RELIABILITY.get(self.reliability, "unknown"),
            "durability": DURABILITY.get(self.durability, "unknown"),
            "deadline": dict(forever), "lifespan": dict(forever), "liveliness": "automatic",
            "liveliness_lease_duration": dict(forever), "avoid_ros_namespace_conventions": False,
        }  # fmt: skip


@dataclass(frozen=True)
class RecordedTopic:
    """A topic as a bag describes it."""

    topic: str
    type: str
    type_hash: str
    qos: tuple[OfferedQos, ...] = ()

    def qos_text(self) -> str:
        """The profiles as the text that a channel of an MCAP file carries."""
        return yaml.safe_dump([q.to_yaml() for q in self.qos], sort_keys=False).strip() if self.qos else ""


@dataclass(frozen=True)
class Metadata:
    """What metadata.yaml says. problem: why it cannot be used, or "". files: names in the folder, in order."""

    problem: str = ""
    files: tuple[str, ...] = ()
    storage: str = ""
    messages: int | None = None
    topics: Mapping[str, tuple[str, int]] = field(default_factory=dict)  # name -> (type, messages)


def read_metadata(folder: Path) -> Metadata:
    """The folder's metadata.yaml. Never raises: a file that cannot be used comes back with its problem."""
    try:
        data = read_yaml(folder / NAME, error=ConfigError)
        top = _mapping(data, "the file")[TOP]
        info = _mapping(top, TOP)
        topics = {}
        for entry in info.get("topics_with_message_count") or ():
            about = entry["topic_metadata"]
            topics[str(about["name"])] = str(about["type"]), int(entry["message_count"])
        # rosbag2 of 2019 wrote the folder's name before the file's; nothing outside of the folder is ever opened
        names = tuple(dict.fromkeys(Path(str(n)).name for n in info["relative_file_paths"]))
        return Metadata("", names, str(info.get("storage_identifier", "")), int(info["message_count"]), topics)
    except CheckpointNotFound:
        return Metadata("missing")
    except ConfigError as error:
        return Metadata(f"unreadable: {error.expected} expected, {error.found} found")
    except OSError as error:
        return Metadata(f"unreadable: {type(error).__name__}")
    except (KeyError, TypeError, ValueError) as error:
        return Metadata(f"not as rosbag2 writes it: {type(error).__name__} {ascii(str(error))[:80]}")


def _mapping(value: object, name: str) -> dict:
    if not isinstance(value, dict):
        raise ConfigError(name, expected="a mapping", found=type(value).__name__)
    return value


def disagreements(said: Metadata, counts: Mapping[str, int], types: Mapping[str, str]) -> list[str]:
    """Where the file's counts and types differ from metadata.yaml, one text each."""
    out = []
    total = sum(counts.values())
    if said.messages is not None and said.messages != total:
        out.append(f"{said.messages} messages announced, {total} are there")
    for topic in sorted({*said.topics, *counts}):
        if topic not in said.topics:
            out.append(f"does not name {topic}")
            continue
        kind, count = said.topics[topic]
        if topic not in types:
            if count:
                out.append(f"names {topic}, which is not there")
        elif kind != types[topic]:
            out.append(f"{topic} is {types[topic]}, not {ascii(kind)[:80]}")
        elif count != counts.get(topic, 0):
            out.append(f"{topic}: {count} messages announced, {counts.get(topic, 0)} are there")
    return out


def write_metadata(
    folder: Path, file: str, topics: Sequence[tuple[RecordedTopic, int]], span_ns: tuple[int, int] | None
) -> None:
    """metadata.yaml of a folder with one MCAP file. topics: with their message counts. span_ns: first and last log time."""
    first, last = span_ns or (0, 0)
    times = {"duration": {"nanoseconds": last - first}, "starting_time": {"nanoseconds_since_epoch": first}}
    count = sum(n for _, n in topics)
    info = {
        "version": VERSION, "storage_identifier": "mcap", "relative_file_paths": [file], **times, "message_count": count,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": t.topic, "type": t.type, "serialization_format": "cdr",
                    "offered_qos_profiles": [q.to_yaml() for q in t.qos], "type_description_hash": t.type_hash,
                },
                "message_count": n,
            }
            for t, n in topics
        ],
        "compression_format": "", "compression_mode": "",
        "files": [{"path": file, **_copied(times), "message_count": count}],
        "custom_data": None, "ros_distro": "kilted",
    }  # fmt: skip
    target = folder / NAME
    part = target.with_suffix(".yaml.part")
    part.write_text(yaml.safe_dump({TOP: info}, sort_keys=False), encoding="utf-8")
    part.replace(target)


def _copied(times: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Separate objects: the writer would make aliases of shared ones."""
    return {k: dict(v) for k, v in times.items()}
