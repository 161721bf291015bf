"""Refuse scales that clip: the fraction of each site's values beyond the largest E4M3 code."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import ConfigError

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

