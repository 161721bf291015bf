"""ChunkBag: the chunks of a replay as flashrt_ros/ActionChunk in a bag of the original's storage, with the original's stamps."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import NS

from ..bags.bag import BagWriter, typestore
from ..config.settings import RobotConfig
from ..control.tick_record import PlannedChunk

TYPE = "flashrt_ros/msg/ActionChunk"
KINDS = {"position": 0, "delta": 1, "discrete": 2}  # constants of ActionChunk.msg


class ChunkBag:
    """A context manager. `write` takes what the control loop announces. An older bag of a replay at `path` is replaced."""

    def __init__(self, path: Path, robot: RobotConfig, topic: str, storage: str):
        """storage: "mcap" or "sqlite3"."""
        self._robot, self._topic = robot, topic
        self._store = typestore()
        if (path / "metadata.yaml").is_file():
            shutil.rmtree(path)
        self._write, self._close = (_sqlite3 if storage == "sqlite3" else _mcap)(path, topic, self._store)

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
        self._close()


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
    except (WriterError, OSError) as error:
        raise ConfigError("bag", expected="a folder that does not exist yet", found=str(error)) from None
    connection = writer.add_connection(topic, TYPE, typestore=store)
    return lambda at_ns, data: writer.write(connection, at_ns, data), writer.close
