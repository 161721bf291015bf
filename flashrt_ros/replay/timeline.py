"""Timeline: the messages of a bag in the order of log time becomes a control loop's view: messages, ticks, episodes.

Ticks lie on a grid of one period through the first recorded command of an episode. The recorded command of a tick is the one
nearest to it, at most half a period away. An episode ends where no command comes for `gap_ns`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Input:
    """A message that goes into a slot at log time `at_ns`. item: decoded later, by whoever reads the timeline."""

    at_ns: int
    item: object


@dataclass(frozen=True)
class Command:
    """A recorded command, float64 [A]."""

    at_ns: int
    values: np.ndarray


@dataclass(frozen=True)
class Tick:
    """One control period. episode, tick: numbers from 0. command: what was recorded for it, [A], or None."""

    at_ns: int
    episode: int
    tick: int
    command: np.ndarray | None


class Timeline:
    """`events` turns inputs and commands into inputs and ticks; memory is bounded by the inputs of `gap_ns`."""

    def __init__(self, period_ns: int, gap_ns: int):
        self._period, self._gap = period_ns, gap_ns
        self._pending: deque[Input] = deque()
        self._known: dict[int, tuple[int, np.ndarray]] = {}  # tick -> (how far its command is, command)
        self._start_ns: int | None = None  # of the episode's grid
        self._last_ns = 0  # log time of the newest command
        self._next = 0  # next tick to give out
        self._reach = -1  # last tick known to belong to the episode
        self._episode = -1
        self._newest_ns = 0

    def events(self, messages: Iterable[Input | Command]) -> Iterator[Input | Tick]:
        """Everything in order: an input before the first tick that may see it (its log time <= the tick's)."""
        for message in messages:
            self._newest_ns = max(self._newest_ns, message.at_ns)
            if self._start_ns is not None and self._newest_ns - self._last_ns > self._gap:
                yield from self._close()
            if isinstance(message, Command):
                yield from self._command(message)
            elif self._start_ns is None:
                yield message
            else:
                self._pending.append(message)
        yield from self._close()

    def _command(self, message: Command) -> Iterator[Input | Tick]:
        at = self._newest_ns
        if self._start_ns is None:
            self._start_ns, self._next, self._reach = at, 0, -1
            self._episode += 1
        self._last_ns = at
        tick = (at - self._start_ns + self._period // 2) // self._period
        off = abs(at - self._start_ns - tick * self._period)
        if tick >= self._next and off < self._known.get(tick, (self._period,))[0]:
            self._known[tick] = off, message.values
        self._reach = max(self._reach, tick)
        yield from self._ticks(self._reach - 1)  # the newest may still get a nearer command

    def _ticks(self, last: int) -> Iterator[Input | Tick]:
        while self._next <= last:
            at = self._start_ns + self._next * self._period
            while self._pending and self._pending[0].at_ns <= at:
                yield self._pending.popleft()
            _, command = self._known.pop(self._next, (0, None))
            yield Tick(at, self._episode, self._next, command)
            self._next += 1

    def _close(self) -> Iterator[Input | Tick]:
        """The episode is over: its last ticks, then what came since."""
        if self._start_ns is not None:
            yield from self._ticks(self._reach)
        self._start_ns = None
        self._known.clear()
        while self._pending:
            yield self._pending.popleft()
