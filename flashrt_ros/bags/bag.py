"""BagWriter and `open_bag`: rosbag2 recordings (MCAP) with the package's own message types, without a ROS install."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flashrt_core import __version__
from flashrt_core.errors import ConfigError

from ..config.shipped import shipped_folder
from .metadata import FOREVER, OfferedQos, RecordedTopic, write_metadata

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

__all__ = ["FOREVER", "BagWriter", "OfferedQos", "message_folder", "open_bag", "typestore"]
PACKAGE = "flashrt_ros"
CHUNK_BYTES = 1 << 20


def message_folder() -> Path:
    """The folder of this package's .msg files."""
    return shipped_folder("msg", "ActionChunk.msg")


def typestore(messages: Path | None = None) -> Any:
    """A rosbags typestore with ROS 2's own messages and those of this package. Raises ConfigError without rosbags."""
    _check_packages()
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
    """Writes serialized messages as they came: nothing is decoded, every chunk gets a CRC. The folder must not exist yet.

    compress: zstd chunks; camera images of a simulation become several times smaller. counts: messages per topic.
    """

    def __init__(self, path: Path, *, messages: Path | None = None, compress: bool = True):
        self._store = typestore(messages)
        from mcap.writer import CompressionType, Writer

        self._writer = None
        try:
            path.mkdir(parents=True)
            self._file = (path / f"{path.name}.mcap").open("xb")
        except FileExistsError:
            raise ConfigError(f"bag {path}", expected="a folder that does not exist yet", found="it") from None
        except OSError as error:
            raise ConfigError(f"bag {path}", expected="a place that can be written", found=error.strerror) from None
        self._path = path
        self._writer = Writer(
            self._file, chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD if compress else CompressionType.NONE
        )
        self._writer.start(profile="ros2", library=f"{PACKAGE} {__version__}")
        self._schemas: dict[str, int] = {}
        self._topics: dict[str, RecordedTopic] = {}
        self._channels: dict[str, int] = {}
        self._span: tuple[int, int] | None = None
        self.counts: dict[str, int] = {}

    def add(self, topic: str, type_name: str, qos: OfferedQos | None = None) -> None:
        """Declare a topic; type_name as in "std_msgs/msg/String". Raises ConfigError for an unknown type."""
        if topic in self._topics:
            raise ConfigError(f"bag topic {topic}", expected="each topic once", found="it twice")
        if type_name not in self._store.types:
            raise ConfigError(f"bag topic {topic}", expected="a known message type", found=type_name)
        if type_name not in self._schemas:
            text, _ = self._store.generate_msgdef(type_name, ros_version=2)
            self._schemas[type_name] = self._writer.register_schema(type_name, "ros2msg", text.encode())
        about = RecordedTopic(topic, type_name, self.type_hash(type_name), () if qos is None else (qos,))
        self._topics[topic] = about
        self._channels[topic] = self._writer.register_channel(
            topic, "cdr", self._schemas[type_name],
            {"offered_qos_profiles": about.qos_text(), "topic_type_hash": about.type_hash},
        )  # fmt: skip
        self.counts[topic] = 0

    def type_hash(self, type_name: str) -> str:
        """The RIHS01 hash of a type, the one that ROS announces on the graph."""
        return self._store.hash_rihs01(type_name)

    def write(self, topic: str, at_ns: int, data: bytes) -> None:
        """One serialized (CDR) message, at its time of receipt in ns."""
        self._writer.add_message(self._channels[topic], at_ns, data, at_ns, self.counts[topic])
        self.counts[topic] += 1
        low, high = self._span or (at_ns, at_ns)
        self._span = min(low, at_ns), max(high, at_ns)

    def close(self) -> None:
        """Write the index and metadata.yaml. May be called twice."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with self._file:
            writer.finish()
        topics = [(about, self.counts[about.topic]) for about in self._topics.values()]
        write_metadata(self._path, Path(self._file.name).name, topics, self._span)

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("rosbags", "mcap", "lz4") if find_spec(name) is None]
    if missing:
        raise ConfigError("bag", expected="the packages of the bag extra", found=f"{', '.join(missing)} missing",
                          hint="In the checkout, run: pip install -e '.[bag]'")  # fmt: skip
