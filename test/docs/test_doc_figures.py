"""The figures of README and docs are those of bench/results, and the results meet what the project promises."""

import json
import re
import sys

import pytest
from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import eval_tables

DATA = json.loads((ROOT / "bench/results/tabletop_eval.json").read_text())


@pytest.mark.parametrize("name", ["README.md", "docs/demo.md"])
def test_figures_are_the_measured_ones(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- figures precision -->" in text
    assert eval_tables.fill(text, DATA) == text, "run: python tools/eval_tabletop.py --docs"


def test_a_changed_figure_is_caught():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = re.sub(r"\d+\.\d %", "12.3 %", text, count=1)
    assert changed != text and eval_tables.fill(changed, DATA) == text


def test_all_tables_are_there():
    assert set(eval_tables.sections(DATA)) == {"precision", "latency", "boundary", "ablation"}


def test_results_are_of_the_bundled_policy():
    manifest = json.loads((ROOT / "flashrt_ros/sim/tabletop/policy/manifest.json").read_text())
    from flashrt_core.core.checkpoint import open_checkpoint

    digest = open_checkpoint(ROOT / "flashrt_ros/sim/tabletop/policy").digest()
    assert manifest and {run["checkpoint_sha256"] for run in DATA["runs"].values()} == {digest}


def test_results_meet_the_goals():
    runs = DATA["runs"]
    assert runs["fp32"]["episodes"] == runs["fp8"]["episodes"] == 200
    assert runs["fp32"]["success_rate"] >= 0.95
    assert DATA["fp8_vs_fp32"]["difference"] >= -0.02
    assert runs["fp32"]["model_latency_ms"]["p50"] <= 60
    for name in ("wrong prompt", "black images", "black wrist", "zero state"):
        assert runs[f"ablation/{name}"]["success_rate"] <= 0.1
    for name, run in runs.items():
        assert run["errors"] == 0, name
        if name.startswith("latency/"):
            assert run["boundary"]["cb6_index_law"] == 1.0
