"""The tables of docs/libero.md are those of bench/results/libero_lift.json, and these show what the bridge promises."""

import json
import sys

from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import libero_lift

DATA = json.loads((ROOT / "bench/results/libero_lift.json").read_text())


def test_page_has_the_measured_figures():
    text = (ROOT / "docs/libero.md").read_text(encoding="utf-8")
    assert libero_lift.fill(text, DATA) == text, "run python bench/libero_lift.py --tables"
    for name, table in libero_lift.tables(DATA).items():
        assert f"<!-- libero {name} -->\n{table}\n<!-- end libero -->" in text
    assert DATA["command"].removesuffix(" --gl egl") in text


def test_replayed_demonstrations_succeed_as_the_people_did():
    (cell,) = DATA["runs"]["demo-replay"]["conditions"]
    assert (cell["successes"], cell["episodes"], cell["errors"]) == (3, 3, 0)


def test_every_strategy_was_run_at_every_latency():
    cells = DATA["runs"]["scripted"]["conditions"]
    assert {(c["splice"], c["latency_ms"]) for c in cells} == {
        (s, ms) for s in libero_lift.STRATEGIES for ms in libero_lift.LATENCIES_MS
    }
    assert all(c["episodes"] >= 12 and c["errors"] == 0 and c["boundary"]["cb6_index_law"] == 1.0 for c in cells)
    assert min(c["success_rate"] for c in cells) > 0.9


def test_run_over_dds_is_the_one_of_the_page():
    ros = json.loads((ROOT / "bench/results/libero_ros.json").read_text())
    text = (ROOT / "docs/libero.md").read_text(encoding="utf-8")
    (cell,) = ros["conditions"]
    assert cell["errors"] == 0 and f"{cell['successes']} of {cell['episodes']} episodes, no command lost" in text
    assert ros["command"] in text
