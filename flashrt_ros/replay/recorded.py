"""Matcher: brings predicted chunks and served commands together with the commands recorded for the same ticks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from flashrt_core.runtime.clock import NS

from ..control.tick_record import TickRecord
from ..inputs.observation import Observation
from .outcome import BagOutcome, FirstFrame
from .settings import ReplaySettings
from .timeline import Tick


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

    def request(self, tick: Tick, obs: Observation, chunk: np.ndarray, now_ns: int) -> None:
        """A request made in tick `tick`, before `self.tick` of it."""
        shown = None
        if self._outcome.requests <= self._settings.first_frames:
            images = dict(zip(self._views, obs.images, strict=True))
            at_s, age_ms = (now_ns - self._start_ns) / NS, obs.age_s(now_ns) * 1e3
            shown = FirstFrame(images, obs.prompt, at_s, age_ms, np.array(chunk), np.zeros((0, 0)))
        self._open.append(_Open(tick.episode, tick.tick, np.asarray(chunk, np.float64), shown))

    def tick(self, tick: Tick, record: TickRecord | None) -> None:
        """What was recorded for this tick, and what the loop served in it."""
        self._recorded.append(self._nothing if tick.command is None else tick.command)
        if record is not None and record.source == "chunk" and tick.command is not None:
            normal = self._outcome.errors.add_served((record.command - tick.command)[None])
            self._outcome.add_unit(tick.episode, tick.tick // self._per_second, "served", normal)
        while self._open and self._open[0].tick + self._horizon - 1 <= tick.tick:
            self._match(self._open.popleft(), tick.tick)
        self._last = tick.tick

    def end_episode(self) -> None:
        """What the chunks still open say about later ticks has nothing to be compared with."""
        while self._open:
            self._match(self._open.popleft(), self._last)
        self._recorded.clear()

    def _match(self, asked: _Open, newest: int) -> None:
        rows = len(asked.chunk)
        past = list(self._recorded)[max(0, len(self._recorded) - 1 - (newest - asked.tick)) :]
        recorded = np.full((rows, len(self._nothing)), np.nan)
        known = min(rows, len(past))
        recorded[:known] = past[:known]
        normal = self._outcome.errors.add_chunk(asked.chunk - recorded)
        second = asked.tick // self._per_second
        self._outcome.add_unit(asked.episode, second, "chunk", normal)
        self._outcome.add_unit(asked.episode, second, "first", normal[:1])
        if asked.shown is not None:
            s = asked.shown
            frame = FirstFrame(s.images, s.prompt, s.at_s, s.age_ms, s.predicted, recorded)
            self._outcome.first_frames.append(frame)
