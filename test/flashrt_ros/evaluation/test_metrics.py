"""The statistics against published values, closed forms and what must hold for any input."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrt_core.errors import ConfigError
from flashrt_ros.evaluation.metrics import compare_paired, percentiles, wilson_interval


@pytest.mark.parametrize(
    "successes, n, low, high",
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_matches_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate_and_mirrors(case):
    successes, n = case
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1 and high > low
    assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_interval_of_nothing_and_of_nonsense():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="successes"):
        wilson_interval(3, 2)


def test_percentiles():
    assert percentiles(range(101)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}


def test_mcnemar_counts_only_what_differs():
    a = [True] * 90 + [True] * 8 + [False] * 2
    b = [True] * 90 + [False] * 8 + [True] * 2
    got = compare_paired(a, b)
    assert (got.only_a, got.only_b, got.difference) == (8, 2, pytest.approx(-0.06))
    assert got.p_value == pytest.approx(2 * sum(math.comb(10, i) for i in range(3)) / 2**10)  # 0.109
    assert got.low < -0.06 < got.high
    mirrored = compare_paired(b, a)
    assert mirrored.p_value == got.p_value and mirrored.difference == -got.difference


def test_equal_lists_do_not_differ():
    got = compare_paired([True, False, True], [True, False, True])
    assert (got.p_value, got.difference, got.low, got.high) == (1.0, 0.0, 0.0, 0.0)


def test_paired_lists_need_one_length():
    with pytest.raises(ConfigError, match="paired lists"):
        compare_paired([True], [True, False])
