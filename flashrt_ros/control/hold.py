"""Ramp: decelerate from the last published commands to rest, then keep still (rule R5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flashrt_core.runtime.command import CommandSpec
from flashrt_core.runtime.rest import rest_tail


class Ramp:
    """The commands of a hold, one per call of `next`. last, previous: the commands published before it, [A]."""

    def __init__(self, last: np.ndarray, previous: np.ndarray | None, spec: CommandSpec):
        self._rows = rest_tail(last, previous, spec)
        self._at = 0

    @classmethod
    def after(cls, published: Sequence[np.ndarray], spec: CommandSpec) -> Ramp | None:
        """The ramp that follows the newest published commands (oldest first); None when there are none."""
        if not published:
            return None
        return cls(published[-1], published[-2] if len(published) > 1 else None, spec)

    @property
    def at_rest(self) -> bool:
        """The last row, which is at rest, has been given out."""
        return self._at >= len(self._rows)

    def next(self) -> np.ndarray:
        """The next command [A]."""
        row = self._rows[min(self._at, len(self._rows) - 1)]
        self._at += 1
        return row.copy()
