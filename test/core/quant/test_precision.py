"""Precision specifications: validation, JSON, unknown keys."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flashrt_core.core.quant.precision import ModelPrecisionSpec, PrecisionSpec
from flashrt_core.errors import ConfigError, NotBuilt


@pytest.mark.parametrize("dtype", ["fp8_e4m3", "int8"])
def test_supported_precisions_validate(dtype):
    PrecisionSpec(dtype=dtype).validate()
    PrecisionSpec(dtype=dtype, scale=0.5, calibration_samples=8, calibration_percentile=99.9).validate()


@pytest.mark.parametrize(
    "fields",
    [
        {"dtype": "nvfp4", "granularity": "per_group", "group_size": 16},
        {"dtype": "int4"},
        {"dtype": "fp8"},
        {"granularity": "per_channel"},
        {"scheme": "asymmetric", "zero_point": 3},
    ],
)
def test_precisions_without_a_kernel_are_not_implemented(fields):
    with pytest.raises(NotImplementedError) as caught:
        PrecisionSpec(**fields).validate()
    assert isinstance(caught.value, NotBuilt)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"scheme": "asymmetric"}, "zero_point"),
        ({"scheme": "asymmetric", "dtype": "int4"}, "zero_point"),  # the contradiction is told first
        ({"granularity": "per_group"}, "group_size"),
        ({"group_size": 16}, "group_size"),
        ({"scale_source": "guess"}, "scale_source"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": np.ones(4)}, "scale"),
        ({"calibration_samples": 0}, "calibration_samples"),
        ({"calibration_percentile": 101}, "calibration_percentile"),
    ],
)
def test_contradictions_and_bad_values_are_named(fields, name):
    with pytest.raises(ValueError, match=name):
        PrecisionSpec(**fields).validate()


def full_spec() -> ModelPrecisionSpec:
    how = {"calibration_method": "percentile", "calibration_samples": 8, "calibration_percentile": 99.9}
    spec = PrecisionSpec(scale=0.25, **how)
    return ModelPrecisionSpec(
        encoder_layer_specs={"encoder.0.qkv": spec},
        decoder_layer_specs={"decoder.step4.layer2.o": PrecisionSpec(scale=np.float32(0.5))},
        weight_specs={"vision.0.qkv": PrecisionSpec(dtype="int8", scale=np.array([0.1], np.float32))},
        activation_specs={"encoder.0.qkv": spec},
    )


def test_json_round_trip(tmp_path):
    spec = full_spec()
    spec.validate()
    path = tmp_path / "spec.json"
    text = spec.to_json(path)
    assert path.read_text() == text
    again = ModelPrecisionSpec.from_json(path)
    again.validate()
    assert again == spec
    again.weight_specs["vision.0.qkv"] = PrecisionSpec(scale=1.0)
    assert again != spec


def test_validate_names_the_tensor():
    spec = full_spec()
    spec.weight_specs["encoder.1.down"] = PrecisionSpec(dtype="int4")
    with pytest.raises(NotImplementedError, match=r"weight_specs\['encoder.1.down'\].dtype"):
        spec.validate()
    with pytest.raises(ConfigError, match="source"):
        ModelPrecisionSpec(source="rumour").validate()


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda d: d.update(weights={}), "ModelPrecisionSpec.weights"),
        (lambda d: d["weight_specs"]["vision.0.qkv"].update(dtyp="int8"), "did you mean 'dtype'"),
        (lambda d: d.update(weight_specs=[]), "weight_specs"),
        (lambda d: d["weight_specs"].update(x=3), "PrecisionSpec"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(tmp_path, edit, match):
    data = full_spec().to_dict()
    edit(data)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=match):
        ModelPrecisionSpec.from_json(path)


def test_broken_json_is_a_config_error_with_the_file_name(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text('{"source": ')
    with pytest.raises(ConfigError, match=r"spec\.json"):
        ModelPrecisionSpec.from_json(path)
