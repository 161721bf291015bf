"""Outlet: the last steps of a command: guard, record, sinks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from flashrt_core.runtime.rtc_stats import RunnerEvent

from ..config.settings import RobotConfig
from .guard import Guard
from .health import Health
from .plan_limits import PlanLimits
from .tick_record import PlannedChunk, Sink, TickRecord

logger = logging.getLogger(__name__)
INTERNAL = "internal_error"  # no row of the table: health takes an unknown fault for a stop (rule R11)


class Outlet:
    """Publishes guarded commands and plans. published: the newest two commands sent since `begin`, oldest first.

    seq: number of the next command since `restart`. commands, held, clamped, sink_errors: counts since then.
    """

    def __init__(self, robot: RobotConfig, guard: Guard, health: Health, sinks: Sequence[Sink], period_s: float):
        self.guard, self._health, self.sinks, self._period_s = guard, health, list(sinks), period_s
        self._limits = PlanLimits(robot, period_s)
        self.restart()

    def restart(self) -> None:
        """A new activation: everything counts from zero."""
        self.seq = self.commands = self.held = self.clamped = self.sink_errors = 0
        self.begin()

    def begin(self) -> None:
        """Standstill at the guard's anchor."""
        self.published: deque[np.ndarray] = deque(maxlen=2)

    def set_limits(self, robot: RobotConfig) -> None:
        """Raises ConfigError when the dimensions differ."""
        self.guard.set_limits(robot)
        self._limits = PlanLimits(robot, self._period_s)

    def base(self) -> list[np.ndarray]:
        """What a hold starts from, oldest first: the commands sent, else the anchor, else nothing."""
        anchor = self.guard.last_command
        return list(self.published) or ([] if anchor is None else [anchor])

    def publish(self, command: np.ndarray, source: str, now: int, chunk: int, row: int) -> TickRecord | None:
        """Guard, then hand to every sink; chunk and row say where a command of source "chunk" comes from.

        None when the guard lets nothing through.
        """
        result = self.guard.check(command, hold=source != "chunk")
        self._health.report(result.violations, now)
        if result.command is None:
            return None
        self.published.append(result.command)
        if result.held and source == "chunk":
            source = "hold"  # the guard refused the row and keeps the arm still
        where = (chunk, row) if source == "chunk" else (-1, -1)
        clamped, level = bool(result.clamped), self._health.level
        record = TickRecord(self.seq, now, result.command.copy(), source, level, *where, clamped)
        self.seq += 1
        self.commands += 1
        self.held += source != "chunk"
        self.clamped += clamped
        for sink in self.sinks:
            self._hand(sink.command, record, now)
        return record

    def announce(self, event: RunnerEvent, record: TickRecord, ahead: np.ndarray | None, observation: object) -> None:
        """Hand the chunk that has taken over with `record` to every sink. ahead: its rows after that command."""
        rows = record.command[None] if ahead is None else np.concatenate([record.command[None], ahead])
        plan = PlannedChunk(
            record.chunk, record.seq, int(event.executed), self._limits.apply(rows), self._period_s, observation,
            event.latency_s or 0.0, event.disagreement,
        )  # fmt: skip
        for sink in self.sinks:
            self._hand(sink.chunk, plan, record.at_ns)

    def _hand(self, deliver: Callable[[object], None], item: object, now: int) -> None:
        try:
            deliver(item)
        except Exception:  # a sink's boundary: the others still get theirs
            self.sink_errors += 1
            logger.exception("sink %s", getattr(deliver, "__qualname__", deliver))
            self._health.raise_(INTERNAL, "a sink raised; the log has the traceback", now_ns=now)
