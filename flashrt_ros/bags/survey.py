"""Reads a bag once and sums it up: topics with rates and gaps, files, findings, and what a robot file finds in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flashrt_core.runtime.clock import NS

from ..config.settings import RobotConfig
from .findings import Finding
from .reading import BagReader
from .robot_topics import Wanted, judge_topics, wanted_topics

HINTS = {
    "F76": "The recorder was killed or the copy was not finished: copy again, or use what is there with --allow-loss.",
    "F77": "Bytes changed on a disk or on the way: copy the bag again and compare; what is read is still right.",
    "F78": "`ros2 bag reindex` writes metadata.yaml anew; nothing here needs it.",
    "F79": "Compare the names with `flashrt bag info`, and set them in the robot's YAML.",
    "F80": "They are sorted when they are read. A busy recorder writes in another order than it received; a clock may also jump.",
    "F81": "Damage would not be noticed: record MCAP without the preset fastwrite, or `ros2 bag convert`.",
}
CHECK_EVERY = 1000  # messages between two calls of on_progress


@dataclass
class TopicSurvey:
    """One topic as read. Times in ns of log time; gap: the longest time between two messages, and where it begins."""

    type: str
    listed: int
    count: int = 0
    bytes: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    gap_ns: int = 0
    gap_at_ns: int | None = None

    def add(self, at_ns: int, size: int) -> None:
        if self.last_ns is not None and at_ns - self.last_ns > self.gap_ns:
            self.gap_ns, self.gap_at_ns = at_ns - self.last_ns, self.last_ns
        self.first_ns = at_ns if self.first_ns is None else self.first_ns
        self.last_ns = at_ns
        self.count += 1
        self.bytes += size

    @property
    def hz(self) -> float | None:
        """Mean rate between first and last message."""
        span = (self.last_ns or 0) - (self.first_ns or 0)
        return (self.count - 1) * NS / span if self.count > 1 and span > 0 else None

    def to_json(self, start_ns: int) -> dict[str, object]:
        return {
            "type": self.type, "messages": self.count, "lost": max(0, self.listed - self.count), "bytes": self.bytes,
            "hz": self.hz, "longest_gap_s": self.gap_ns / NS,
            "gap_at_s": None if self.gap_at_ns is None else (self.gap_at_ns - start_ns) / NS,
        }  # fmt: skip


@dataclass(frozen=True)
class Survey:
    """What is in a bag. wanted: what a robot file would find; findings include its F79."""

    bag: str
    topics: dict[str, TopicSurvey]
    files: list[dict[str, object]]
    start_ns: int | None
    end_ns: int | None
    findings: list[Finding]
    wanted: list[Wanted]

    @property
    def duration_s(self) -> float:
        return 0.0 if self.start_ns is None else (self.end_ns - self.start_ns) / NS

    @property
    def lost(self) -> bool:
        return any(f.is_loss for f in self.findings)

    def to_json(self) -> dict[str, object]:
        start = self.start_ns or 0
        return {
            "bag": self.bag, "start_ns": self.start_ns, "duration_s": self.duration_s,
            "messages": sum(t.count for t in self.topics.values()), "files": self.files,
            "topics": {name: t.to_json(start) for name, t in self.topics.items()},
            "robot": {w.topic: {"kind": w.kind, "type": w.type, "problem": w.problem or None} for w in self.wanted},
            "findings": [{"fault": f.fault, "text": f.text, "count": f.count, "hint": HINTS[f.fault]} for f in self.findings],
        }  # fmt: skip


def survey(
    path: str, robot: RobotConfig | None = None, node: str = "policy_node",
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:  # fmt: skip
    """Read the whole bag. on_progress gets (messages read, messages listed). Raises BagError when nothing can be read."""
    with BagReader(path) as bag:
        topics = {name: TopicSurvey(info.type, info.count) for name, info in bag.topics.items()}
        total, done = sum(t.listed for t in topics.values()), 0
        for message in bag:
            topics[message.topic].add(message.log_time_ns, len(message.data))
            done += 1
            if on_progress is not None and done % CHECK_EVERY == 0:
                on_progress(done, total)
        findings = bag.findings
        wanted: list[Wanted] = []
        if robot is not None:
            wanted = wanted_topics(bag.topics, robot, node)
            findings = sorted([*findings, *judge_topics(bag.topics, robot, node)], key=lambda f: f.fault)
        return Survey(bag.path.name, topics, bag.describe_files(), bag.start_ns, bag.end_ns, findings, wanted)
