"""Reduction of amax vectors, dispersion and the scale ceiling."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrt_core.core.quant.scales import accumulate_amax, check_scale_ceiling, summarize_amax_dispersion
from flashrt_core.errors import ConfigError


def test_percentile_edges_and_interpolation():
    samples = [np.array([1.0, 2.0]), np.array([3.0, 1.5]), np.array([2.0, 4.0])]
    np.testing.assert_array_equal(accumulate_amax(samples, 100.0), np.array([3, 4], np.float32))
    np.testing.assert_array_equal(accumulate_amax(samples, 0.0), np.array([1, 1.5], np.float32))
    np.testing.assert_allclose(accumulate_amax(samples, 75.0), [2.5, 3.0])
    assert accumulate_amax(samples).dtype == np.float32


def test_one_sample_is_returned_as_it_is():
    vector = np.array([1.1, 0.0, 1e-30, 3e38], np.float32)
    for percentile in (0.0, 50.0, 99.9, 100.0):
        np.testing.assert_array_equal(accumulate_amax([vector], percentile), vector)


@given(
    st.lists(st.lists(st.floats(0, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=9),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_monotonic_in_the_percentile_and_within_the_samples(samples, p, q):
    low, high = (accumulate_amax([np.array(s) for s in samples], x) for x in sorted((p, q)))
    stacked = np.array(samples, dtype=np.float32)
    assert (low <= high).all() and (stacked.min(0) <= low).all() and (high <= stacked.max(0)).all()


@pytest.mark.parametrize("percentile", [-0.1, 100.1, float("nan"), float("inf")])
def test_percentile_out_of_range(percentile):
    with pytest.raises(ValueError, match="percentile"):
        accumulate_amax([np.ones(2)], percentile)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [np.ones((2, 2))],
        [np.float32(1.0)],
        [np.ones(2), np.ones(3)],
        [np.array([1.0, np.nan])],
        [np.array([np.inf])],
        [np.array([-1.0])],
    ],
)
def test_bad_samples_are_refused(samples):
    with pytest.raises(ConfigError, match="per_sample_amax"):
        accumulate_amax(samples)


def test_dispersion_of_a_known_case():
    samples = [np.array([1.0, 10.0, 0.0]), np.array([2.0, 10.0, 0.0]), np.array([4.0, 10.0, 0.0])]
    summary = summarize_amax_dispersion(samples, np.array([2.0, 10.0, 0.0], np.float32))
    assert summary == {
        "num_samples": 3,
        "num_points": 3,
        "amax_max_over_points": 10.0,
        "amax_median_over_points": 2.0,
        "cutback_from_max_p50": 0.0,
        "cutback_from_max_p99": pytest.approx(0.49),  # cutbacks 0.5, 0, 0
        "num_points_cut_gt_10pct": 1,
    }
    json.dumps(summary)
    with pytest.raises(ConfigError, match="final_amax"):
        summarize_amax_dispersion(samples, np.ones(2))


def test_scale_ceiling_names_the_offenders_largest_first(caplog):
    scales = {"a": 1.0, "b": 1.1, "c": 0.9, "d": 25.0, "e": 40.0}
    assert check_scale_ceiling(scales) == [("e", 40.0), ("d", 25.0)]
    assert len(caplog.records) == 1 and "e=40" in caplog.text
    caplog.clear()
    assert check_scale_ceiling(scales, ratio=50.0) == []
    assert check_scale_ceiling([]) == [] and not caplog.records
    assert check_scale_ceiling(np.array([1.0, 1.0, 1.0, 30.0])) == [("[3]", 30.0)]
