"""Boundary metrics: how smooth the published commands are where one chunk gives way to the next (CB1-CB7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import ConfigError

# Below this a P99 of |a| counts as "no motion": keeps CB1 finite (and the report valid JSON) on a still robot.
ACCELERATION_FLOOR = 1e-6


@dataclass(frozen=True)
class BoundaryMetrics:
    """Figures of one or more runs. None = not defined for this run (no switch, no limit given, ...).

    switches: chunk switches counted. samples: commands.
    cb1_ratio: P99|a| over the boundary ticks / P99|a| over the rest, worst dimension; cb1_ratio_median: the same
    ratio in the median dimension. cb1_p99_boundary, cb1_p99_interior: both P99 in the worst dimension, units/s^2.
    cb2_violations: samples (tick, dimension) with |v| > v_max or |a| > a_max. cb3_step_over: max over switches and
    dimensions of |c_s - c_{s-1}| - v_max T (<= 0 is good). cb3_step: that step without the limit, units.
    cb4_max, cb4_mean: disagreement D per switch. cb4_over: how many exceed D_max.
    cb5_jerk: max |jerk|, units/s^3. cb5_ratio: divided by that of the synchronous reference run.
    cb6_index_law: share of switches whose executed index equals the elapsed ticks (1.0 is good).
    cb7_hold_a: max |a| from a hold's entry until rest, units/s^2. cb7_rest_s: longest time from entry to rest.
    """

    switches: int
    samples: int
    cb1_ratio: float | None = None
    cb1_ratio_median: float | None = None
    cb1_p99_boundary: float | None = None
    cb1_p99_interior: float | None = None
    cb2_violations: int | None = None
    cb3_step_over: float | None = None
    cb3_step: float | None = None
    cb4_max: float | None = None
    cb4_mean: float | None = None
    cb4_over: int | None = None
    cb5_jerk: float | None = None
    cb5_ratio: float | None = None
    cb6_index_law: float | None = None
    cb7_hold_a: float | None = None
    cb7_rest_s: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """Plain numbers and None, ready for `json.dumps(..., allow_nan=False)`."""
        return asdict(self)


@dataclass(frozen=True)
class _Motion:
    """Derivatives on the tick grid, [N, A], NaN where not defined.

    v[k] = (c[k] - c[k-1]) / T, the velocity of the move made at tick k. a[k] = (c[k+1] - 2 c[k] + c[k-1]) / T^2,
    centred on k, so that a step between s-1 and s shows in a[s-1] and a[s]: both lie in the boundary ticks s-1 .. s+w.
    jerk[k] = (a[k] - a[k-1]) / T.
    """

    v: np.ndarray
    a: np.ndarray
    jerk: np.ndarray


def _motion(positions: np.ndarray, starts: Sequence[int], period_s: float) -> _Motion:
    v = np.full(positions.shape, np.nan)
    v[1:] = np.diff(positions, axis=0) / period_s
    v[[s for s in starts if 0 <= s < len(v)]] = np.nan  # no motion leads from one run into the next
    a, jerk = np.full_like(v, np.nan), np.full_like(v, np.nan)
    a[:-1] = np.diff(v, axis=0) / period_s
    jerk[1:] = np.diff(a, axis=0) / period_s
    return _Motion(v, a, jerk)


def _positions(commands: np.ndarray, delta_dims: Sequence[int], discrete_dims: Sequence[int]) -> np.ndarray:
    """What the metrics look at, float64 [N, A']: deltas summed up, discrete dimensions left out."""
    c = np.array(commands, dtype=np.float64)
    if c.ndim != 2:
        raise ConfigError("commands", expected="[N, A]", found=c.shape)
    delta = list(delta_dims)
    c[:, delta] = np.cumsum(c[:, delta], axis=0)
    return np.delete(c, list(discrete_dims), axis=1)


def _p99(values: np.ndarray) -> np.ndarray | None:
    """P99 of |values| per dimension over the rows that are defined, [A], or None without rows."""
    rows = np.abs(values[~np.isnan(values).any(axis=1)])
    return np.percentile(rows, 99, axis=0) if len(rows) else None


def _peak(values: np.ndarray) -> float | None:
    values = np.abs(values[~np.isnan(values)])
    return float(values.max()) if values.size else None


def boundary_metrics(
    commands: np.ndarray,
    switch_ticks: Sequence[int],
    period_s: float,
    *,
    blend: int = 0,
    v_max: float | Sequence[float] | None = None,
    a_max: float | Sequence[float] | None = None,
    disagreements: Sequence[float | None] = (),
    d_max: float | None = None,
    executed: Sequence[int] = (),
    elapsed: Sequence[int] = (),
    hold_ticks: Sequence[int] = (),
    delta_dims: Sequence[int] = (),
    discrete_dims: Sequence[int] = (),
    run_starts: Sequence[int] = (0,),
    reference: np.ndarray | None = None,
    reference_starts: Sequence[int] = (0,),
) -> BoundaryMetrics:
    """Measure CB1-CB7 of FAULTS.md on published commands.

    commands: [N, A], row k published at tick k. switch_ticks: rows at which a new chunk took over (its first command is
    commands[s]). period_s: T. blend: w, ticks over which the new chunk was blended in; the boundary ticks B are s-1
    .. s+w of every switch s, the interior I is the rest.
    delta_dims: dimensions that hold one period's motion: the metrics then apply to their running sum (the position
    they ask for).
    discrete_dims: left out. v_max, a_max: units/s, units/s^2, one number or one per dimension of `commands`.
    disagreements: D per switch (None where there was nothing to compare with); d_max: D_max. executed, elapsed: per
    switch, the index at which the new chunk started and the ticks since its observation. hold_ticks: rows of the
    first command of each hold.
    run_starts: rows at which an independent run (episode) begins: no difference is taken across them.
    reference: commands [M, A] of the synchronous run, with its own run starts, for CB5.
    Raises ConfigError when a tick is outside the commands or `executed` and `elapsed` differ in length.
    """
    c = _positions(commands, delta_dims, discrete_dims)
    kept = np.delete(np.arange(np.shape(commands)[1]), list(discrete_dims))
    for tick in (*switch_ticks, *hold_ticks):
        if not 0 <= tick < len(c):
            raise ConfigError("switch_ticks/hold_ticks", expected=f"within 0..{len(c) - 1}", found=tick)
    if len(executed) != len(elapsed):
        raise ConfigError("executed, elapsed", expected="one each per switch", found=(len(executed), len(elapsed)))
    m = _motion(c, run_starts, period_s)
    out: dict[str, float | int | None] = {"switches": len(switch_ticks), "samples": len(c)}
    out |= _cb1(m.a, switch_ticks, blend)
    v_lim, a_lim = (None if x is None else np.broadcast_to(x, np.shape(commands)[1])[kept] for x in (v_max, a_max))
    if v_lim is not None or a_lim is not None:
        # Rounding of the commands' own dtype, differenced once or twice, is no violation.
        noise = 4 * _epsilon(commands) * max(1.0, np.max(np.abs(c), initial=0.0))
        pairs = ((m.v, v_lim, noise / period_s), (m.a, a_lim, noise / period_s**2))
        out["cb2_violations"] = sum(int(np.sum(np.abs(x) > lim + slack)) for x, lim, slack in pairs if lim is not None)
    steps = np.abs(m.v[list(switch_ticks)]) * period_s
    out["cb3_step"] = _peak(steps)
    if v_lim is not None and out["cb3_step"] is not None:
        out["cb3_step_over"] = float(np.nanmax(steps - v_lim * period_s))
    known = [d for d in disagreements if d is not None]
    if known:
        out |= {"cb4_max": float(max(known)), "cb4_mean": float(np.mean(known))}
        out["cb4_over"] = None if d_max is None else sum(d > d_max for d in known)
    out["cb5_jerk"] = _peak(m.jerk)
    if reference is not None:
        base = _peak(_motion(_positions(reference, delta_dims, discrete_dims), reference_starts, period_s).jerk)
        if base and out["cb5_jerk"] is not None:
            out["cb5_ratio"] = out["cb5_jerk"] / base
    if executed:
        out["cb6_index_law"] = float(np.mean(np.equal(executed, elapsed)))
    return BoundaryMetrics(**out, **_cb7(m, hold_ticks, period_s))


def _epsilon(commands: np.ndarray) -> float:
    dtype = np.asarray(commands).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def _cb1(a: np.ndarray, switch_ticks: Sequence[int], blend: int) -> dict[str, float | None]:
    boundary = np.zeros(len(a), dtype=bool)
    for s in switch_ticks:
        boundary[max(0, s - 1) : s + blend + 1] = True
    inside, outside = _p99(a[boundary]), _p99(a[~boundary])
    if inside is None or outside is None or not inside.size:
        return {}
    ratio = inside / np.maximum(outside, ACCELERATION_FLOOR)
    worst = int(np.argmax(ratio))
    return {
        "cb1_ratio": float(ratio[worst]),
        "cb1_ratio_median": float(np.median(ratio)),
        "cb1_p99_boundary": float(inside[worst]),
        "cb1_p99_interior": float(outside[worst]),
    }


def _cb7(m: _Motion, hold_ticks: Sequence[int], period_s: float) -> dict[str, float | None]:
    """From the last moving command before the hold (tick h-1) to the first tick at which all stands still."""
    peaks, times = [], []
    for h in hold_ticks:
        still = np.flatnonzero(~np.any(np.abs(np.nan_to_num(m.v[h:])) > 1e-9, axis=1))
        rest = int(still[0]) if len(still) else len(m.v) - h
        peaks.append(_peak(m.a[max(0, h - 1) : h + rest]) or 0.0)
        times.append(rest * period_s)
    return {"cb7_hold_a": max(peaks), "cb7_rest_s": float(max(times))} if peaks else {}
