"""Merges parts of a bag into one stream in order of log time, opening a part only when its time has come."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class BagMessage:
    """One recorded message. type: as in "sensor_msgs/msg/Image". log_time_ns: when it was recorded. data: CDR."""

    topic: str
    type: str
    log_time_ns: int
    data: bytes


class Source(Protocol):
    """A part of a bag, a chunk or a database file. start_ns: not after its first message."""

    start_ns: int

    def rows(self, topics: Collection[str] | None) -> Iterator[tuple[int, Any]]:
        """(log time, key) of its messages, sorted by time and stable; of all topics for None."""

    def message(self, key: Any) -> BagMessage | None:
        """The message of a key; None when it turns out to be damaged."""


def merged(sources: Sequence[Source], topics: Collection[str] | None) -> Iterator[BagMessage]:
    """The messages of all sources in order of log time; equal times in the order of the sources.

    Only sources that overlap in time are open together.
    """
    waiting = sorted(enumerate(sources), key=lambda pair: pair[1].start_ns)
    heap: list[tuple[int, int, Any, Source, Iterator[tuple[int, Any]]]] = []
    at, end = 0, len(waiting)
    while heap or at < end:
        while at < end and (not heap or waiting[at][1].start_ns <= heap[0][0]):
            number, source = waiting[at]
            at += 1
            rows = source.rows(topics)
            first = next(rows, None)
            if first is not None:
                heapq.heappush(heap, (first[0], number, first[1], source, rows))
        if not heap:
            continue
        _, number, key, source, rows = heap[0]
        message = source.message(key)
        following = next(rows, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following[0], number, following[1], source, rows))
        if message is not None:
            yield message
