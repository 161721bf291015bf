"""Statistics that a report states: an interval for a success rate, percentiles, and what pairing by seed says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from flashrt_core.errors import ConfigError

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), both ends in [0, 1].

    Unlike p +- z sqrt(p q / n) it is not empty at 0 or n successes. n = 0 gives (0, 1): nothing is known.
    """
    if not 0 <= successes <= n:
        raise ConfigError("successes", expected=f"0..{n}", found=successes)
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # exactly 0 and 1 at the ends, where rounding would leave 1e-18
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """{'p50', 'p95', 'p99'} of the values, in their unit; None where there is no value."""
    if not len(values):
        return {"p50": None, "p95": None, "p99": None}
    return {f"p{q}": float(np.percentile(np.asarray(values, dtype=np.float64), q)) for q in (50, 95, 99)}


@dataclass(frozen=True)
class PairedComparison:
    """Two success lists over the same seeds.

    difference: rate of b minus rate of a, in [-1, 1]. only_a, only_b: seeds that succeed in one list alone.
    p_value: exact McNemar test (two-sided binomial on the seeds that differ). low, high: 95 % interval of the
    difference from resampling whole pairs.
    """

    n: int
    difference: float
    only_a: int
    only_b: int
    p_value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def compare_paired(a: Sequence[bool], b: Sequence[bool], *, resamples: int = 10_000, seed: int = 0) -> PairedComparison:
    """Compare b against a, entry i of both being the same seed. Raises ConfigError when the lengths differ or are 0."""
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise ConfigError("paired lists", expected="the same length >= 1", found=f"{x.shape} and {y.shape}")
    only_a, only_b = int(np.sum(x & ~y)), int(np.sum(~x & y))
    gaps = y.astype(np.int8) - x.astype(np.int8)
    rng = np.random.default_rng(seed)
    means = [gaps[rng.integers(0, len(gaps), len(gaps))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return PairedComparison(
        n=len(x), difference=float(gaps.mean()), only_a=only_a, only_b=only_b,
        p_value=_exact_mcnemar(only_a, only_b), low=float(low), high=float(high),
    )  # fmt: skip


def _exact_mcnemar(only_a: int, only_b: int) -> float:
    """P(at least as lopsided | both directions equally likely), 1 when nothing differs."""
    n, k = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(k + 1)) / 2**n
    return min(1.0, 2 * tail)
