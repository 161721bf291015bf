"""Calibration: collect each site's largest magnitude over sample observations and turn it into static FP8 scales.

Also the import path of the documented calibration functions; each lives in the file named after what it does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

import numpy as np

from ...errors import ConfigError, ObservationError, nearest
from .cache import clear_calibration, load_calibration, save_calibration
from .e4m3 import MIN_SCALE, scale_from_amax
from .precision import ModelPrecisionSpec, PrecisionSpec
from .sampling import stratified_sample, stratified_sample_indices
from .saturation import check_saturation
from .scales import (
    DEFAULT_PERCENTILE,
    FP8_SCALE_RATIO_WARN,
    accumulate_amax,
    check_scale_ceiling,
    summarize_amax_dispersion,
)

__all__ = [
    "CalibrationResult",
    "Calibrator",
    "DEFAULT_PERCENTILE",
    "FP8_SCALE_RATIO_WARN",
    "accumulate_amax",
    "check_saturation",
    "check_scale_ceiling",
    "clear_calibration",
    "load_calibration",
    "save_calibration",
    "stratified_sample",
    "stratified_sample_indices",
    "summarize_amax_dispersion",
]


@dataclass(frozen=True)
class CalibrationResult:
    """Scales by site with how they were measured. Every field is a JSON value."""

    scales: dict[str, float]
    num_samples: int
    percentile: float
    dispersion: dict[str, float | int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The fields as JSON values."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> CalibrationResult:
        """The inverse of to_dict. ConfigError for an unknown key."""
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise ConfigError(f"CalibrationResult.{key}", found="no such field", hint=nearest(str(key), known))
        return cls(**{**data, "warnings": tuple(data.get("warnings", ()))})

    def precision_spec(self, weight_scales: Mapping[str, float] | None = None) -> ModelPrecisionSpec:
        """The same as a ModelPrecisionSpec: all sites under activation_specs, those of the encoder and the decoder in
        their own group too; `weight_scales` (by tensor) under weight_specs."""
        activations = {
            site: PrecisionSpec(
                scale=scale,
                calibration_method="single_frame" if self.num_samples == 1 else "percentile",
                calibration_samples=self.num_samples,
                calibration_percentile=self.percentile,
            )
            for site, scale in self.scales.items()
        }
        return ModelPrecisionSpec(
            encoder_layer_specs={s: spec for s, spec in activations.items() if s.startswith("encoder.")},
            decoder_layer_specs={s: spec for s, spec in activations.items() if s.startswith("decoder.")},
            weight_specs={name: PrecisionSpec(scale=float(s)) for name, s in (weight_scales or {}).items()},
            activation_specs=activations,
        )


class Calibrator:
    """Collects amax values site by site, sample by sample.

    The first sample decides the sites and their order; every later one must have the same sites.
    """

    def __init__(self):
        self._current: dict[str, float] = {}
        self._sites: tuple[str, ...] = ()
        self._samples: list[np.ndarray] = []  # each fp32 [num_sites]

    @property
    def num_samples(self) -> int:
        """Samples that were ended."""
        return len(self._samples)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order of the first sample; empty before it is ended."""
        return self._sites

    def observe(self, site: str, amax: float) -> None:
        """Record max |x| at `site`; several calls within a sample keep the largest.

        ObservationError when it is not a finite number >= 0: a scale from it would hide a broken weight or input.
        """
        with np.errstate(over="ignore"):
            value = float(np.float32(amax))  # beyond fp32 is infinity, refused below
        if not (math.isfinite(value) and value >= 0):
            found = f"{value} in sample {len(self._samples)}"
            raise ObservationError(f"amax of site {site}", expected="a finite number >= 0", found=found)
        self._current[site] = max(value, self._current.get(site, 0.0))

    def end_sample(self) -> None:
        """Close the sample. ConfigError when it has no site or not the sites of the first one."""
        if not self._current:
            raise ConfigError("calibration sample", expected="at least one observed site", found="none")
        if not self._samples:
            self._sites = tuple(self._current)
        differing = sorted(set(self._sites) ^ set(self._current))
        if differing:
            site = differing[0]
            found = "missing" if site in self._sites else "only in this sample"
            thing = f"site {site!r} of sample {len(self._samples)}"
            raise ConfigError(thing, expected="the sites of the first sample", found=found)
        self._samples.append(np.array([self._current[site] for site in self._sites], dtype=np.float32))
        self._current = {}

    def scales(self, percentile: float = DEFAULT_PERCENTILE) -> dict[str, float]:
        """max(percentile of amax / 448, 1e-12) of each site. ConfigError before the first sample is ended."""
        scales = scale_from_amax(accumulate_amax(self._samples, percentile))
        return {site: float(scale) for site, scale in zip(self._sites, scales, strict=True)}

    def result(self, percentile: float = DEFAULT_PERCENTILE) -> CalibrationResult:
        """The scales with the dispersion over the samples, and a warning for each site that looks wrong."""
        scales = self.scales(percentile)
        floor = float(np.float32(MIN_SCALE))
        dead = [f"site {site} saw only zeros" for site, scale in scales.items() if scale <= floor]
        wide = [
            f"site {site}: scale {scale:.4g} is more than {FP8_SCALE_RATIO_WARN:g} x the median"
            for site, scale in check_scale_ceiling(scales)
        ]
        dispersion = summarize_amax_dispersion(self._samples, accumulate_amax(self._samples, percentile))
        return CalibrationResult(scales, self.num_samples, float(percentile), dispersion, tuple(dead + wide))
