"""What a robot's file expects in a bag, checked against what is there before a model is loaded (F79)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flashrt_core.errors import nearest

from ..bags.findings import BagError
from ..bags.recorder_topics import full_name, recorded_topics
from ..config.settings import RobotConfig
from .settings import ReplaySettings

# Types that recorded commands may have: one number per action dimension, or values with the joints' names.
COMMAND_TYPES = (
    "std_msgs/msg/Float64MultiArray", "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory",
)  # fmt: skip


@dataclass(frozen=True)
class BagTopics:
    """Topic names of one robot in a bag. views: topic -> view. prompt: "" when the bag has none and the prompt is given."""

    views: Mapping[str, str]
    state: str
    command: str
    prompt: str

    @property
    def names(self) -> list[str]:
        """All of them that exist."""
        return [t for t in (*self.views, self.state, self.command, self.prompt) if t]


def find_topics(settings: ReplaySettings, have: Mapping[str, Any], bag: str) -> BagTopics:
    """The topics to read. have: topic -> something with `type` and `count`, as BagReader.topics.

    Raises BagError F79 naming the topic, what the robot's file expects and what the bag has.
    """
    robot, node = settings.robot, settings.node_name
    types = {topic: kind for topic, (kind, _) in recorded_topics(robot, node).items()}
    state, command = full_name(robot.topics.state, node), full_name(robot.topics.forward, node)
    trajectory = full_name(robot.topics.trajectory, node)
    if not _count(have, command) and _count(have, trajectory) and robot.dims("position"):
        command = trajectory  # one way of commanding is enough
    views = {full_name(c.topic, node): c.view for c in robot.cameras}
    prompt = full_name(robot.topics.prompt, node)
    if settings.command_topic:
        command = full_name(settings.command_topic, node)
    for topic in [*views, *([state] if robot.state else [])]:
        _check(topic, (types[topic],), have, bag, f"robot {robot.name} says")
    said = f"robot {robot.name} says" if not settings.command_topic else "--command-topic may be"
    _check(command, COMMAND_TYPES, have, bag, said)
    if settings.node.prompt and not _count(have, prompt):
        prompt = ""
    else:
        _check(prompt, (types[prompt],), have, bag, f"robot {robot.name} says", "or give --prompt")
    return BagTopics(views, state if robot.state else "", command, prompt)


def _count(have: Mapping[str, Any], topic: str) -> int:
    return have[topic].count if topic in have else 0


def _check(
    topic: str, kinds: tuple[str, ...], have: Mapping[str, Any], bag: str, said: str, hint: str = ""
) -> None:
    info = have.get(topic)
    if info is not None and info.type in kinds and info.count:
        return
    listed = ", ".join(f"{name} ({i.type}, {i.count})" for name, i in sorted(have.items())[:40]) or "nothing"
    where = f"bag {bag}, topic {topic}"
    wanted = f"{' or '.join(kinds)}, as {said}"
    more = f"; {hint}" if hint else ""
    if info is None:
        close = nearest(topic, have) if have else "the bag has no topics"
        close = close if close.startswith("did") else "no topic of that name"
        raise BagError("F79", where, expected=wanted, found="none", hint=f"{close}{more}. The bag has: {listed}")
    if info.type not in kinds:
        raise BagError("F79", where, expected=wanted, found=info.type, hint=f"The bag has: {listed}{more}")
    raise BagError("F79", where, expected=wanted, found="no message", hint=f"The bag has: {listed}{more}")


def read_command(message: Any, kind: str, robot: RobotConfig) -> np.ndarray | None:
    """float64 [A] of a recorded command, NaN where it says nothing about a dimension; None when it does not fit."""
    out = np.full(len(robot.actions), np.nan)
    if kind == COMMAND_TYPES[0]:
        values = np.asarray(message.data, dtype=np.float64)
        return values if values.shape == out.shape else None
    if kind == COMMAND_TYPES[1]:
        names, values = list(message.name), np.asarray(message.position, dtype=np.float64)
    else:
        names = list(message.joint_names)
        values = np.asarray(message.points[0].positions if len(message.points) else (), dtype=np.float64)
    if len(names) != len(values):
        return None
    at = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(robot.action_names):
        if name in at:
            out[i] = values[at[name]]
    return out if np.isfinite(out).any() else None


def command_problem(message: Any, kind: str, robot: RobotConfig) -> str:
    """Why `read_command` gave nothing. message: None when its bytes are not of that kind."""
    if message is None:
        return f"not decodable as {kind}"
    if kind == COMMAND_TYPES[0]:
        return f"{len(message.data)} numbers, robot {robot.name} has {len(robot.actions)} actions"
    names = list(message.name if kind == COMMAND_TYPES[1] else message.joint_names)
    return f"no value for any of {', '.join(robot.action_names)}; its joints are {', '.join(map(ascii, names[:20])) or 'none'}"
