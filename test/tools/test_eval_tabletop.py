"""The evaluation tool: a run that is in the file is not repeated, an interrupted one is, and the tables state the data."""

import json
import sys

import numpy as np
import pytest
from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import eval_tables
import eval_tabletop

from flashrt_ros.evaluation.closed_loop import Episode


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Runs the tool on made-up episodes; returns (runs done, the file's content)."""
    out = tmp_path / "e.json"
    done = []

    def made_up(what, seeds, jobs):
        done.append(what)
        for seed in seeds:
            lost = what.precision == "fp8" and seed % 4 == 0
            e = Episode(seed, "pick up the red block", success=not lost, steps=12)
            e.commands = np.random.default_rng(seed).uniform(-1, 1, (12, 7)).astype(np.float32)
            e.switch_ticks, e.executed, e.elapsed, e.disagreements, e.model_ms = [5], [0], [0], [0.1], [10.0, 20.0]
            yield e

    monkeypatch.setattr(eval_tabletop, "run_seeds", made_up)

    def run(*argv: str) -> tuple[int, dict]:
        monkeypatch.setattr(sys, "argv", ["eval_tabletop.py", "--out", str(out), *argv])
        done.clear()
        assert eval_tabletop.main() == 0
        return len(done), json.loads(out.read_text())

    return run


def test_runs_are_kept_until_something_changes(evaluate):
    count, data = evaluate("--only", "fp32", "fp8", "--episodes", "8")
    assert count == 2 and data["runs"]["fp32"]["success_by_seed"] == "1" * 8
    assert evaluate("--only", "fp32", "fp8", "--episodes", "8") == (0, data)
    assert evaluate("--only", "fp32", "--episodes", "8", "--again")[0] == 1
    assert evaluate("--only", "fp8", "--episodes", "9")[0] == 1


def test_everything_makes_every_table(evaluate, capsys):
    count, data = evaluate("--episodes", "8", "--latency-episodes", "2", "--ablation-episodes", "2")
    assert count == 2 + 4 * len(eval_tables.LATENCIES_MS) + 5
    assert set(eval_tables.sections(data)) == {"precision", "latency", "boundary", "ablation"}
    assert data["fp8_vs_fp32"]["difference"] == pytest.approx(-0.25) and data["fp8_vs_fp32"]["only_a"] == 2
    out = capsys.readouterr().out
    assert "| fp32 | 100.0 % (8/8) |" in out and "-25.0 points" in out


def test_fill_replaces_only_what_is_marked(evaluate):
    _, data = evaluate("--only", "fp32", "fp8", "--episodes", "8")
    text = "before\n<!-- figures precision -->\nold\n<!-- end figures -->\nafter\n"
    new = eval_tables.fill(text, data)
    assert new.startswith("before\n<!-- figures precision -->\n| precision") and new.endswith(
        "<!-- end figures -->\nafter\n"
    )
    assert "old" not in new and eval_tables.fill(new, data) == new
    with pytest.raises(KeyError):
        eval_tables.fill(text.replace("precision", "latency"), data)
