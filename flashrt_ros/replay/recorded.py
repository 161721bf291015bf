"""Matcher: brings predicted chunks and served commands together with the commands recorded for the same ticks."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from flashrt_core.runtime.clock import NS

from ..control.tick_record import TickRecord
from ..inputs.observation import Observation
from .outcome import BagOutcome, FirstFrame
from .settings import ReplaySettings
from .timeline import Tick

ROUNDING = 1e-6  # of a range: a float32 this far outside is not outside
BATCH = 32  # requests and commands that are worked off at once


@dataclass(frozen=True)
class _Open:
    """A request whose chunk reaches into ticks to come. shown: a FirstFrame without what was recorded."""

    episode: int
    tick: int
    chunk: np.ndarray
    shown: FirstFrame | None


class Matcher:
    """Row i of a chunk asked for at tick k is for tick k + i. Keeps the last `horizon` recorded commands."""

    def __init__(
        self, settings: ReplaySettings, outcome: BagOutcome, horizon: int, views: tuple[str, ...], start_ns: int
    ):
        self._settings, self._outcome, self._horizon, self._views = settings, outcome, horizon, views
        self._start_ns = start_ns
        self._per_second = max(1, round(settings.node.control_hz))
        self._open: deque[_Open] = deque()
        self._recorded: deque[np.ndarray] = deque(maxlen=horizon)
        self._nothing = np.full(len(settings.robot.actions), np.nan)
        self._lower, self._upper = (np.array([getattr(d, n) for d in settings.robot.actions]) for n in ("lower", "upper"))
        self._slack = ROUNDING * np.maximum(1.0, self._upper - self._lower)
        self._matched: list[tuple[_Open, np.ndarray]] = []
        self._served: list[tuple[int, int, np.ndarray]] = []

    def request(self, tick: Tick, obs: Observation, chunk: np.ndarray, now_ns: int) -> None:
        """A request made in tick `tick`, before `self.tick` of it."""
        shown = None
        if self._outcome.requests <= self._settings.first_frames:
            images = dict(zip(self._views, obs.images, strict=True))
            at_s, age_ms = (now_ns - self._start_ns) / NS, obs.age_s(now_ns) * 1e3
            shown = FirstFrame(images, obs.prompt, at_s, age_ms, np.array(chunk), np.zeros((0, 0)))
        self._open.append(_Open(tick.episode, tick.tick, chunk, shown))

    def tick(self, tick: Tick, record: TickRecord | None) -> None:
        """What was recorded for this tick, and what the loop served in it."""
        self._last = tick.tick
        self._recorded.append(self._nothing if tick.command is None else tick.command)
        if record is not None and record.source == "chunk" and tick.command is not None:
            self._served.append((tick.episode, tick.tick, record.command - tick.command))
        while self._open and self._open[0].tick + self._horizon - 1 <= tick.tick:
            self._close(self._open.popleft())
        if len(self._matched) >= BATCH or len(self._served) >= BATCH:
            self._work_off()

    def end_episode(self) -> None:
        """What the chunks still open say about later ticks has nothing to be compared with."""
        while self._open:
            self._close(self._open.popleft())
        self._recorded.clear()
        self._work_off()

    def _close(self, asked: _Open) -> None:
        """Put what was recorded beside the chunk, NaN where nothing was; the newest entry is of tick `self._last`."""
        recorded = np.full((self._horizon, len(self._nothing)), np.nan)
        known = min(self._horizon, self._last - asked.tick + 1)
        begin = len(self._recorded) - (self._last - asked.tick + 1)
        recorded[:known] = list(itertools.islice(self._recorded, begin, begin + known))
        self._matched.append((asked, recorded))
        if asked.shown is not None:
            self._outcome.first_frames.append(replace(asked.shown, recorded=recorded[: len(asked.chunk)]))

    def _work_off(self) -> None:
        """Add up what has gathered: a few large sums are much cheaper than many small ones."""
        out = self._outcome
        if self._served:
            normal = out.errors.add_served(np.stack([e for _, _, e in self._served]))
            for (episode, tick, _), row in zip(self._served, normal, strict=True):
                out.add_unit(episode, tick // self._per_second, "served", row)
        for rows in sorted({len(asked.chunk) for asked, _ in self._matched}):  # one length, unless a policy varies it
            same = [(a, r) for a, r in self._matched if len(a.chunk) == rows]
            chunks = np.stack([a.chunk for a, _ in same]).astype(np.float64)
            beyond = (chunks < self._lower - self._slack) | (chunks > self._upper + self._slack)
            out.outside += beyond.sum(axis=(0, 1))
            out.rows += len(same) * rows
            normal = out.errors.add_chunks(chunks - np.stack([r[:rows] for _, r in same]))
            for (asked, _), one in zip(same, normal, strict=True):
                second = asked.tick // self._per_second
                out.add_unit(asked.episode, second, "chunk", one)
                out.add_unit(asked.episode, second, "first", one[:1])
        self._served, self._matched = [], []
