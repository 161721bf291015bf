"""CommandLedger: commands between their arrival and the control step that executes them, with proof that none is lost.

The proof needs no extra field in the message. A command's index is its publication number, which DDS counts at the
writer and delivers beside the sample (`publication_sequence_number`, from 1); the policy node makes a new writer per
activation and publishes once per tick, so publication number i is the node's command i - 1 since activation, the same
index that `ActionChunk.first_command` uses. At the other end the node says in `PolicyStatus.commands` how many it
published. An activation is sound when every index 0 .. published - 1 arrived once, and those executed are 0, 1, 2, ...
without a hole up to the last one executed. Indices after that one belong to the time after the episode's end.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import asdict, dataclass

import numpy as np

CAPACITY = 200  # commands that may wait; more means that nobody steps


@dataclass(frozen=True)
class Command:
    """One command. index: since activation, from 0. values: float32 [A]. sent_ns, received_ns: wall clock."""

    index: int
    values: np.ndarray
    sent_ns: int = 0
    received_ns: int = 0


@dataclass(frozen=True)
class Audit:
    """The accounts of one activation.

    published: by the node's own count, None when it did not say. received: different indices. applied: executed by a
    control step. surplus: came after the episode's end. lost: indices published or skipped over that were never
    executed although a later one was, or that never arrived. repeated: indices that came or were executed twice.
    foreign: commands of another publisher, never executed.
    """

    published: int | None
    received: int
    applied: int
    surplus: int
    lost: int
    repeated: int
    foreign: int

    @property
    def lost_or_repeated(self) -> int:
        return self.lost + self.repeated

    def to_json(self) -> dict[str, int | None]:
        return asdict(self)


class CommandLedger:
    """`put` from the thread that receives, everything else from the one that steps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._retired: set[bytes] = set()  # writers of earlier activations
        self._writer: bytes | None = None
        self._open = False
        self.begin()

    def begin(self) -> None:
        """A new activation: whoever publishes first from now on, and has not before, is its writer."""
        with self._lock:
            if self._writer is not None:
                self._retired.add(self._writer)
            self._writer, self._open = None, True
            self._waiting: deque[Command] = deque()
            self._seen: dict[int, int] = {}  # index -> how often it came
            self.applied: list[Command] = []
            self._foreign = self._dropped = 0

    def put(self, writer: bytes, command: Command) -> None:
        """A command has arrived. Late ones of an earlier writer and those of a second writer are counted, not kept."""
        with self._lock:
            if writer in self._retired or (self._writer is not None and writer != self._writer):
                self._foreign += 1
                return
            self._writer = writer
            times = self._seen[command.index] = self._seen.get(command.index, 0) + 1
            if times > 1 or not self._open:
                return
            if len(self._waiting) >= CAPACITY:
                self._dropped += 1
                return
            self._waiting.append(command)
            self._arrived.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until a command is there; False when the time is up."""
        with self._lock:
            return self._arrived.wait_for(lambda: bool(self._waiting), timeout_s)

    @property
    def waiting(self) -> int:
        """Commands that no step has executed yet."""
        return len(self._waiting)

    @property
    def received(self) -> int:
        """Different indices received in this activation."""
        return len(self._seen)

    @property
    def first_received_ns(self) -> int | None:
        """Wall clock at which the oldest waiting command came."""
        with self._lock:
            return self._waiting[0].received_ns if self._waiting else None

    def take(self) -> Command | None:
        """The next command for a control step, in the order of arrival, or None when none has come."""
        with self._lock:
            if not self._waiting:
                return None
            command = self._waiting.popleft()
            self.applied.append(command)
            return command

    def close(self) -> None:
        """The episode is over: what waits or still comes is not executed."""
        with self._lock:
            self._open = False
            self._waiting.clear()

    def audit(self, published: int | None = None) -> Audit:
        """The accounts; published: by the node's own count."""
        with self._lock:
            done = [c.index for c in self.applied]
            top = done[-1] + 1 if done else 0  # all before this one had to be executed
            missing = set(range(top)) - set(done)
            expected = max(self._seen, default=-1) + 1 if published is None else published
            absent = set(range(expected)) - set(self._seen)
            twice = sum(n - 1 for n in self._seen.values()) + len(done) - len(set(done))
            disorder = sum(b < a for a, b in itertools.pairwise(done))
            beyond = sum(
                i >= expected for i in self._seen
            )  # more than the node says it sent: its count or ours is wrong
            return Audit(
                published, len(self._seen), len(done), sum(i >= top for i in self._seen),
                len(missing | absent) + self._dropped + beyond, twice + disorder, self._foreign,
            )  # fmt: skip
