"""Coming to rest: the commands that follow a chunk when nothing newer has arrived (rules R4, R5)."""

from __future__ import annotations

import math

import numpy as np

from .command import CommandSpec

# No ramp is longer than this, whatever the limits say: a tiny a_max must not turn a hold into a long drive.
MAX_RAMP_S = 10.0


def hold_action(command: np.ndarray, spec: CommandSpec) -> np.ndarray:
    """The command that keeps still: positions and choices as they are, deltas zero. [A] -> [A], a new array."""
    out = np.array(command)
    out[list(spec.delta_dims)] = 0
    return out


def command_velocity(last: np.ndarray, previous: np.ndarray | None, spec: CommandSpec) -> np.ndarray:
    """Velocity asked for by the last command, float64 [A] in units/s; zero at discrete dimensions.

    Position: (last - previous) / T, zero when there is no previous one. Delta: last / T.
    """
    last = np.asarray(last, dtype=np.float64)
    v = np.zeros(len(last)) if previous is None else last - np.asarray(previous, dtype=np.float64)
    delta = list(spec.delta_dims)
    v[delta] = last[delta]
    v[list(spec.discrete_dims)] = 0.0
    return v / spec.period_s


def rest_tail(last: np.ndarray, previous: np.ndarray | None, spec: CommandSpec) -> np.ndarray:
    """Commands [n, A] (n >= 1) that take the motion of the last command to rest along its own direction.

    The velocity v falls linearly to zero in n ticks, all dimensions together, so the path stays on the line of the last
    command: v_j = v (1 - j/n), j = 1..n. n is the smallest count for which no dimension exceeds a_max, so the ramp
    takes at most max(v / a_max) + T; without an a_max it is `spec.rest_ticks`. Positions are summed up from `last`,
    deltas are v_j T, discrete dimensions keep their value. The last row is at rest: it may be repeated for ever.
    A velocity above v_max is first scaled down to it (then that one step may exceed a_max). last, previous: [A].
    """
    v = command_velocity(last, previous, spec)
    dims, period = len(v), spec.period_s
    over = np.max(np.abs(v) / spec.limit(spec.v_max, dims), initial=0.0)
    v = v / max(1.0, over)
    if not np.any(v):
        return hold_action(last, spec)[None]
    n = spec.rest_ticks
    if spec.a_max is not None:
        n = math.ceil(np.max(np.abs(v) / (spec.limit(spec.a_max, dims) * period)) - 1e-9)
    n = max(1, min(n, math.ceil(MAX_RAMP_S / period)))
    steps = v * period * (1.0 - np.arange(1, n + 1)[:, None] / n)  # [n, A], row n-1 is zero
    rows = np.asarray(last, dtype=np.float64) + np.cumsum(steps, axis=0)
    delta = list(spec.delta_dims)
    rows[:, delta] = steps[:, delta]
    return rows.astype(np.asarray(last).dtype)
