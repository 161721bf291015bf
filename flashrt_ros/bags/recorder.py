"""The recorder process: writes what passes on the robot's and the node's topics into a rosbag2, byte by byte.

`python -m flashrt_ros.bags.recorder --out BAG --robot tabletop [--events FILE]`, ended by SIGINT or SIGTERM. It subscribes with
`raw=True`, so no message is decoded, and counts per topic what DDS says was published but did not come.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from flashrt_core.errors import FlashRTError

from ..config.config_file import load_robot
from ..evaluation.metrics import percentiles
from .bag import BagWriter, OfferedQos
from .event_log import EventWriter
from .recorder_topics import recorded_topics

DEPTH = 200
KEPT_DELAYS = 100_000
STREAM_QOS = {"image": "best", "state": "best", "clock": "best", "status": "latched"}


def _qos(kind: str) -> QoSProfile:
    """Best effort where the node takes it so; reliable and deep where nothing may be missing."""
    how = STREAM_QOS.get(kind, "reliable")
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT if how == "best" else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if how == "latched" else DurabilityPolicy.VOLATILE,
    )  # fmt: skip


@dataclass
class Passage:
    """How one topic fared. last: per writer, the newest publication number. delays_ms: publication to receipt here."""

    last: dict[bytes, int] = field(default_factory=dict)
    lost: int = 0
    repeated: int = 0
    delays_ms: list[float] = field(default_factory=list)

    def note(self, info: dict[str, Any], now_ns: int) -> None:
        """A message has come."""
        writer = bytes((info.get("publisher_gid") or {}).get("data") or b"")
        number = info.get("publication_sequence_number")
        if number is not None:
            before = self.last.get(writer)
            if before is not None:  # what was published before we were there is not missing
                self.lost += max(0, number - before - 1)
                self.repeated += number <= before
            self.last[writer] = max(number, before or 0)
        if len(self.delays_ms) < KEPT_DELAYS:
            self.delays_ms.append((now_ns - info["source_timestamp"]) / 1e6)

    def to_json(self, messages: int) -> dict[str, object]:
        first = [n for n in self.last.values()]
        return {"messages": messages, "writers": len(first), "lost": self.lost, "repeated": self.repeated,
                "delay_ms": percentiles(self.delays_ms)}  # fmt: skip


class Recorder(Node):
    """Subscribes to `topics` and writes what comes; a topic enters the bag with its first message."""

    def __init__(self, bag: BagWriter, topics: dict[str, tuple[str, str]]):
        super().__init__("flashrt_recorder")
        self._bag, self._types = bag, topics
        self.passages = {topic: Passage() for topic in topics}
        for topic, (type_name, kind) in topics.items():
            package, _, name = type_name.split("/")
            message = getattr(importlib.import_module(f"{package}.msg"), name)

            # rclpy looks at the signature to see whether the callback wants the message info
            def write(data: bytes, info: dict[str, Any], topic: str = topic) -> None:
                self._write(data, info, topic)

            self.create_subscription(message, topic, _two(write), _qos(kind), raw=True)

    def _write(self, data: bytes, info: dict[str, Any], topic: str) -> None:
        now = time.time_ns()
        if topic not in self._bag.counts:
            self._bag.add(topic, self._types[topic][0], self._offered(topic))
        self._bag.write(topic, info["received_timestamp"] or now, data)
        self.passages[topic].note(info, now)

    def _offered(self, topic: str) -> OfferedQos | None:
        """The QoS of the topic's first publisher."""
        for end in self.get_publishers_info_by_topic(topic):
            q = end.qos_profile
            history = int(q.history) if int(q.history) in (1, 2) else 1  # not announced on the graph
            return OfferedQos(history, max(1, int(q.depth)), int(q.reliability), int(q.durability))
        return None

    def summary(self) -> dict[str, object]:
        return {t: p.to_json(self._bag.counts.get(t, 0)) for t, p in self.passages.items()}


def _two(callback: Any) -> Any:
    """The callback with exactly two parameters."""
    return lambda data, info: callback(data, info)


def main(argv: Sequence[str] | None = None) -> int:
    """Record until SIGINT or SIGTERM. Exit code 0, or 2 for what cannot be written."""
    parser = argparse.ArgumentParser(prog="recorder", description="Record the topics of a robot and its policy node.")
    parser.add_argument("--out", type=Path, required=True, metavar="BAG", help="folder to make")
    parser.add_argument("--robot", default="tabletop", help="robot file by name or path")
    parser.add_argument("--node", default="policy_node", help="name of the policy node")
    parser.add_argument("--topic", action="append", default=[], metavar="NAME=TYPE", help="one more topic")
    parser.add_argument("--events", type=Path, help="write progress and the final counts as JSON lines")
    args = parser.parse_args(argv)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    events = EventWriter(args.events) if args.events else None
    try:
        topics = recorded_topics(load_robot(args.robot), args.node)
        topics |= {name: (type_name, "extra") for name, _, type_name in (t.partition("=") for t in args.topic)}
        bag = BagWriter(args.out)
    except FlashRTError as error:
        sys.stderr.write(f"recorder: {error}\n")
        return 2
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    recorder = Recorder(bag, topics)
    executor.add_node(recorder)
    report = partial(events.write) if events else (lambda *_, **__: None)
    report("recording", topics=len(topics))
    try:
        while not ended.is_set():
            executor.spin_once(timeout_sec=0.1)
        until = time.monotonic() + 0.3  # what is on its way
        while time.monotonic() < until:
            executor.spin_once(timeout_sec=0.02)
    except (ExternalShutdownException, ShutdownException):
        pass
    finally:
        bag.close()
        report("recorded", topics=recorder.summary())
        executor.shutdown(0.3)
        recorder.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
