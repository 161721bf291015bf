"""What a robot file would find in a bag: the topics of its cameras, state, prompt and commands, and which are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flashrt_core.errors import nearest

from ..config.settings import RobotConfig
from .findings import Finding
from .reading import TopicInfo
from .recorder_topics import recorded_topics

NODE = "policy_node"  # whose ~/topics are meant when nothing else is said
REQUIRED = ("image", "state", "command")


@dataclass(frozen=True)
class Wanted:
    """One topic that a robot file names. kind: image, state, prompt, command, chunk, status, clock.

    found: what the bag has under this name, None for nothing. problem: why it cannot be used, or "".
    """

    topic: str
    type: str
    kind: str
    found: TopicInfo | None
    problem: str

    @property
    def usable(self) -> bool:
        return not self.problem

    @property
    def needed(self) -> bool:
        """A camera, the state or a way of commanding."""
        return self.kind in REQUIRED


def wanted_topics(topics: Mapping[str, TopicInfo], robot: RobotConfig, node: str = NODE) -> list[Wanted]:
    """Every topic of the robot file, with what the bag has for it."""
    out = []
    for topic, (kind_name, kind) in recorded_topics(robot, node).items():
        if kind == "state" and not robot.state:
            continue
        found = topics.get(topic)
        if found is None:
            problem = f"missing, {nearest(topic, topics)}" if topics else "missing, the bag is empty"
        elif found.type != kind_name:
            problem = f"{found.type} in the place of {kind_name}"
        else:
            problem = "" if found.count else "no messages"
        out.append(Wanted(topic, kind_name, kind, found, problem))
    return out


def judge_topics(topics: Mapping[str, TopicInfo], robot: RobotConfig, node: str = NODE) -> list[Finding]:
    """F79 for each camera, state or command topic that cannot be used. One way of commanding is enough."""
    wanted = wanted_topics(topics, robot, node)
    commanded = any(w.kind == "command" and w.usable for w in wanted)
    out = []
    for w in wanted:
        if w.usable or not w.needed or (w.kind == "command" and commanded):
            continue
        out.append(Finding("F79", f"robot {robot.name}: {w.kind} topic {w.topic}: {w.problem}", 0))
    return out
