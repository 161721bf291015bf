"""ChunkBag: the chunks of a replay as flashrt_ros/ActionChunk in a bag of the original's storage, with the original's stamps."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import NS

from ..bags.bag import BagWriter, typestore
from ..bags.findings import BagError
from ..bags.reading import BagReader
from ..config.settings import RobotConfig
from ..control.tick_record import PlannedChunk

TYPE = "flashrt_ros/msg/ActionChunk"
KINDS = {"position": 0, "delta": 1, "discrete": 2}  # constants of ActionChunk.msg


class ChunkBag:
    """A context manager. `write` takes what the control loop announces.

    The bag appears at `path`, in the place of an older one, when the replay has come to its end; else nothing changes.
    """

    def __init__(self, path: Path, robot: RobotConfig, topic: str, storage: str):
        """storage: "mcap" or "sqlite3"."""
        self._robot, self._topic = robot, topic
        self._store, self._path, self._part = typestore(), path, part_of(path)
        shutil.rmtree(self._part, ignore_errors=True)
        inside = self._part / path.name  # a bag's file is named after its folder
        self._write, self._close = (_sqlite3 if storage == "sqlite3" else _mcap)(inside, topic, self._store)

    def write(self, at_ns: int, plan: PlannedChunk) -> None:
        """at_ns: log time of the tick in which the chunk took over."""
        self._write(at_ns, bytes(self._store.serialize_cdr(self._message(plan), TYPE)))

    def _message(self, plan: PlannedChunk) -> Any:
        types, robot, observation = self._store.types, self._robot, plan.observation
        stamp = min(max(observation.stamp_ns, 0), (2**31 - 1) * NS)
        time = types["builtin_interfaces/msg/Time"](sec=stamp // NS, nanosec=stamp % NS)
        return types[TYPE](
            header=types["std_msgs/msg/Header"](stamp=time, frame_id=robot.name), chunk=plan.chunk,
            observation=observation.seq, first_command=plan.seq, executed=plan.executed, names=list(robot.action_names),
            kinds=np.array([KINDS[d.kind] for d in robot.actions], np.uint8), period=plan.period_s, horizon=len(plan.rows),
            data=np.ascontiguousarray(plan.rows, np.float32).reshape(-1), inference_time=float(plan.latency_s),
            disagreement=math.nan if plan.disagreement is None else float(plan.disagreement),
        )  # fmt: skip

    def __enter__(self) -> ChunkBag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._close()
                if self._path.exists():
                    self._path.rename(self._part / "replaced")
                (self._part / self._path.name).rename(self._path)
            else:
                with contextlib.suppress(OSError):  # such as a full disk, which is what ended the replay
                    self._close()
        finally:
            shutil.rmtree(self._part, ignore_errors=True)


def part_of(path: Path) -> Path:
    """The folder that a chunk bag is written in before it is whole."""
    return path.with_name(f".{path.name}.part")


def check_chunk_bag(path: Path, recordings: Sequence[Path]) -> None:
    """Whether the chunks of a replay may be written to `path`. Raises ConfigError rather than replace a recording."""
    target = path.resolve()
    for recording in recordings:
        bag = recording.resolve()
        if bag == target or target in bag.parents:
            raise ConfigError(f"output {path}", expected="a place beside the recordings", found=f"the recording {recording}",
                              hint="Choose another --out")  # fmt: skip
    if path.exists() and not _is_chunk_bag(path):
        raise ConfigError(f"output {path}", expected="nothing, or the chunks of an earlier replay", found="something else",
                          hint="Choose another --out")  # fmt: skip


def _is_chunk_bag(path: Path) -> bool:
    try:
        with BagReader(path) as bag:
            return {info.type for info in bag.topics.values()} == {TYPE}
    except BagError:
        return False


Writing = tuple[Callable[[int, bytes], None], Callable[[], None]]


def _mcap(path: Path, topic: str, store: Any) -> Writing:
    bag = BagWriter(path)
    bag.add(topic, TYPE)
    return lambda at_ns, data: bag.write(topic, at_ns, data), bag.close


def _sqlite3(path: Path, topic: str, store: Any) -> Writing:
    from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3)
        writer.open()
    except WriterError as error:
        raise ConfigError(f"bag {path}", expected="a folder that does not exist yet", found=str(error)) from None
    except OSError as error:
        raise ConfigError(f"bag {path}", expected="a place that can be written", found=error.strerror) from None
    connection = writer.add_connection(topic, TYPE, typestore=store)
    return lambda at_ns, data: writer.write(connection, at_ns, data), writer.close
