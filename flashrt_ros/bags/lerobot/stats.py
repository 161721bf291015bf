"""Statistics of columns as LeRobot keeps them: min, max, mean, std and count of each feature, summed up frame by frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

PIXEL_STEP = 4  # every fourth pixel each way; lerobot compute_stats.py samples pictures too


class RunningStats:
    """Of float64 [D] rows; merged over episodes by `merge`."""

    def __init__(self, dims: int):
        self.count = 0
        self._sum, self._squares = np.zeros(dims), np.zeros(dims)
        self._min, self._max = np.full(dims, np.inf), np.full(dims, -np.inf)
        self._origin: np.ndarray | None = None

    def add(self, rows: np.ndarray) -> None:
        """rows: [N, D]. Sums are kept relative to the first row, so that times in ns do not lose their digits."""
        rows = np.asarray(rows, np.float64)
        if self._origin is None:
            self._origin = rows[0].copy()
        moved = rows - self._origin
        self.count += len(rows)
        self._sum += moved.sum(0)
        self._squares += (moved * moved).sum(0)
        self._min, self._max = np.minimum(self._min, rows.min(0)), np.maximum(self._max, rows.max(0))

    def values(self, count: int | None = None) -> dict[str, np.ndarray]:
        """count: of frames, where rows are pixels."""
        mean = self._sum / self.count
        variance = np.maximum(self._squares / self.count - mean * mean, 0.0)
        return {
            "min": self._min, "max": self._max, "mean": mean + self._origin, "std": np.sqrt(variance),
            "count": np.array([self.count if count is None else count]),
        }  # fmt: skip


def picture_rows(picture: np.ndarray) -> np.ndarray:
    """float64 [N, 3], 0..1: a sample of the pixels of uint8 [H, W, 3]."""
    return picture[::PIXEL_STEP, ::PIXEL_STEP].reshape(-1, 3) / 255.0


def merged_stats(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of several episodes' statistics, those of all rows (parallel variance)."""
    parts = list(parts)
    counts = np.array([float(p["count"][0]) for p in parts])
    share = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)
    means = np.stack([p["mean"] for p in parts])
    mean = (means * share).sum(0)
    variance = ((np.stack([p["std"] ** 2 for p in parts]) + (means - mean) ** 2) * share).sum(0)
    return {
        "min": np.min([p["min"] for p in parts], axis=0), "max": np.max([p["max"] for p in parts], axis=0), "mean": mean,
        "std": np.sqrt(variance), "count": np.array([int(counts.sum())]),
    }  # fmt: skip
