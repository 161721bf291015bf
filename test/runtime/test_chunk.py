"""Chunks: alignment, splicing, coming to rest and the boundary metrics, each against a closed form."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashrt_core.runtime.boundary import boundary_metrics
from flashrt_core.runtime.chunk import (
    SPLICES,
    ChunkError,
    CommandSpec,
    Join,
    align,
    check_chunk,
    disagreement,
    hold_action,
    rest_tail,
)  # fmt: skip

T = 0.05
NOTHING = np.zeros((0, 1))


def ramp(start, slope, count):
    return start + slope * np.arange(count, dtype=np.float64)[:, None]


# ---- chunks ----------------------------------------------------------------------------------------------------------


def test_align_drops_executed_rows():
    chunk = ramp(0, 1, 5)
    assert align(chunk, 0)[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert align(chunk, 3)[:, 0].tolist() == [3, 4]
    assert align(chunk, 5).shape == align(chunk, 99).shape == (0, 1)
    with pytest.raises(ChunkError):
        align(chunk, -1)


def test_check_chunk_copies_and_says_what_is_wrong():
    given_rows = np.ones((2, 3), np.float32)
    rows = check_chunk(given_rows)
    given_rows[:] = 9
    assert (rows == 1).all() and rows.dtype == np.float32
    assert check_chunk([[1, 2]]).dtype == np.float32
    bad = ramp(0, 1, 3)
    bad[1, 0] = np.nan
    with pytest.raises(ChunkError, match="nan at row 1, dim 0"):
        check_chunk(bad)
    with pytest.raises(ValueError, match=r"\(0, 7\)"):
        check_chunk(np.zeros((0, 7)))
    for wrong in (np.zeros(3), np.zeros((1, 2, 3)), [[1, 2], [3]], None, "chunk", [[1e39]], np.zeros((2, 3), complex)):
        with pytest.raises(ChunkError):
            check_chunk(wrong)
    with pytest.raises(ChunkError, match=r">= 1, 4\].*\(2, 3\)"):
        check_chunk(rows, dims=4)


def test_disagreement_ignores_discrete_dims():
    old, new = np.array([[0.0, 1.0, -1.0]]), np.array([[0.1, 0.7, 1.0]])
    assert disagreement(old, new, CommandSpec(discrete_dims=(2,))) == pytest.approx(0.3)
    assert disagreement(NOTHING, new, CommandSpec()) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"period_s": 0}, {"period_s": float("nan")}, {"delta_dims": (0,), "discrete_dims": (0,)}, {"delta_dims": (-1,)},
        {"delta_dims": (1, 1)}, {"v_max": 0}, {"a_max": (1.0, float("inf"))}, {"rest_ticks": 0},
    ],
    ids=str,
)  # fmt: skip
def test_command_spec_rejects(bad):
    with pytest.raises(ValueError):
        CommandSpec(**bad)


# ---- splicing --------------------------------------------------------------------------------------------------------


def test_none_serves_the_new_chunk():
    new = ramp(7, 2, 4)
    out = SPLICES["none"](ramp(0, 1, 4), new, Join(blend=3))
    assert np.array_equal(out, new) and out is not new


def test_linear_weights_are_the_closed_form():
    old, new = np.zeros((6, 1)), np.ones((6, 1))
    out = SPLICES["linear"](old, new, Join(blend=3))
    assert np.allclose(out[:, 0], [1 / 4, 2 / 4, 3 / 4, 1, 1, 1])


def test_quintic_weights_are_the_closed_form():
    old, new = np.ones((9, 1)), np.zeros((9, 1))
    out = SPLICES["quintic"](old, new, Join(blend=7))[:, 0]
    t = np.arange(1, 8) / 8
    assert np.allclose(out[:7], 1 - 10 * t**3 + 15 * t**4 - 6 * t**5) and not out[7:].any()
    assert out[3] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["linear", "quintic"])
def test_equal_motions_are_not_changed(name):
    motion = np.sin(np.arange(8.0))[:, None]
    assert np.allclose(SPLICES[name](motion, motion, Join(blend=5)), motion)


def derivatives_at_the_switch(name, w):
    """Steps in position, velocity, acceleration at the switch between two cubics, at a fine time step h = 1 / w."""
    h = 1.0 / (w + 1)
    t = np.arange(-3, w + 1) * h  # the first three commands come before the switch
    a, b = 0.3 + t - t**2 + t**3, 1.0 - 2 * t + 3 * t**2
    served = SPLICES[name](a[3:, None], b[3:, None], Join(blend=w))[:, 0]
    c, old = np.concatenate([a[:3], served]), a
    return [abs(np.diff(c - old, k)[3 - k]) / h**k for k in range(3)]


def test_quintic_is_continuous_in_position_velocity_and_acceleration():
    coarse, fine = derivatives_at_the_switch("quintic", 50), derivatives_at_the_switch("quintic", 500)
    assert max(fine) < 0.1 and all(f < 0.2 * c for f, c in zip(fine, coarse, strict=True))


def test_linear_is_continuous_in_position_only():
    fine = derivatives_at_the_switch("linear", 500)
    assert fine[0] < 0.01 and fine[1] == pytest.approx(0.7, rel=0.05) and fine[2] > 100


def test_short_old_chunk_is_continued_to_rest():
    """Old: 1 row left of a motion of 1 per tick; it decelerates over rest_ticks = 4: steps 3/4, 2/4, 1/4, 0."""
    spec = CommandSpec(T, rest_ticks=4)
    new = np.full((8, 1), 10.0)
    old, last = np.array([[1.0]]), np.array([[-1.0], [0.0]])
    out = SPLICES["linear"](old, new, Join(7, spec, last))[:, 0]
    before = np.array([1, 1.75, 2.25, 2.5, 2.5, 2.5, 2.5])
    t = np.arange(1, 8) / 8
    assert np.allclose(out[:7], 10 + (1 - t) * (before - 10))


def test_blend_starts_from_a_hold_and_from_nothing():
    new = np.ones((4, 1))
    held = SPLICES["quintic"](NOTHING, new, Join(3, CommandSpec(T), np.array([[5.0], [5.0]])))[:, 0]
    assert held[0] > 4.5 and held[3] == 1
    assert np.array_equal(SPLICES["quintic"](NOTHING, new, Join(3)), new)


@pytest.mark.parametrize("name", SPLICES)
def test_discrete_dims_pass_through(name):
    old, new = np.full((6, 2), -1.0), np.full((6, 2), 1.0)
    join = Join(4, CommandSpec(T, discrete_dims=(1,)), history=[(2, old)])
    out = SPLICES[name](old, new, join)
    assert (out[:, 1] == 1).all()
    assert name == "none" or (out[0, 0] < 1)


def test_temporal_fusion_is_the_weighted_mean():
    new, one, two, three = (np.full((4, 1), float(x)) for x in (1, 2, 4, 100))
    join = Join(history=[(5, one[:3]), (10, two[:1]), (15, three)], decay=0.1, max_chunks=3)
    out = SPLICES["temporal_fusion"](new, new, join)[:, 0]
    w5, w10 = np.exp(-0.5), np.exp(-1.0)
    assert out[0] == pytest.approx((1 + 2 * w5 + 4 * w10) / (1 + w5 + w10))
    assert out[1] == out[2] == pytest.approx((1 + 2 * w5) / (1 + w5)) and out[3] == 1


def test_temporal_fusion_sums_in_double():
    """float32 sums would lose the 1: 2^24 + 1 = 2^24."""
    new = np.full((1, 1), 2.0**24, np.float32)
    old = np.full((1, 1), 2.0**24 + 4, np.float32)
    out = SPLICES["temporal_fusion"](old, new, Join(history=[(1, old)], decay=0.0))
    assert out[0, 0] == 2.0**24 + 2 and out.dtype == np.float32


@given(
    st.sampled_from(sorted(SPLICES)), st.integers(0, 6), st.integers(1, 6), st.integers(0, 9), st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_splice_keeps_shape_type_and_range(name, old_rows, new_rows, blend, past, seed):
    """Finite, same shape and dtype; without continuation every value lies between the chunks it is made of."""
    r = np.random.default_rng(seed)
    old, new = (r.normal(size=(n, 3)).astype(np.float32) for n in (old_rows, new_rows))
    last = r.normal(size=(past, 3)).astype(np.float32) if past else None
    out = SPLICES[name](old, new, Join(blend, CommandSpec(T, (0,), (2,)), last))
    assert out.shape == new.shape and out.dtype == np.float32 and np.isfinite(out).all()
    assert np.array_equal(out[:, 2], new[:, 2])
    n = min(old_rows, new_rows)
    if n == new_rows:
        assert (out >= np.minimum(old[:n], new) - 1e-5).all() and (out <= np.maximum(old[:n], new) + 1e-5).all()


# ---- coming to rest --------------------------------------------------------------------------------------------------


def test_rest_tail_decelerates_on_the_line_of_the_last_command():
    """v = (2, 1) units/s, a_max = 10, T = 0.05: 2 / 0.5 = 4 ticks; steps fall by a quarter of the first each."""
    spec = CommandSpec(T, a_max=10.0)
    tail = rest_tail(np.array([0.1, 0.05]), np.array([0.0, 0.0]), spec)
    assert np.allclose(tail[:, 0], 0.1 + 0.1 * np.cumsum([0.75, 0.5, 0.25, 0.0]))
    assert np.allclose(tail[:, 1] * 2, tail[:, 0])
    assert np.array_equal(tail[-1], tail[-2])


def test_rest_tail_of_deltas_goes_to_zero_and_keeps_the_gripper():
    spec = CommandSpec(T, delta_dims=(0, 1), discrete_dims=(2,), rest_ticks=4)
    tail = rest_tail(np.array([0.8, -0.4, -1.0], np.float32), np.array([0.0, 0.0, 1.0], np.float32), spec)
    assert np.allclose(tail, [[0.6, -0.3, -1], [0.4, -0.2, -1], [0.2, -0.1, -1], [0, 0, -1]])
    assert tail.dtype == np.float32
    assert hold_action(np.array([0.8, -0.4, -1.0]), spec).tolist() == [0, 0, -1]


def test_rest_tail_at_rest_is_one_row():
    x = np.array([1.0, 2.0])
    for previous in (x, None):
        assert np.array_equal(rest_tail(x, previous, CommandSpec(T)), x[None])


def test_rest_tail_limits_velocity_first():
    spec = CommandSpec(T, v_max=1.0, a_max=10.0)
    tail = rest_tail(np.array([1.0]), np.array([0.0]), spec)  # 20 units/s asked for
    assert np.allclose(np.diff(np.concatenate([[1.0], tail[:, 0]])) / T, [0.5, 0.0])


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3), st.floats(0.1, 1e3), st.floats(0.005, 0.2), st.booleans()
)
def test_CB7_rest_tail_stays_within_a_max_and_ends_in_time(v, a_max, period, delta):
    spec = CommandSpec(period, delta_dims=(0, 1, 2) if delta else (), a_max=a_max)
    v = np.array(v)
    last = v * period if delta else np.array([1.0, 2.0, 3.0]) + v * period
    tail = rest_tail(last, np.array([1.0, 2.0, 3.0]), spec)
    velocity = tail / period if delta else np.diff(np.concatenate([last[None], tail]), axis=0) / period
    a = np.diff(np.concatenate([v[None], velocity]), axis=0) / period
    if np.max(np.abs(v)) / a_max < 9:  # above it MAX_RAMP_S cuts the ramp short
        assert np.max(np.abs(a)) <= a_max * (1 + 1e-6) + 1e-6 / period**2 * 1e-3
        assert len(tail) * period <= np.max(np.abs(v)) / a_max + 2 * period
    assert np.allclose(velocity[-1], 0, atol=1e-9)


# ---- boundary metrics ------------------------------------------------------------------------------------------------


def test_CB1_is_infinite_smoothness_over_a_step():
    """A parabola (a = 2 everywhere) with a step of 0.1 at tick 20: a[19] = 2 + 0.1/T^2, a[20] = 2 - 0.1/T^2."""
    k = np.arange(60)
    c = (k * T) ** 2 + 0.1 * (k >= 20)
    m = boundary_metrics(c[:, None], [20], T)
    inside = np.abs([2 + 0.1 / T**2, 2 - 0.1 / T**2])
    assert m.cb1_p99_boundary == pytest.approx(np.percentile(inside, 99))
    assert m.cb1_p99_interior == pytest.approx(2.0)
    assert m.cb1_ratio == m.cb1_ratio_median == pytest.approx(m.cb1_p99_boundary / 2)


def test_CB1_worst_and_median_dimension():
    k = np.arange(60)
    c = np.stack([(k * T) ** 2 + step * (k >= 20) for step in (0.0, 0.01, 0.1)], axis=1)
    m = boundary_metrics(c, [20], T, blend=0)
    assert m.cb1_ratio == pytest.approx(np.percentile([21.0, 19.0], 99), rel=1e-6)
    assert m.cb1_ratio_median == pytest.approx(np.percentile([3.0, 1.0], 99), rel=1e-6)


def test_CB1_window_is_switch_minus_1_to_switch_plus_w():
    k = np.arange(60)
    c = ((k * T) ** 2)[:, None]
    for tick, is_boundary in ((17, False), (18, True), (23, True), (24, False)):
        bent = c.copy()
        bent[tick + 1 :] += 0.5 * np.arange(1, 60 - tick)[:, None] * T  # a[tick] alone is larger, by 0.5 / T
        m = boundary_metrics(bent, [19], T, blend=4)
        assert (m.cb1_p99_boundary > 5) == is_boundary


def test_CB1_on_a_still_robot_is_finite_and_without_switch_is_none():
    still = np.zeros((30, 2))
    assert boundary_metrics(still, [10], T).cb1_ratio == 0
    assert boundary_metrics(still, [], T).cb1_ratio is None


def test_CB2_counts_samples_over_the_limits():
    c = np.zeros((20, 1))
    c[10:] = 0.1  # v = 2 at one tick; a = +40, -40
    assert boundary_metrics(c, [], T, v_max=1.9).cb2_violations == 1
    assert boundary_metrics(c, [], T, v_max=2.0, a_max=39.0).cb2_violations == 2
    assert boundary_metrics(c, [], T, v_max=2.0, a_max=40.0).cb2_violations == 0
    assert boundary_metrics(c.astype(np.float32), [], T, v_max=2.0, a_max=40.0).cb2_violations == 0
    assert boundary_metrics(c, [], T).cb2_violations is None


def test_CB3_step_at_the_switch():
    c = np.zeros((20, 2))
    c[10:, 1] = 0.1
    m = boundary_metrics(c, [10], T, v_max=(1.0, 1.0))
    assert m.cb3_step == pytest.approx(0.1) and m.cb3_step_over == pytest.approx(0.1 - 1.0 * T)
    assert boundary_metrics(c, [5], T, v_max=1.0).cb3_step_over == pytest.approx(-T)


def test_CB4_disagreements():
    m = boundary_metrics(np.zeros((9, 1)), [2, 4, 6], T, disagreements=[0.1, None, 0.3], d_max=0.15)
    assert (m.cb4_max, m.cb4_mean, m.cb4_over) == (pytest.approx(0.3), pytest.approx(0.2), 1)


def test_CB5_jerk_and_ratio():
    """c = (kT)^3 has jerk 6; three times that motion has ratio 3."""
    c = ((np.arange(30) * T) ** 3)[:, None]
    assert boundary_metrics(c, [], T).cb5_jerk == pytest.approx(6, rel=1e-6)
    assert boundary_metrics(3 * c, [], T, reference=c).cb5_ratio == pytest.approx(3)


def test_CB6_index_law():
    c = np.zeros((9, 1))
    assert boundary_metrics(c, [1, 2], T, executed=[3, 4], elapsed=[3, 5]).cb6_index_law == 0.5
    with pytest.raises(ValueError):
        boundary_metrics(c, [1], T, executed=[3], elapsed=[])


def test_CB7_hold_entry():
    spec = CommandSpec(T, a_max=10.0)
    moving = ramp(0, 0.1, 10)  # 2 units/s
    tail = rest_tail(moving[-1], moving[-2], spec)
    c = np.concatenate([moving, tail, np.repeat(tail[-1:], 5, axis=0)])
    m = boundary_metrics(c, [], T, hold_ticks=[10])
    assert m.cb7_hold_a == pytest.approx(10.0) and m.cb7_rest_s == pytest.approx(3 * T)
    frozen = np.concatenate([moving, np.repeat(moving[-1:], 5, axis=0)])
    assert boundary_metrics(frozen, [], T, hold_ticks=[10]).cb7_hold_a == pytest.approx(2 / T)


def test_delta_commands_are_measured_as_positions():
    """A constant delta is constant velocity: no acceleration. The same numbers as positions would be at rest."""
    r = np.random.default_rng(0)
    positions = np.cumsum(np.cumsum(r.normal(size=(50, 2)), axis=0), axis=0)
    deltas = np.diff(positions, axis=0, prepend=0.0)
    kw = {"blend": 2, "v_max": 1.0, "hold_ticks": [30]}
    got = boundary_metrics(deltas, [10, 20], T, delta_dims=(0, 1), **kw).to_json()
    want = boundary_metrics(positions, [10, 20], T, **kw).to_json()
    assert got == pytest.approx(want)
    assert boundary_metrics(deltas, [10, 20], T, **kw).cb5_jerk != pytest.approx(want["cb5_jerk"])


def test_discrete_dims_are_left_out():
    c = np.zeros((20, 2))
    c[::2, 1] = 1
    m = boundary_metrics(c, [10], T, discrete_dims=(1,), v_max=(1.0, 1e-9))
    assert m.cb3_step == 0 and m.cb2_violations == 0 and m.cb5_jerk == 0


def test_no_difference_is_taken_across_runs():
    c = np.concatenate([ramp(0, 0.1, 20), ramp(9, 0.1, 20)])
    apart = boundary_metrics(c, [10], T, v_max=2.1, a_max=1.0, run_starts=[0, 20])
    assert apart.cb2_violations == 0 and apart.cb5_jerk == pytest.approx(0, abs=1e-6)
    assert boundary_metrics(c, [10], T, v_max=2.1, a_max=1.0).cb2_violations == 3


def test_metrics_are_json_and_ticks_are_checked():
    text = json.dumps(boundary_metrics(np.zeros((9, 1)), [2], T).to_json(), allow_nan=False)
    assert json.loads(text)["switches"] == 1
    assert boundary_metrics(np.zeros((0, 3)), [], T, v_max=1.0).samples == 0
    with pytest.raises(ValueError, match="within"):
        boundary_metrics(np.zeros((9, 1)), [9], T)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(7, 12))
def test_quintic_beats_linear_beats_none_at_the_boundary(seed, w):
    """Two smooth plans that differ by 10 mrad: the ladder of FAULTS.md, in the order it must have.

    Peak of |s''|: quintic 10/sqrt(3) / (w+1)^2, linear one kink of 1 / (w+1): quintic wins for w >= 5.
    """
    r = np.random.default_rng(seed)
    t = np.arange(80) * 0.02
    old = np.stack([np.sin(t + p) for p in r.uniform(0, 6, 7)], axis=1)
    new = old + 0.01 * np.sign(r.normal(size=7))
    ratio = {}
    for name in ("none", "linear", "quintic"):
        served = SPLICES[name](old[40:], new[40:], Join(w, CommandSpec(0.02)))
        c = np.concatenate([old[:40], served])
        ratio[name] = boundary_metrics(c, [40], 0.02, blend=w).cb1_ratio
    assert ratio["quintic"] < ratio["linear"] < ratio["none"]
