"""The feed of one bag: reading, decompressing and decoding in a process of its own, ahead of the policy."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flashrt_core.errors import DeviceError

from ..bags.findings import Finding
from ..bags.reading import BagReader
from .bag_topics import BagTopics
from .decode import Decoder, ImageIn, Seen
from .interrupts import children_without_interrupts
from .settings import ReplaySettings
from .timeline import Input, Tick, Timeline

RING_BYTES = 64 << 20  # of decoded images that may wait for the policy
MAX_SLOTS = 256
PIPE_BYTES = 1 << 20  # of everything else
BATCH = 16  # ticks that cross to the other process at once
SCRIPT_HINT = "A script that replays does so under `if __name__ == '__main__':`, another process imports it"


@dataclass(frozen=True)
class BagEnd:
    """The last thing in a feed: what reading found, how many recorded commands were none, and why the first of these."""

    findings: tuple[Finding, ...]
    unreadable_commands: int
    messages: int
    start_ns: int
    end_ns: int
    command_problem: str = ""


@dataclass(frozen=True)
class FeedPlan:
    """What a reading process is told."""

    bag: Path
    topics: BagTopics
    settings: ReplaySettings
    image_size: int


class Feed(Protocol):
    """Iterates over a bag's inputs and ticks in order; BagEnd comes last. A context manager."""

    def __iter__(self) -> Iterator[Seen | Tick | BagEnd]: ...

    def __enter__(self) -> Feed: ...

    def __exit__(self, *exc: object) -> None: ...


class InlineFeed:
    """Reads in this process."""

    def __init__(self, plan: FeedPlan):
        self._plan = plan

    def __iter__(self) -> Iterator[Seen | Tick | BagEnd]:
        plan = self._plan
        decoder = Decoder(plan.settings.robot, plan.topics, plan.image_size)
        timeline = Timeline(plan.settings.period_ns, round(plan.settings.gap_s * 1e9))
        with BagReader(plan.bag, topics=plan.topics.names) as bag:
            count = sum(info.count for topic, info in bag.topics.items() if topic in plan.topics.names)
            start_ns, end_ns = bag.start_ns, bag.end_ns
            for event in timeline.events(decoder.messages(bag)):
                yield decoder.decode(event) if isinstance(event, Input) else event
            yield BagEnd(
                tuple(bag.findings), decoder.unreadable_commands, count, start_ns, end_ns, decoder.command_problem
            )

    def __enter__(self) -> InlineFeed:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is open."""


class ProcessFeed:
    """Reads in a process that is up to RING_BYTES of images ahead. Pixels cross in anonymous shared memory (F88)."""

    def __init__(self, plan: FeedPlan):
        context = multiprocessing.get_context("spawn")
        self._image_bytes = 3 * plan.image_size**2
        self._slots = max(8, min(MAX_SLOTS, RING_BYTES // self._image_bytes))
        self._side = plan.image_size
        ring = context.RawArray(ctypes.c_uint8, self._slots * self._image_bytes)  # a file without a name, mode 0600
        self._ring = np.frombuffer(ring, np.uint8).reshape(self._slots, self._side, self._side, 3)
        self._free = context.Semaphore(self._slots)
        self._connection, other = context.Pipe(duplex=False)
        with contextlib.suppress(OSError):  # a limit of this user: then it is less far ahead
            fcntl.fcntl(other.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._process = context.Process(
            target=_read, args=(plan, other, ring, self._free, self._slots, os.getpid()), daemon=True, name="flashrt-feed"
        )
        with children_without_interrupts():
            self._process.start()
        other.close()

    def __iter__(self) -> Iterator[Seen | Tick | BagEnd]:
        started = False
        while True:
            try:
                batch = self._connection.recv()
                started = True
            except EOFError:
                self._process.join(2.0)
                raise DeviceError(
                    "the reading process", expected="to reach the bag's end", found=f"exit code {self._process.exitcode}",
                    hint=SCRIPT_HINT if not started and self._process.exitcode == 1 else None,
                ) from None
            for event, slot in batch:
                if isinstance(event, str):
                    raise DeviceError("reading the bag", expected="messages", found=event)
                if slot >= 0:
                    image = self._ring[slot].copy()
                    self._free.release()
                    image.flags.writeable = False
                    event = replace(event, frame=replace(event.frame, image=image))
                yield event
                if isinstance(event, BagEnd):
                    return

    def __enter__(self) -> ProcessFeed:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()
        self._process.join(0.5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


def _read(plan: FeedPlan, out: Connection, memory: Any, free: Any, slots: int, parent: int) -> None:
    """The reading process: everything of an InlineFeed, pixels by slot number."""
    side = plan.image_size
    ring = np.frombuffer(memory, np.uint8).reshape(slots, side, side, 3)
    batch: list[tuple[Any, int]] = []
    used = ticks = 0
    try:
        try:
            for event in InlineFeed(plan):
                slot = -1
                if isinstance(event, ImageIn) and event.frame is not None:
                    if not free.acquire(block=False):
                        if batch:  # what is in it must be read for a slot to get free
                            out.send(batch)
                            batch = []
                        while not free.acquire(timeout=1.0):
                            if os.getppid() != parent:
                                return
                    slot = used % slots
                    ring[slot] = event.frame.image
                    event = replace(event, frame=replace(event.frame, image=_NO_PIXELS))
                    used += 1
                batch.append((event, slot))
                ticks += isinstance(event, Tick)
                if ticks >= BATCH or len(batch) >= 8 * BATCH:
                    out.send(batch)
                    batch, ticks = [], 0
            out.send(batch)
        except BrokenPipeError:
            return  # the other side has seen enough
        except Exception as error:  # the process's boundary: the other side says it
            out.send([*batch, (f"{type(error).__name__}: {error}", -1)])
    except (BrokenPipeError, KeyboardInterrupt):
        return
