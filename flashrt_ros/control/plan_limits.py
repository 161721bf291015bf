"""PlanLimits: the ranges and speeds of a robot applied to a whole chunk at once, for outputs that send it ahead of time."""

from __future__ import annotations

import numpy as np

from ..config.settings import RobotConfig


class PlanLimits:
    """Ranges, allowed choices and largest steps per action dimension. period_s: T."""

    def __init__(self, robot: RobotConfig, period_s: float):
        dims = robot.actions
        self._lower, self._upper = (np.array([getattr(d, n) for d in dims]) for n in ("lower", "upper"))
        speed = np.array([np.inf if d.v_max is None else d.v_max for d in dims]) * period_s
        delta = np.array([d.kind == "delta" for d in dims])
        self._step = np.where(delta, np.inf, speed)
        self._lower = np.where(delta, np.maximum(self._lower, -speed), self._lower)
        self._upper = np.where(delta, np.minimum(self._upper, speed), self._upper)
        self._choices = {i: np.array(d.values) for i, d in enumerate(dims) if d.values}

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """`rows` [N, A] within the limits, float64, a new array; the first row is taken as it is (it has been sent).

        Where a step is too large the rest of the plan is moved by what was cut off: slower, never faster.
        """
        out = np.array(rows, dtype=np.float64)
        if len(out) > 1:
            steps = np.diff(out, axis=0)
            cut = np.clip(steps, -self._step, self._step)
            if not np.array_equal(cut, steps):
                out[1:] = out[0] + np.cumsum(cut, axis=0)
            out[1:] = np.clip(out[1:], self._lower, self._upper)
        for i, choices in self._choices.items():
            out[1:, i] = choices[np.argmin(np.abs(choices[None] - out[1:, i, None]), axis=1)]
        return out
