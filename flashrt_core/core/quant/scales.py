"""Reduce the amax vectors of several samples to one scale per site, and say how far the samples disagree.

The keys of the dispersion summary and the default ratio are those of upstream FlashRT (`core/calibration.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...errors import ConfigError

logger = logging.getLogger(__name__)

DEFAULT_PERCENTILE = 99.9
FP8_SCALE_RATIO_WARN = 20.0
_NOTABLE_CUT = 0.10


def accumulate_amax(per_sample_amax: Sequence[np.ndarray], percentile: float = DEFAULT_PERCENTILE) -> np.ndarray:
    """Percentile over the samples of each point's amax: fp32 [num_points].

    per_sample_amax: one vector [num_points] per sample. 100 is the maximum, and one sample is returned as it is; with
    N samples 99.9 interpolates between the two largest, so below some hundred samples it is close to the maximum.
    ConfigError (a ValueError) for no sample, a percentile outside 0..100, vectors that are not 1-D, of unequal
    length, not finite or negative.
    """
    if not 0.0 <= percentile <= 100.0:
        raise ConfigError("percentile", expected="a number in 0..100", found=percentile)
    return np.percentile(_stacked(per_sample_amax), percentile, axis=0).astype(np.float32)


def summarize_amax_dispersion(per_sample_amax: Sequence[np.ndarray], final_amax: np.ndarray) -> dict[str, float | int]:
    """How far the reduced amax lies below each point's maximum over the samples.

    `cutback` is (max - final) / max per point, reported at its 50th and 99th percentile over the points.
    ConfigError as in accumulate_amax, and when `final_amax` has another length.
    """
    samples = _stacked(per_sample_amax)
    final = np.asarray(final_amax, dtype=np.float64)
    if final.shape != samples.shape[1:]:
        raise ConfigError("final_amax", expected=f"shape {samples.shape[1:]}", found=final.shape)
    if final.size == 0:
        raise ConfigError("per_sample_amax", expected="at least one point per sample", found="none")
    peak = samples.max(axis=0)
    cutback = np.where(peak > 0, (peak - final) / np.where(peak > 0, peak, 1.0), 0.0)
    return {
        "num_samples": int(samples.shape[0]),
        "num_points": int(samples.shape[1]),
        "amax_max_over_points": float(peak.max()),
        "amax_median_over_points": float(np.median(np.median(samples, axis=0))),
        "cutback_from_max_p50": float(np.percentile(cutback, 50)),
        "cutback_from_max_p99": float(np.percentile(cutback, 99)),
        "num_points_cut_gt_10pct": int(np.count_nonzero(cutback > _NOTABLE_CUT)),
    }


def check_scale_ceiling(
    scales: Mapping[str, float] | Iterable[float],
    ratio: float = FP8_SCALE_RATIO_WARN,
    label: str = "calibration",
) -> list[tuple[str, float]]:
    """(name, scale) of the scales above `ratio` times the median, largest first; one WARNING when there are any.

    A scale far above the others leaves that site few codes for its usual values. Names of a plain sequence are `[i]`.
    """
    named = scales.items() if isinstance(scales, Mapping) else ((f"[{i}]", value) for i, value in enumerate(scales))
    values = [(str(name), float(value)) for name, value in named]
    if not values:
        return []
    median = float(np.median([value for _, value in values]))
    offenders = sorted((v for v in values if median > 0 and v[1] > ratio * median), key=lambda v: -v[1])
    if offenders:
        worst = ", ".join(f"{name}={value:.4g}" for name, value in offenders[:5])
        logger.warning("%s: %d scale(s) above %g x the median %.4g: %s", label, len(offenders), ratio, median, worst)
    return offenders


def _stacked(per_sample_amax: Sequence[np.ndarray]) -> np.ndarray:
    """fp64 [num_samples, num_points], checked."""
    vectors = [np.asarray(vector, dtype=np.float64) for vector in per_sample_amax]
    if not vectors:
        raise ConfigError("per_sample_amax", expected="at least one sample", found="none")
    shapes = sorted({vector.shape for vector in vectors})
    if len(shapes) > 1 or len(shapes[0]) != 1:
        raise ConfigError("per_sample_amax", expected="1-D vectors of one length", found=f"shapes {shapes}")
    stacked = np.stack(vectors)
    if not (np.isfinite(stacked) & (stacked >= 0)).all():
        sample, point = np.argwhere(~(np.isfinite(stacked) & (stacked >= 0)))[0]
        found = f"{stacked[sample, point]} at sample {sample}, point {point}"
        raise ConfigError("per_sample_amax", expected="finite values >= 0", found=found)
    return stacked
