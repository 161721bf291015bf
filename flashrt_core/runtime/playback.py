"""Playback: which command belongs to which tick; chunks go in, one command per tick comes out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError, FlashRTError
from .chunk import SPLICES, ChunkError, Join, align, check_chunk, disagreement
from .rest import hold_action, rest_tail
from .rtc_config import RTCConfig

FADES = ("linear", "quintic")  # the strategies that `blend` means something to


@dataclass
class _Chunk:
    """Row i is for tick `tick + i`. raw: as the policy gave it. rows: as served, after splicing."""

    tick: int
    raw: np.ndarray
    rows: np.ndarray


class Playback:
    """The commands since one reset. Knows ticks, not time; no worker, no errors of a policy.

    tick: number of the next command. dims: A, None until known. started: a chunk has been taken. held_in_row: length
    of the hold under way, 0 when the last command came from a chunk.
    """

    def __init__(self, config: RTCConfig, anchor: np.ndarray | None = None):
        self.tick = 0
        self.dims: int | None = None
        self.started = False
        self.held_in_row = 0
        self._config, self._spec = config, config.spec
        self._chunk: _Chunk | None = None
        self._history: deque[_Chunk] = deque(maxlen=max(1, config.max_chunks - 1))  # newest first
        self._last: np.ndarray | None = None
        self._previous: np.ndarray | None = None
        self._tail: np.ndarray | None = None  # the way to rest, while holding
        if anchor is not None:
            row = check_chunk(np.asarray(anchor)[None])[0]
            self._spec.check_dims(len(row))
            self._last, self.dims = hold_action(row, self._spec), len(row)

    def reconfigure(self, config: RTCConfig) -> None:
        """Other settings for the joins and holds to come."""
        self._config, self._spec = config, config.spec

    def index(self) -> tuple[int, int] | None:
        """(row for this tick, rows) of the current chunk; None when there is none or it is used up."""
        chunk = self._chunk
        if chunk is None or self.tick - chunk.tick >= len(chunk.rows):
            return None
        return self.tick - chunk.tick, len(chunk.rows)

    def plan(self) -> np.ndarray | None:
        """The rows of the current chunk from this tick on [N, A], a copy; None when there is none."""
        return self._ahead()[0].copy() if self.index() else None

    def misfit(self, raw: np.ndarray) -> FlashRTError | None:
        """What is wrong with a chunk's number of dimensions, if anything."""
        try:
            self._spec.check_dims(raw.shape[1])
        except ConfigError as error:
            return error
        if self.dims not in (None, raw.shape[1]):
            return ChunkError("action chunk", expected=f"[horizon, {self.dims}]", found=raw.shape)
        return None

    def disagreement(self, raw: np.ndarray, executed: int) -> float | None:
        """CB4: how far the new chunk is from the current one at this tick; None when none is running."""
        return disagreement(self._ahead()[0], align(raw, executed), self._spec) if self.index() else None

    def take(self, raw: np.ndarray, executed: int) -> int:
        """Let `raw` take over from its row `executed` on, joined to what would have come. Returns the ticks blended."""
        old, overlap = self._ahead()
        new = align(raw, executed)
        config, tick = self._config, self.tick - executed
        blend = (
            min(config.blend_steps or overlap or self._spec.rest_ticks, len(new)) if config.splice_name in FADES else 0
        )
        last = None if self._last is None else np.stack([x for x in (self._previous, self._last) if x is not None])
        history = [(tick - c.tick, align(c.raw, self.tick - c.tick)) for c in self._history]
        join = Join(blend, self._spec, last, history, config.fusion_decay, config.max_chunks)
        rows = SPLICES[config.splice_name](old, new, join)
        self._chunk = _Chunk(tick, raw, np.concatenate([raw[:executed], rows]))
        self._history.appendleft(self._chunk)
        self.started, self.dims = True, raw.shape[1]
        return blend

    def _ahead(self) -> tuple[np.ndarray, int]:
        """What would be served from now on without a new chunk [M, A], and how many of its rows are the policy's."""
        if self.index():
            rows = align(self._chunk.rows, self.tick - self._chunk.tick)
            return rows, len(rows)
        if self.held_in_row:
            return self._tail[self.held_in_row :], 0
        return np.zeros((0, 0 if self._last is None else len(self._last))), 0

    def drop(self) -> None:
        """End the current chunk: the next command is the first of a hold."""
        self._chunk = None

    def freeze(self) -> None:
        """What was planned belongs to another time: forget it and stand still at the last command."""
        self._chunk = None
        self._history.clear()
        if self._last is not None:
            self._last, self._previous = hold_action(self._last, self._spec), None
            self._tail, self.held_in_row = self._last[None], min(self.held_in_row, 1)

    def step(self) -> np.ndarray | None:
        """This tick's command [A], a new array; None when nothing is known to command. Goes on to the next tick."""
        at = self.index()
        if at:
            action = self._chunk.rows[at[0]]
            self._tail, self.held_in_row = None, 0
        else:
            self._chunk = None
            action = self._hold()
        self.tick += 1
        if action is None:
            return None
        self._previous, self._last = self._last, action.copy()
        return action.copy()

    def _hold(self) -> np.ndarray | None:
        if self._last is None:
            return None
        if self._tail is None:
            self._tail = rest_tail(self._last, self._previous, self._spec)
        row = min(self.held_in_row, len(self._tail) - 1)
        self.held_in_row += 1
        return self._tail[row]
