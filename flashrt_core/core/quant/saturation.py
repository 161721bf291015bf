"""Refuse scales that clip: the fraction of each site's values beyond the largest E4M3 code."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...errors import ConfigError, nearest
from .e4m3 import saturated_fraction

SATURATION_LIMIT = 0.01


def check_saturation(fractions: Mapping[str, float], limit: float = SATURATION_LIMIT) -> None:
    """ConfigError naming the worst site when a fraction of saturated values (0..1) is above `limit` (FAULTS F43).

    A fraction that is not a number in 0..1 is refused as well: it cannot show that the site is fine.
    """
    for site, fraction in fractions.items():
        if not 0.0 <= fraction <= 1.0:
            raise ConfigError(f"saturated fraction of site {site}", expected="a number in 0..1", found=fraction)
    over = {site: fraction for site, fraction in fractions.items() if fraction > limit}
    if over:
        site = max(over, key=over.get)
        raise ConfigError(
            f"FP8 scale of site {site}",
            expected=f"at most {limit:.2%} of its values saturated",
            found=f"{over[site]:.2%}" + (f" ({len(over)} sites above the limit)" if len(over) > 1 else ""),
            hint="Calibrate on more varied observations or with a higher percentile",
        )


class SaturationMeter:
    """Counts, per site, the values that a given set of scales would clip, over any number of samples."""

    def __init__(self, scales: Mapping[str, float]):
        self._scales = dict(scales)
        self._clipped = dict.fromkeys(self._scales, 0)
        self._seen = dict.fromkeys(self._scales, 0)

    def observe(self, site: str, x: np.ndarray) -> None:
        """Count the values of `x` (any shape) at `site`. ConfigError for a site without a scale."""
        if site not in self._scales:
            raise ConfigError(f"site {site!r}", found="no scale", hint=nearest(site, self._scales))
        x = np.asarray(x)
        self._clipped[site] += round(saturated_fraction(x, self._scales[site]) * x.size)
        self._seen[site] += x.size

    def fractions(self) -> dict[str, float]:
        """Saturated fraction of each site; NaN for a site that was never observed."""
        return {site: self._clipped[site] / n if n else math.nan for site, n in self._seen.items()}

    def check(self, limit: float = SATURATION_LIMIT) -> None:
        """check_saturation of what was counted."""
        check_saturation(self.fractions(), limit)
