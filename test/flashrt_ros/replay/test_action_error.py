"""Error sums against NumPy on the whole data: means exactly, quantiles to the histogram's bin, merging as one."""

import numpy as np
import pytest

from flashrt_ros.replay.action_error import ActionErrors, Spread, number

RNG = np.random.default_rng(0)


def test_spread_is_numpys():
    values = RNG.normal(0, 1, (5000, 3)) * np.array([1e-3, 1.0, 50.0])
    spread = Spread(3)
    for part in np.split(values, 50):
        spread.add(part)
    size = np.abs(values)
    assert np.allclose(spread.mean, size.mean(axis=0)) and np.array_equal(spread.top, size.max(axis=0))
    for q in (0.5, 0.95, 0.99):
        exact = np.quantile(size, q, axis=0, method="inverted_cdf")
        assert np.all(spread.quantile(q) >= exact - 1e-12) and np.all(spread.quantile(q) <= exact * 1.0051)


def test_quantile_never_exceeds_the_largest_and_zero_is_zero():
    spread = Spread(2)
    spread.add(np.array([[0.3, 0.0]] * 7))
    assert np.array_equal(spread.quantile(0.99), [0.3, 0.0])


def test_nothing_known_is_none():
    spread = Spread(1)
    spread.add(np.array([[np.nan]]))
    assert np.isnan(spread.mean[0]) and np.isnan(spread.quantile(0.5)[0]) and number(spread.mean[0]) is None


def test_chunk_errors_by_kind_row_and_joint():
    scale = np.array([2.0, 0.5])
    error = np.zeros((1, 3, 2))
    error[0, :, 0] = [0.2, -0.4, 0.6]
    error[0, 2, 1] = np.nan
    sums = ActionErrors(scale, 3)
    normal = sums.add_chunks(error)
    assert np.allclose(normal[0, :, 0], [0.1, 0.2, 0.3]) and np.isnan(normal[0, 2, 1])
    out = sums.to_json(("a", "b"))
    assert out["joints"]["a"]["chunk"]["mae"] == pytest.approx(0.4)
    assert out["joints"]["a"]["chunk"]["mae_normalised"] == pytest.approx(0.2)
    assert out["joints"]["a"]["first"]["mae"] == pytest.approx(0.2) and out["joints"]["b"]["chunk"]["count"] == 2
    assert out["by_horizon_index"]["mae_normalised"] == pytest.approx([0.05, 0.1, 0.3])
    assert out["all"]["first"]["mae"] == pytest.approx(0.05)


def test_merging_is_the_same_as_one():
    scale, chunks = np.ones(4), RNG.normal(0, 1, (40, 5, 4))
    chunks[3, 2:] = np.nan
    one, a, b = (ActionErrors(scale, 5) for _ in range(3))
    one.add_chunks(chunks)
    a.add_chunks(chunks[:13])
    b.add_chunks(chunks[13:])
    for side, rows in ((a, chunks[:10, 0]), (b, chunks[10:, 0])):
        side.add_served(rows)
    one.add_served(chunks[:, 0])
    a.merge(b)
    assert a.to_json(tuple("abcd")) == one.to_json(tuple("abcd"))


def test_chunks_shorter_than_the_horizon_count_where_they_have_rows():
    sums = ActionErrors(np.ones(1), 4)
    sums.add_chunks(np.full((2, 4, 1), 0.5))
    sums.add_chunks(np.full((3, 2, 1), 0.1))
    assert sums.by_row.count.tolist() == [5, 5, 2, 2]
    assert sums.to_json(("a",))["by_horizon_index"]["mae_normalised"] == pytest.approx([0.26, 0.26, 0.5, 0.5])
