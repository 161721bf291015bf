"""The speed of a replay in docs/replay.md is that of bench/results."""

import json
import sys

from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import replay_speed

DATA = json.loads((ROOT / "bench/results/replay_speed.json").read_text())
PAGE = (ROOT / "docs/replay.md").read_text(encoding="utf-8")


def test_figures_are_the_measured_ones():
    assert replay_speed.fill(PAGE, DATA) == PAGE, "run: python bench/replay_speed.py --out ... --docs"


def test_a_changed_figure_is_caught():
    changed = json.loads(json.dumps(DATA))
    changed["runs"][0]["ticks_per_s"] += 100
    assert replay_speed.fill(PAGE, changed) != PAGE


def test_all_cases_are_there():
    assert {(r["views"], r["replan_ticks"]) for r in DATA["runs"]} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    for r in DATA["runs"]:
        assert r["replan_ticks"] == 0 or r["requests"] == r["ticks"]
