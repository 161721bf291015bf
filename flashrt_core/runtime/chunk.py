"""Action chunks as data: cut off what was executed, join the new chunk to the old one.

All functions are pure and take a chunk as an array [H, A] whose row i is the command for i ticks after the observation.
`command.py` says what a dimension means, `rest.py` how a chunk ends, `boundary.py` how good a join was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import FlashRTError
from .boundary import BoundaryMetrics, boundary_metrics
from .command import CommandSpec
from .rest import hold_action, rest_tail

__all__ = [
    "SPLICES", "BoundaryMetrics", "ChunkError", "CommandSpec", "Join", "align", "boundary_metrics", "check_chunk",
    "disagreement", "hold_action", "linear", "none", "quintic", "rest_tail", "temporal_fusion",
]  # fmt: skip


@dataclass(frozen=True)
class Join:
    """What a splice strategy may know besides the two chunks.

    blend: ticks over which to blend (at most the rows of the new chunk are used). spec: what the dimensions mean;
    discrete ones always come from the new chunk. last: [K, A] the last commands served, newest last (2 are enough);
    it gives the velocity where the old chunk is short. history: (age in ticks, rows aligned to now) of older chunks as
    the policy gave them, newest first; decay (1/ticks) and max_chunks (with the new one) are of `temporal_fusion`.
    """

    blend: int = 0
    spec: CommandSpec = field(default_factory=CommandSpec)
    last: np.ndarray | None = None
    history: Sequence[tuple[int, np.ndarray]] = ()
    decay: float = 0.1
    max_chunks: int = 3


class ChunkError(FlashRTError, ValueError):
    """A policy's output is not a usable chunk."""


def check_chunk(actions: object, *, dims: int | None = None) -> np.ndarray:
    """A private, floating-point copy [H, A] of a policy's output.

    Raises ChunkError naming the shape or the row (F40, F42). dims: the number of dimensions that it must have.
    Integers become float32. Finite means finite as float32, so later differences cannot overflow.
    """
    try:
        rows = np.array(actions)
        if rows.dtype.kind in "iub":
            rows = rows.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ChunkError("action chunk", expected="numbers [horizon, action_dim]", found=str(error)) from None
    wanted = f"float [horizon >= 1, {'action_dim >= 1' if dims is None else dims}]"
    if rows.dtype.kind != "f" or rows.ndim != 2 or 0 in rows.shape or (dims is not None and rows.shape[1] != dims):
        raise ChunkError("action chunk", expected=wanted, found=f"{rows.dtype} {rows.shape}")
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(rows.astype(np.float32))
    if bad.any():
        row, dim = (int(i) for i in np.argwhere(bad)[0])
        raise ChunkError("action chunk", expected="finite numbers", found=f"{rows[row, dim]} at row {row}, dim {dim}")
    return rows


def align(chunk: np.ndarray, executed: int) -> np.ndarray:
    """The rows still to come after `executed` ticks: chunk[executed:], empty [0, A] when all are past. A view."""
    if executed < 0:
        raise ChunkError("executed", expected=">= 0 ticks", found=executed)
    return chunk[executed:]


def disagreement(old: np.ndarray, new: np.ndarray, spec: CommandSpec) -> float | None:
    """CB4: D = max |new[0] - old[0]| over the dimensions that are not discrete; None when either is empty."""
    if not (len(old) and len(new)):
        return None
    gap = np.abs(np.asarray(new[0], dtype=np.float64) - old[0])
    return float(np.max(gap[~spec.mask(spec.discrete_dims, len(gap))], initial=0.0))


def _continued(old: np.ndarray, count: int, join: Join) -> np.ndarray | None:
    """`old` made `count` rows long by letting it come to rest; None when nothing is known about the past."""
    last = join.last
    past = old if last is None or not len(last) else np.concatenate([last, old]) if len(old) else last
    if not len(past):
        return None
    if len(old) >= count:
        return old[:count]
    tail = rest_tail(past[-1], past[-2] if len(past) > 1 else None, join.spec)
    stay = np.repeat(tail[-1:], max(0, count - len(old) - len(tail)), axis=0)
    return np.concatenate([old, tail, stay])[:count]


def _fade(old: np.ndarray, new: np.ndarray, join: Join, weight: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    count = min(join.blend, len(new))
    before = _continued(old, count, join) if count else None
    if before is None:
        return new.copy()
    t = np.arange(1, count + 1) / (count + 1)  # t = 0 is the last old command, t = 1 the first that is all new
    out = new.astype(np.float64)
    out[:count] += weight(t)[:, None] * (before - out[:count])
    return _with_choices(out, new, join)


def _with_choices(out: np.ndarray, new: np.ndarray, join: Join) -> np.ndarray:
    """`out` in new's dtype, its discrete dimensions those of `new`."""
    discrete = list(join.spec.discrete_dims)
    out[:, discrete] = new[:, discrete]
    return out.astype(new.dtype)


def none(old: np.ndarray, new: np.ndarray, join: Join) -> np.ndarray:
    """Serve the new chunk as it is."""
    return new.copy()


def linear(old: np.ndarray, new: np.ndarray, join: Join) -> np.ndarray:
    """Cross-fade with weight 1 - t of the old command: no position step, but steps in velocity."""
    return _fade(old, new, join, lambda t: 1.0 - t)


def quintic(old: np.ndarray, new: np.ndarray, join: Join) -> np.ndarray:
    """Minimum-jerk blend: new + s(t) (old - new), s(t) = 1 - 10 t^3 + 15 t^4 - 6 t^5.

    s has zero slope and curvature at both ends, so position, velocity and acceleration go over from the old motion to
    the new one without a step.
    """
    return _fade(old, new, join, lambda t: 1.0 + t**3 * (-10.0 + t * (15.0 - 6.0 * t)))


def temporal_fusion(old: np.ndarray, new: np.ndarray, join: Join) -> np.ndarray:
    """Average all chunks that cover a tick, weight exp(-decay * age), age in ticks between the requests (new: 0).

    The temporal ensembling of ACT (Zhao et al. 2023, section IV.B) with the newest chunk weighted most; sums in
    float64. Without `join.history` the old rows count as one chunk of age 1.
    """
    older = list(join.history) or ([(1, old)] if len(old) else [])
    total, weights = new.astype(np.float64), np.ones((len(new), 1))
    for age, rows in older[: max(0, join.max_chunks - 1)]:
        count, weight = min(len(rows), len(new)), float(np.exp(-join.decay * abs(age)))
        total[:count] += weight * rows[:count]
        weights[:count] += weight
    return _with_choices(total / weights, new, join)


# Every strategy takes (old, new, join): old [M, A] is what would be served from now on without the new chunk (M >= 0;
# where too short it is continued to rest), new [N, A] the new chunk aligned to now. It returns the chunk to serve,
# [N, A] in new's dtype. Adding one is a function and a row.
SPLICES: dict[str, Callable[[np.ndarray, np.ndarray, Join], np.ndarray]] = {
    "none": none,
    "linear": linear,
    "quintic": quintic,
    "temporal_fusion": temporal_fusion,
}
