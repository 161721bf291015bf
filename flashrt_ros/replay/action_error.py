"""ActionErrors: how far predicted actions are from recorded ones, in sums that can be added up over bags."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# Quantiles come from a histogram of |error| with bins of 0.5 %: memory does not grow with the bag.
_LOW, _RATIO = 1e-7, 1.005
_BINS = 6000  # up to 1e-7 * 1.005^6000 = 1e6
_LOG = float(np.log(_RATIO))


def _bins(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        at = np.floor(np.log(values / _LOW) / _LOG) + 1
    return np.clip(at, 0, _BINS - 1).astype(np.int64)  # bin 0: below _LOW


@dataclass
class Spread:
    """|values| of `columns` kinds: mean exactly, quantiles to 0.5 %, largest. NaN is left out."""

    columns: int
    total: np.ndarray = field(init=False)
    count: np.ndarray = field(init=False)
    top: np.ndarray = field(init=False)
    hist: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.total, self.top = np.zeros(self.columns), np.zeros(self.columns)
        self.count = np.zeros(self.columns, np.int64)
        self.hist = np.zeros((self.columns, _BINS), np.int64)

    def add(self, values: np.ndarray) -> None:
        """float [N, columns]."""
        size = np.abs(np.asarray(values, np.float64))
        known = np.isfinite(size)
        filled = np.where(known, size, 0.0)
        self.total += filled.sum(axis=0)
        self.count += known.sum(axis=0)
        self.top = np.maximum(self.top, filled.max(axis=0, initial=0.0))
        column = np.broadcast_to(np.arange(self.columns), size.shape)[known]
        np.add.at(self.hist, (column, _bins(size[known])), 1)

    def merge(self, other: Spread) -> None:
        self.total += other.total
        self.count += other.count
        self.top = np.maximum(self.top, other.top)
        self.hist += other.hist

    @property
    def mean(self) -> np.ndarray:
        """float64 [columns], NaN without values."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)

    def quantile(self, q: float) -> np.ndarray:
        """float64 [columns]: the upper edge of the bin in which the quantile lies, never above the largest value."""
        out = np.full(self.columns, np.nan)
        for i in np.flatnonzero(self.count):
            rank = int(np.searchsorted(np.cumsum(self.hist[i]), np.ceil(q * self.count[i])))
            out[i] = min(_LOW * _RATIO**rank, self.top[i])
        return out


class ActionErrors:
    """Errors of chunks and of served commands.

    scale: [A], what one normalised unit of each dimension is. first: row 0 of every chunk. chunk: all rows. served: what
    the spliced and guarded commands differ by. by_row: normalised, over the horizon. Each Spread has a column per dimension
    and a last one for all of them, normalised.
    """

    def __init__(self, scale: np.ndarray, horizon: int):
        self.scale = np.asarray(scale, np.float64)
        dims = len(self.scale) + 1
        self.first, self.chunk, self.served = Spread(dims), Spread(dims), Spread(dims)
        self.by_row = Spread(horizon)

    def add_chunks(self, error: np.ndarray) -> np.ndarray:
        """error: predicted - recorded [N, h, A], NaN where nothing was recorded, h at most the horizon.

        Returns |error| normalised, [N, h, A].
        """
        count, rows, dims = error.shape
        normal = np.abs(error) / self.scale
        means = _means(normal)
        flat = np.concatenate([error, means[..., None]], axis=2)
        self.first.add(flat[:, 0])
        self.chunk.add(flat.reshape(count * rows, dims + 1))
        self.by_row.add(np.pad(means, ((0, 0), (0, self.by_row.columns - rows)), constant_values=np.nan))
        return normal

    def add_served(self, error: np.ndarray) -> np.ndarray:
        """error: [N, A] of commands. Returns it normalised."""
        normal = np.abs(error) / self.scale
        self.served.add(np.concatenate([error, _means(normal)[:, None]], axis=1))
        return normal

    def merge(self, other: ActionErrors) -> None:
        for name in ("first", "chunk", "served", "by_row"):
            getattr(self, name).merge(getattr(other, name))

    def to_json(self, names: tuple[str, ...]) -> dict[str, object]:
        """Everything of result.json about errors; `mae` and `p99` in the units of the command and normalised."""
        return {
            "joints": {n: self._joint(i) for i, n in enumerate(names)},
            "all": {k: _figures(getattr(self, k), len(names), 1.0) for k in ("first", "chunk", "served")},
            "by_horizon_index": {
                "mae_normalised": [number(v) for v in self.by_row.mean],
                "p99_normalised": [number(v) for v in self.by_row.quantile(0.99)],
            },
        }  # fmt: skip

    def _joint(self, i: int) -> dict[str, object]:
        out: dict[str, object] = {"scale": number(self.scale[i])}
        for k in ("first", "chunk", "served"):
            spread = getattr(self, k)
            physical, normal = _figures(spread, i, 1.0), _figures(spread, i, self.scale[i])
            out[k] = {**physical, **{f"{n}_normalised": v for n, v in normal.items() if n != "count"}}
        return out


def _means(normal: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is known, NaN where nothing is."""
    known = np.isfinite(normal)
    count = known.sum(axis=-1)
    total = np.where(known, normal, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _figures(spread: Spread, column: int, scale: float) -> dict[str, float | int | None]:
    return {
        "mae": number(spread.mean[column] / scale), "p99": number(spread.quantile(0.99)[column] / scale),
        "max": number(spread.top[column] / scale) if spread.count[column] else None, "count": int(spread.count[column]),
    }  # fmt: skip


def number(value: float) -> float | None:
    """Six significant digits; None for what is not a number."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
