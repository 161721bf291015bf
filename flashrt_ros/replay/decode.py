"""Decoder: recorded bytes become what the observation slots take; images are decoded, checked and resized here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from flashrt_core.runtime.clock import FakeClock

from ..bags.bag import typestore
from ..config.settings import RobotConfig
from ..control.faults import FaultReport
from ..inputs.image_slot import Frame, ImageSlot
from .bag_topics import BagTopics, command_problem, read_command
from .timeline import Command, Input

NS = 1_000_000_000


@dataclass(frozen=True)
class ImageIn:
    """A camera message: the frame that the slot made of it, or why it was refused."""

    at_ns: int
    view: str
    frame: Frame | None
    fault: FaultReport | None


@dataclass(frozen=True)
class StateIn:
    """A sensor_msgs/JointState; its checks are the slot's."""

    at_ns: int
    stamp_ns: int
    names: tuple[str, ...]
    positions: np.ndarray
    velocities: np.ndarray
    efforts: np.ndarray


@dataclass(frozen=True)
class PromptIn:
    """A std_msgs/String."""

    at_ns: int
    text: str


@dataclass(frozen=True)
class UnreadableIn:
    """Bytes that are no message of their type."""

    at_ns: int
    topic: str
    reason: str = ""


Seen = ImageIn | StateIn | PromptIn | UnreadableIn


class Decoder:
    """Reads one bag's messages. The image slots here are the node's own; only their newest frame leaves this object."""

    def __init__(self, robot: RobotConfig, topics: BagTopics, image_size: int):
        self._robot, self._topics = robot, topics
        self._store, self._clock = typestore(), FakeClock()
        cameras = {c.view: c for c in robot.cameras}
        self._slots = {view: ImageSlot(cameras[view], image_size, self._clock) for view in topics.views.values()}
        self.unreadable_commands, self.command_problem = 0, ""

    def messages(self, bag: Iterable[Any]) -> Iterator[Input | Command]:
        """The bag's messages for a Timeline: commands are decoded at once, the others when `decode` is called."""
        for m in bag:
            if m.topic != self._topics.command:
                yield Input(m.log_time_ns, m)
                continue
            message = values = None
            with contextlib.suppress(Exception):  # whatever rosbags raises for bytes that are no such message
                message = self._store.deserialize_cdr(m.data, m.type)
                values = read_command(message, m.type, self._robot)
            if values is None:
                self.unreadable_commands += 1
                self.command_problem = self.command_problem or command_problem(message, m.type, self._robot)
            else:
                yield Command(m.log_time_ns, values)

    def decode(self, item: Input) -> Seen:
        """What the message is. Call it in the order of the timeline."""
        m, at = item.item, item.at_ns
        self._clock.advance_to_ns(at)
        try:
            message = self._store.deserialize_cdr(m.data, m.type)
            if m.topic in self._topics.views:
                return self._image(m, message, at)
            if m.topic == self._topics.state:
                fields = (np.asarray(v, np.float64) for v in (message.position, message.velocity, message.effort))
                return StateIn(at, _stamp(message), tuple(message.name), *fields)
            return PromptIn(at, message.data)
        except Exception:  # whatever rosbags raises for bytes that are no such message; the slot itself never raises
            return UnreadableIn(at, m.topic, f"not decodable as {m.type}")

    def _image(self, m: Any, message: Any, at: int) -> ImageIn:
        view = self._topics.views[m.topic]
        slot = self._slots[view]
        if m.type.endswith("CompressedImage"):
            refused = slot.put_compressed(message.data, _stamp(message), at)
        else:
            refused = slot.put(
                message.height, message.width, message.encoding, message.step, message.data, _stamp(message), at
            )
        return ImageIn(at, view, None, refused) if refused else ImageIn(at, view, slot.frame, slot.stamp_fault)


def _stamp(message: Any) -> int:
    return message.header.stamp.sec * NS + message.header.stamp.nanosec
