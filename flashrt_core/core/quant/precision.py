"""Describe how each tensor of a model is quantised: plain data with validation and JSON.

Field names and defaults are those of upstream FlashRT (`core/precision_spec.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from ...errors import ConfigError, NotBuilt, nearest
from ..strict_json import parse_json, read_capped

_SUPPORTED = {"dtype": ("fp8_e4m3", "int8"), "granularity": ("per_tensor",), "scheme": ("symmetric",)}
_SCALE_SOURCES = ("calibration", "qat_checkpoint", "runtime_dynamic")
_MAX_BYTES = 16 << 20
_SPEC_SOURCES = ("calibration", "qat_checkpoint", "manual")


class UnsupportedPrecision(NotBuilt, NotImplementedError):
    """A precision that no kernel of this build can run."""


@dataclass(frozen=True, eq=False)
class PrecisionSpec:
    """How one tensor is quantised: real value = code * scale (per tensor, symmetric).

    scale, zero_point: a number or an array, or None when not known yet. calibration_method: "single_frame" or
    "percentile"; calibration_percentile in 0..100. Nothing is checked before `validate`, so that a file can be read
    and shown before it is refused.
    """

    dtype: str = "fp8_e4m3"
    granularity: str = "per_tensor"
    scheme: str = "symmetric"
    group_size: int | None = None
    scale_source: str = "calibration"
    scale: float | np.ndarray | None = None
    zero_point: int | np.ndarray | None = None
    calibration_method: str | None = None
    calibration_samples: int | None = None
    calibration_percentile: float | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrecisionSpec) and self.to_dict() == other.to_dict()

    def validate(self) -> None:
        """ConfigError (a ValueError) for fields that contradict each other, then UnsupportedPrecision (a
        NotImplementedError) for anything but {fp8_e4m3, int8} x per_tensor x symmetric."""
        if self.scheme == "asymmetric" and self.zero_point is None:
            raise ConfigError("zero_point", expected="a value, as scheme='asymmetric' needs one", found=None)
        if self.granularity == "per_group" and self.group_size is None:
            raise ConfigError("group_size", expected="a value, as granularity='per_group' needs one", found=None)
        if self.granularity != "per_group" and self.group_size is not None:
            expected = f"None with granularity={self.granularity!r}"
            raise ConfigError("group_size", expected=expected, found=self.group_size)
        if self.scale_source not in _SCALE_SOURCES:
            raise ConfigError("scale_source", expected=f"one of {_SCALE_SOURCES}", found=self.scale_source)
        for name, supported in _SUPPORTED.items():
            if getattr(self, name) not in supported:
                raise UnsupportedPrecision(name, expected=f"one of {supported}", found=getattr(self, name))
        if self.scale is not None:
            scale = np.asarray(self.scale, dtype=np.float64)
            if scale.size != 1 or not (np.isfinite(scale) & (scale > 0)).all():
                raise ConfigError("scale", expected="one finite number > 0 (per_tensor)", found=self.scale)
        if self.calibration_samples is not None and self.calibration_samples < 1:
            raise ConfigError("calibration_samples", expected="an integer >= 1", found=self.calibration_samples)
        if self.calibration_percentile is not None and not 0 <= self.calibration_percentile <= 100:
            raise ConfigError("calibration_percentile", expected="0..100", found=self.calibration_percentile)

    def to_dict(self) -> dict[str, object]:
        """All fields as JSON values; arrays become lists."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v.tolist() if isinstance(v, (np.ndarray, np.generic)) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> PrecisionSpec:
        """The inverse of to_dict; lists become arrays. ConfigError for an unknown key."""
        _refuse_unknown(cls, data)
        values = {k: np.asarray(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**values)


@dataclass
class ModelPrecisionSpec:
    """Quantisation of a whole model: specs by layer or tensor name, such as "encoder.3.down"."""

    encoder_layer_specs: dict[str, PrecisionSpec] = field(default_factory=dict)
    decoder_layer_specs: dict[str, PrecisionSpec] = field(default_factory=dict)
    weight_specs: dict[str, PrecisionSpec] = field(default_factory=dict)
    activation_specs: dict[str, PrecisionSpec] = field(default_factory=dict)
    source: str = "calibration"

    def groups(self) -> dict[str, dict[str, PrecisionSpec]]:
        """The four groups by field name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "source"}

    def validate(self) -> None:
        """Validate every spec; the error's text begins with the group and the name of the tensor."""
        if self.source not in _SPEC_SOURCES:
            raise ConfigError("source", expected=f"one of {_SPEC_SOURCES}", found=self.source)
        for group, specs in self.groups().items():
            for name, spec in specs.items():
                try:
                    spec.validate()
                except (ConfigError, UnsupportedPrecision) as error:
                    thing = f"{group}[{name!r}].{error.thing}"
                    raise type(error)(thing, expected=error.expected, found=error.found) from error

    def to_dict(self) -> dict[str, object]:
        """The whole specification as JSON values."""
        groups = {group: {name: s.to_dict() for name, s in specs.items()} for group, specs in self.groups().items()}
        return {"source": self.source, **groups}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ModelPrecisionSpec:
        """The inverse of to_dict; absent groups are empty. ConfigError for an unknown key or another type."""
        _refuse_unknown(cls, data)
        values: dict[str, object] = {}
        for key, value in data.items():
            if key == "source":
                values[key] = value
                continue
            if not isinstance(value, Mapping):
                expected = "an object of specs by name"
                raise ConfigError(f"ModelPrecisionSpec.{key}", expected=expected, found=type(value).__name__)
            values[key] = {str(name): PrecisionSpec.from_dict(spec) for name, spec in value.items()}
        return cls(**values)

    def to_json(self, path: str | Path | None = None) -> str:
        """JSON text of the specification, also written to `path` when one is given."""
        text = json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, path: str | Path) -> ModelPrecisionSpec:
        """Read a file that to_json wrote. ConfigError when it is not JSON or holds an unknown key."""
        path = Path(path)
        data = parse_json(read_capped(path, _MAX_BYTES), name=path.name, max_bytes=_MAX_BYTES, error=ConfigError)
        return cls.from_dict(data)


def _refuse_unknown(cls: type, data: object) -> None:
    if not isinstance(data, Mapping):
        raise ConfigError(cls.__name__, expected="an object", found=type(data).__name__)
    known = [f.name for f in fields(cls)]
    for key in data:
        if key not in known:
            raise ConfigError(f"{cls.__name__}.{key}", found="no such field", hint=nearest(str(key), known))
