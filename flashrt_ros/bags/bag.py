"""BagWriter and `open_bag`: rosbag2 recordings (MCAP) with the package's own message types, without a ROS install."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flashrt_core.errors import ConfigError

from ..config.shipped import shipped_folder

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

PACKAGE = "flashrt_ros"
FOREVER = (9223372036, 854775807)  # seconds, nanoseconds: how rosbag2 writes a duration without end


@dataclass(frozen=True)
class OfferedQos:
    """The QoS that a publisher offers, as ROS's own numbers (rmw/qos_profiles.h).

    history: 1 keep last, 2 keep all. reliability: 1 reliable, 2 best effort. durability: 1 transient local, 2 volatile.
    """

    history: int = 1
    depth: int = 10
    reliability: int = 1
    durability: int = 2


def message_folder() -> Path:
    """The folder of this package's .msg files."""
    return shipped_folder("msg", "ActionChunk.msg")


def typestore(messages: Path | None = None) -> Any:
    """A rosbags typestore with ROS 2's own messages and those of this package. Raises ConfigError without rosbags."""
    _check_rosbags()
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_KILTED)
    for file in sorted((messages or message_folder()).glob("*.msg")):
        store.register(get_types_from_msg(file.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{file.stem}"))
    return store


def open_bag(path: Path, messages: Path | None = None) -> AnyReader:
    """A reader of the bag, to be used as a context manager. ConfigError when there is none."""
    store = typestore(messages)
    from rosbags.highlevel import AnyReader

    if not (path / "metadata.yaml").is_file():
        raise ConfigError("bag", expected="a folder with metadata.yaml", found=path.name)
    return AnyReader([path], default_typestore=store)


class BagWriter:
    """Writes serialized messages as they came: nothing is decoded. The folder must not exist yet.

    compress: zstd chunks; camera images of a simulation become several times smaller. counts: messages per topic.
    """

    def __init__(self, path: Path, *, messages: Path | None = None, compress: bool = True):
        self._store = typestore(messages)
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError

        self._writer = None
        writer = None
        try:
            writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
            if compress:
                writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            writer.open()
        except (WriterError, OSError) as error:
            raise ConfigError("bag", expected="a folder that does not exist yet", found=str(error)) from None
        self._writer = writer
        self._topics: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def add(self, topic: str, type_name: str, qos: OfferedQos | None = None) -> None:
        """Declare a topic; type_name as in "std_msgs/msg/String". Raises ConfigError for an unknown type."""
        if topic in self._topics:
            raise ConfigError(f"bag topic {topic}", expected="each topic once", found="it twice")
        if type_name not in self._store.types:
            raise ConfigError(f"bag topic {topic}", expected="a known message type", found=type_name)
        profiles = [] if qos is None else [_profile(qos)]
        self._topics[topic] = self._writer.add_connection(
            topic, type_name, typestore=self._store, offered_qos_profiles=profiles
        )
        self.counts[topic] = 0

    def type_hash(self, type_name: str) -> str:
        """The RIHS01 hash of a type, the one that ROS announces on the graph."""
        return self._store.hash_rihs01(type_name)

    def write(self, topic: str, at_ns: int, data: bytes) -> None:
        """One serialized (CDR) message, at its time of receipt in ns."""
        self._writer.write(self._topics[topic], at_ns, data)
        self.counts[topic] += 1

    def close(self) -> None:
        """Write the index and metadata.yaml. May be called twice."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _profile(qos: OfferedQos) -> Any:
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(*FOREVER)
    return Qos(
        QosHistory(qos.history), qos.depth, QosReliability(qos.reliability), QosDurability(qos.durability),
        forever, forever, QosLiveliness(1), forever, False,
    )  # fmt: skip


def _check_rosbags() -> None:
    from importlib.util import find_spec

    if find_spec("rosbags") is None:
        raise ConfigError("bag", expected="the packages of the bag extra", found="rosbags missing",
                          hint="Run: pip install 'flashrt-ros[bag]'")  # fmt: skip
