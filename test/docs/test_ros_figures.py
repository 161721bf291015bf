"""The figures of docs/ros_demo.md are those of bench/results/ros_demo.json, and these meet what the project promises."""

import json
import sys

from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import ros_demo_bench

DATA = json.loads((ROOT / "bench/results/ros_demo.json").read_text())


def test_page_has_the_measured_figures():
    text = (ROOT / "docs/ros_demo.md").read_text(encoding="utf-8")
    assert ros_demo_bench.MARKED.search(text)
    assert ros_demo_bench.fill(text, DATA) == text, "run tools/ros_demo_bench.py"
    assert ros_demo_bench.fill(text.replace(" of 20;", " of 99;"), DATA) == text


def test_run_over_dds_meets_the_goals():
    dds, own = DATA["dds"], DATA["in_process"]
    assert dds["episodes"] == own["episodes"] == 20 and dds["errors"] == 0 and dds["seed"] == own["seed"]
    assert dds["success_rate"] >= own["success_rate"] - 0.05
    assert dds["lost_or_repeated_actions"] == 0 and dds["actions"]["applied"] + dds["held_steps"] == dds["ticks"]
    assert dds["boundary"]["cb6_index_law"] == 1.0
