"""What the control loop hands on: one TickRecord per command, one PlannedChunk per chunk, to objects called sinks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .health import Level


@dataclass(frozen=True)
class TickRecord:
    """One command as published.

    seq: number of the command since activation, without gaps. at_ns: steady clock. command: float [A], guarded.
    source: "chunk" (a row of the policy), "hold" (on the way to rest or at rest), "anchor" (before the first chunk).
    chunk: number of the chunk since activation; row: its row, which is the number of commands since its observation;
    both -1 when the source is not a chunk. clamped: the guard changed the command. level: of health in this period.
    """

    seq: int
    at_ns: int
    command: np.ndarray
    source: str
    level: Level = Level.OK
    chunk: int = -1
    row: int = -1
    clamped: bool = False


@dataclass(frozen=True)
class PlannedChunk:
    """A chunk that has taken over with command `seq`.

    chunk: its number since activation. executed: rows that were past when it came. rows: float [N, A], as they will be
    served from `seq` on unless a newer chunk or a hold comes first; each passed the guard's ranges and speeds, not its
    accelerations, which a controller that gets them ahead has to limit. period_s: T. observation: what it was computed from.
    latency_s: request to result. disagreement: D of CB4 or None.
    """

    chunk: int
    seq: int
    executed: int
    rows: np.ndarray
    period_s: float
    observation: object
    latency_s: float
    disagreement: float | None = None


class Sink(Protocol):
    """Called from the control tick: quick, no waiting. What it raises becomes a fault; the other sinks are still served."""

    def command(self, record: TickRecord) -> None: ...

    def chunk(self, plan: PlannedChunk) -> None: ...


class RecordingSink:
    """Keeps the newest `limit` records and chunks."""

    def __init__(self, limit: int = 100_000):
        self.records: deque[TickRecord] = deque(maxlen=limit)
        self.chunks: deque[PlannedChunk] = deque(maxlen=limit)

    def command(self, record: TickRecord) -> None:
        self.records.append(record)

    def chunk(self, plan: PlannedChunk) -> None:
        self.chunks.append(plan)

    @property
    def commands(self) -> np.ndarray:
        """[N, A]."""
        return np.array([r.command for r in self.records])
