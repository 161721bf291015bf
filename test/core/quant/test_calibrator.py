"""The collector of amax values and its result."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flashrt_core.core.quant import calibrator as documented
from flashrt_core.core.quant.calibrator import CalibrationResult, Calibrator
from flashrt_core.core.quant.e4m3 import scale_from_amax
from flashrt_core.errors import ConfigError, ObservationError


def collect(*samples: dict[str, float]) -> Calibrator:
    calibrator = Calibrator()
    for sample in samples:
        for site, amax in sample.items():
            calibrator.observe(site, amax)
        calibrator.end_sample()
    return calibrator


def test_scales_are_the_percentile_over_448():
    calibrator = collect({"vision.0.qkv": 448.0, "encoder.3.down": 2.0}, {"encoder.3.down": 4.0, "vision.0.qkv": 224.0})
    assert calibrator.sites == ("vision.0.qkv", "encoder.3.down") and calibrator.num_samples == 2
    assert calibrator.scales(100) == {"vision.0.qkv": 1.0, "encoder.3.down": float(scale_from_amax(4.0))}
    assert calibrator.scales(0)["vision.0.qkv"] == 0.5
    assert calibrator.scales(50)["vision.0.qkv"] == 0.75


def test_several_observations_of_a_site_keep_the_largest():
    calibrator = Calibrator()
    for amax in (1.0, 448.0, 2.0):
        calibrator.observe("vision.0.qkv", amax)
    calibrator.end_sample()
    assert calibrator.scales() == {"vision.0.qkv": 1.0}


@pytest.mark.parametrize("amax", [float("nan"), float("inf"), -1.0, 1e39])
def test_a_broken_activation_is_named_and_not_stored(amax):
    calibrator = collect({"a": 1.0})
    with pytest.raises(ObservationError, match=r"site decoder.step4.layer2.o.*sample 1"):
        calibrator.observe("decoder.step4.layer2.o", amax)
    calibrator.observe("a", 1.0)
    calibrator.end_sample()
    assert calibrator.sites == ("a",)


def test_every_sample_must_have_the_same_sites():
    calibrator = collect({"a": 1.0, "b": 1.0})
    calibrator.observe("a", 1.0)
    with pytest.raises(ConfigError, match=r"'b' of sample 1.*missing"):
        calibrator.end_sample()
    calibrator.observe("b", 1.0)
    calibrator.observe("c", 1.0)
    with pytest.raises(ConfigError, match=r"'c' of sample 1.*only in this sample"):
        calibrator.end_sample()


def test_empty_samples_and_no_samples():
    with pytest.raises(ConfigError, match="at least one observed site"):
        Calibrator().end_sample()
    with pytest.raises(ValueError, match="at least one sample"):
        Calibrator().scales()


def test_result_warns_about_dead_and_outlying_sites_and_round_trips():
    result = collect({"a": 0.0, "b": 1.0, "c": 1.2, "d": 0.9, "e": 500.0}).result()
    assert [w.split()[1].rstrip(":") for w in result.warnings] == ["a", "e"]
    assert result.num_samples == 1 and result.dispersion["num_points"] == 5
    assert CalibrationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    with pytest.raises(ConfigError, match="scale"):
        CalibrationResult.from_dict({**result.to_dict(), "scals": {}})


def test_precision_spec_of_a_result_validates():
    spec = collect({"vision.0.qkv": 1.0, "encoder.0.qkv": 2.0, "decoder.step0.layer0.o": 3.0}).result().precision_spec(
        {"encoder.0.qkv.weight": np.float32(0.01)}
    )
    spec.validate()
    assert list(spec.activation_specs) == ["vision.0.qkv", "encoder.0.qkv", "decoder.step0.layer0.o"]
    assert list(spec.encoder_layer_specs) == ["encoder.0.qkv"]
    assert list(spec.decoder_layer_specs) == ["decoder.step0.layer0.o"]
    assert spec.activation_specs["encoder.0.qkv"].scale == float(scale_from_amax(2.0))
    assert spec.activation_specs["encoder.0.qkv"].calibration_method == "single_frame"
    json.loads(spec.to_json())


def test_documented_names_are_importable_from_here():
    for name in documented.__all__:
        assert hasattr(documented, name)
