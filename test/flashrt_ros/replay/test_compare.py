"""Paired intervals, variants of a command line and the verdict that gates a deployment."""

import numpy as np
import pytest
from support.replay_bags import arm_robot, scripted_settings

from flashrt_core.errors import ConfigError
from flashrt_ros.replay.compare import Difference, difference, judge, variant

BASE = scripted_settings(arm_robot())


def units(errors, per_episode: int = 10, count: int = 7):
    """One unit a number: sum and count of "chunk" errors; the others empty."""
    out = {}
    for i, e in enumerate(errors):
        row = np.zeros(6)
        row[0], row[1] = e * count, count
        out[(0, i // per_episode, i % per_episode)] = row
    return out


def test_equal_sides_differ_by_exactly_nothing():
    errors = np.random.default_rng(0).uniform(0.1, 1, 50)
    d = difference(units(errors), units(errors), "chunk")
    assert (d.relative, d.low, d.high) == (0.0, 0.0, 0.0) and d.units == 50
    assert judge({"chunk": d}, False, 0.0).passes


def test_a_fixed_ratio_is_found_however_wild_the_units_are():
    errors = np.random.default_rng(1).lognormal(0, 2, 60)
    d = difference(units(errors), units(errors * 1.1), "chunk")
    assert d.relative == pytest.approx(0.1) and d.low == pytest.approx(0.1) and d.high == pytest.approx(0.1)
    assert judge({"chunk": d}, False, 0.05).word == "worse" and judge({"chunk": d}, False, 0.11).passes


def test_interval_covers_the_truth_about_95_times_in_100():
    rng, hits = np.random.default_rng(2), 0
    for _ in range(60):
        a = rng.uniform(0.5, 1.5, 40)
        d = difference(units(a), units(a + rng.normal(0.1, 0.3, 40)), "chunk")
        hits += d.low <= 0.1 <= d.high
    assert 52 <= hits <= 60


def test_noise_alone_is_unclear_not_within():
    rng = np.random.default_rng(3)
    d = difference(units(rng.uniform(0, 1, 6)), units(rng.uniform(0, 1, 6)), "chunk")
    verdict = judge({"chunk": d}, False, 0.01)
    assert verdict.word == "unclear" and not verdict.passes and "not shown" in verdict.sentence


def test_only_common_units_are_paired():
    a, b = units([1.0, 2.0, 3.0]), units([1.0, 2.0, 3.0])
    del a[(0, 0, 0)]
    b[(0, 0, 2)][1] = b[(0, 0, 2)][0] = 0
    assert difference(a, b, "chunk").units == 1
    assert difference({}, b, "chunk") is None and difference(a, b, "served") is None
    assert judge({"chunk": None}, False, 1.0).word == "unclear"


def test_many_episodes_are_resampled_as_wholes():
    many, few = units(np.ones(100)), units(np.ones(70))
    assert difference(many, many, "chunk").units == 10
    assert difference(few, few, "chunk").units == 70  # seven episodes are too few


def test_eight_episodes_of_one_side_and_seven_of_the_other_are_still_paired():
    """A side whose policy refuses every chunk of an episode has no errors there; the others are compared by seconds."""
    a = units(np.random.default_rng(4).uniform(1, 2, 80))
    b = {key: 1.2 * row * [1, 0, 0, 0, 0, 0] + row * [0, 1, 1, 1, 1, 1] for key, row in a.items() if key[1] != 7}
    d = difference(a, b, "chunk")
    assert d.units == 70 and d.relative == pytest.approx(0.2)


@pytest.mark.parametrize(("count", "word"), [(1, "unclear"), (4, "unclear"), (5, "within")])
def test_a_few_pairs_are_no_pass_however_alike_they_are(count, word):
    """One pair resampled gives an interval without width: it would pass anything that is not worse by chance."""
    d = difference(units(np.ones(count)), units(np.ones(count)), "chunk")
    verdict = judge({"chunk": d}, False, 0.05)
    assert verdict.word == word and ("at least 5" in verdict.sentence) == (word == "unclear")


def test_a_side_without_errors_gives_no_number_of_many_digits():
    d = difference(units(np.zeros(9)), units(np.full(9, 0.3)), "chunk")
    verdict = judge({"chunk": d}, False, 0.05)
    assert verdict.word == "worse" and "more than +10,000 %" in verdict.sentence and "from 0 to 30 %" in verdict.sentence


def test_splice_alone_is_judged_by_what_is_served():
    good, bad = Difference(1, 1, 0, 0, 0, 9), Difference(1, 2, 1.0, 0.9, 1.1, 9)
    assert judge({"chunk": good, "served": bad}, True, 0.05).word == "worse"
    assert judge({"chunk": good, "served": bad}, False, 0.05).passes


def test_variants(tmp_path):
    assert variant("quintic", BASE).node.splice == "quintic"
    assert variant("fp8", BASE).policy.precision == "fp8" and variant("fp32", BASE).policy.precision == "full"
    assert variant(str(tmp_path), BASE).policy.checkpoint == str(tmp_path)
    both = variant("splice=none,latency=80,replan_ticks=3,precision=fp8", BASE)
    assert (both.node.splice, both.latency.text, both.node.replan_ticks, both.policy.precision) == ("none", "80", 3, "fp8")
    assert variant("none", BASE).policy == BASE.policy


@pytest.mark.parametrize(
    ("text", "words"),
    [("quintik", "quintic"), ("splise=none", "splice"), ("precision=fp9", "fp8"), ("replan_ticks=x", "whole number"),
     ("latency=soon", "measured"), ("splice=cubic", "one of")],
)  # fmt: skip
def test_what_no_variant_is(text, words):
    with pytest.raises(ConfigError, match=words):
        variant(text, BASE)
