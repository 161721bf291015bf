"""Health: which faults are active, what the worst of them means for the robot, and when each is over."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ..redact import one_line, public_error
from .faults import FAULTS, GOOD_CYCLES, FaultReport, FaultRow, Level, fault_table, levels_markdown, table_markdown

__all__ = ["FAULTS", "ActiveFault", "FaultReport", "FaultRow", "Health", "HealthEvent", "Level", "fault_table"]

UNKNOWN = "unknown"  # counter of ids that are not in the table


@dataclass
class ActiveFault:
    """A fault that is not over. good: control periods in a row without it at this level. since_ns: node's clock."""

    id: str
    level: Level
    reason: str
    since_ns: int
    good: int = 0
    seen: Level = Level.OK  # worst level reported in the period under way
    seen_reason: str = ""


@dataclass(frozen=True)
class HealthEvent:
    """A change: kind "raise", "level" or "clear"; the level it is at from then on."""

    at_ns: int
    kind: str
    id: str
    level: Level
    reason: str

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "level": self.level.name.lower()}


class Health:
    """Faults by id. `raise_` any number of times in a control period, then `cycle` once: it says what to do.

    A fault must be raised in every period in which it holds. Note ends with the first good period, coast after 3, hold
    after 5 (auto_resume; else by the operator), stop by the operator, exit never. An unknown id means stop (rule R11).
    `raise_`, `clear` and `to_status` may be called from any thread; none of them waits for anything but the others.
    """

    def __init__(self, *, auto_resume: bool = True, event_log: int = 256, logger: logging.Logger | None = None):
        self.auto_resume = auto_resume
        self.counters: dict[str, int] = {}
        self._events: deque[HealthEvent] = deque(maxlen=event_log)
        self._active: dict[str, ActiveFault] = {}
        self._log = logger or logging.getLogger(__name__)
        self._lock = threading.Lock()

    # ---- faults in

    def raise_(
        self, fault: str, reason: str | BaseException = "", *, level: Level | None = None, now_ns: int = 0
    ) -> Level:
        """Say that `fault` holds in this period. Returns the level that it is at now. Never raises.

        level: when it has grown beyond the row's first level; one below that counts as the first. reason: text, or the
        error (cut to what may be published).
        """
        text = public_error(reason) if isinstance(reason, BaseException) else one_line(str(reason))
        row = FAULTS.get(fault)
        # A fault that cannot happen at run time has happened: nobody knows what it means.
        least = row.level if row is not None and row.levels else Level.STOP
        level = least if level is None else max(least, Level(level))
        with self._lock:
            entry = self._active.get(fault)
            if entry is None:
                entry = self._active[fault] = ActiveFault(fault, level, text, now_ns)
                name = row.name if row is not None else UNKNOWN
                self.counters[name] = self.counters.get(name, 0) + 1
                self._event(now_ns, "raise", entry)
            elif level > entry.level:
                entry.level, entry.reason = level, text
                self._event(now_ns, "level", entry)
            if level > entry.seen:
                entry.seen, entry.seen_reason = level, text
            return entry.level

    def report(self, reports: Iterable[FaultReport], now_ns: int = 0) -> None:
        """`raise_` each of them."""
        for r in reports:
            self.raise_(r.id, r.reason, level=r.level, now_ns=now_ns)

    def clear(self, fault: str, now_ns: int = 0) -> None:
        """End a fault at once, whatever its level; does nothing when it is not active."""
        with self._lock:
            self._end(fault, now_ns)

    def operator_clear(self, now_ns: int = 0) -> None:
        """The operator's activate: end everything but exit. What still holds is raised again in the next period."""
        with self._lock:
            for fault in [f for f, entry in self._active.items() if entry.level < Level.EXIT]:
                self._end(fault, now_ns)

    # ---- decisions out

    def cycle(self, now_ns: int = 0) -> Level:
        """Close the control period: count the good ones, end what is over, return the worst level."""
        with self._lock:
            for fault in list(self._active):
                self._age(self._active[fault], now_ns)
            return self._worst_level()

    @property
    def level(self) -> Level:
        """The worst active level; OK without faults."""
        with self._lock:
            return self._worst_level()

    @property
    def worst(self) -> ActiveFault | None:
        """The fault that decides: the worst, of equals the oldest."""
        with self._lock:
            return max(self._active.values(), key=lambda e: e.level, default=None)

    @property
    def active(self) -> dict[str, Level]:
        """Level of each active fault, oldest first."""
        with self._lock:
            return {f: e.level for f, e in self._active.items()}

    @property
    def events(self) -> list[HealthEvent]:
        """The newest changes, oldest first."""
        with self._lock:
            return list(self._events)

    def to_status(self) -> dict[str, object]:
        """Plain data for the status message: level, its name, the reason, all faults and counters."""
        with self._lock:
            faults = sorted(self._active.values(), key=lambda e: -e.level)
            level = self._worst_level()
            return {
                "level": int(level), "state": level.name.lower(), "action": level.action,
                "reason": _line(faults[0]) if faults else "",
                "faults": [
                    {"id": e.id, "name": _name(e.id), "level": int(e.level), "state": e.level.name.lower(),
                     "reason": e.reason, "since_ns": e.since_ns}
                    for e in faults
                ],
                "counters": dict(self.counters),
            }  # fmt: skip

    # ---- inside, under the lock

    def _worst_level(self) -> Level:
        return max((e.level for e in self._active.values()), default=Level.OK)

    def _age(self, entry: ActiveFault, now_ns: int) -> None:
        seen, reason = entry.seen, entry.seen_reason
        entry.seen, entry.seen_reason = Level.OK, ""
        if seen >= entry.level:
            entry.good, entry.reason = 0, reason
            return
        entry.good += 1
        if entry.level >= Level.STOP or (entry.level == Level.HOLD and not self.auto_resume):
            return
        if entry.good < GOOD_CYCLES[entry.level]:
            return
        if seen == Level.OK:
            self._end(entry.id, now_ns)
        else:
            entry.level, entry.reason, entry.good = seen, reason, 0
            self._event(now_ns, "level", entry)

    def _end(self, fault: str, now_ns: int) -> None:
        entry = self._active.pop(fault, None)
        if entry is not None:
            entry.level = Level.OK
            self._event(now_ns, "clear", entry)

    def _event(self, now_ns: int, kind: str, entry: ActiveFault) -> None:
        self._events.append(HealthEvent(now_ns, kind, entry.id, entry.level, entry.reason))
        if kind == "clear":
            self._log.info("%s %s is over", entry.id, _name(entry.id))
        else:
            self._log.warning("%s (%s)", _line(entry), entry.level.name.lower())


def _name(fault: str) -> str:
    return FAULTS[fault].name if fault in FAULTS else UNKNOWN


def _line(entry: ActiveFault) -> str:
    return f"{entry.id} {_name(entry.id)}: {entry.reason}" if entry.reason else f"{entry.id} {_name(entry.id)}"


def main() -> int:
    """`python -m flashrt_ros.control.health --table`: the same as `flashrt health --markdown`, where the CLI is not installed."""
    if sys.argv[1:] not in ([], ["--table"]):
        sys.stderr.write("usage: python -m flashrt_ros.control.health [--table]\n")
        return 2
    sys.stdout.write(levels_markdown() + "\n" + table_markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
