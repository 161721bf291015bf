"""The closed-loop evaluation on a GPU: paired with the CPU's recorded seeds, a loss of more than two points fails."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import eval_gpu

from flashrt_ros.evaluation.closed_loop import Episode


@pytest.mark.parametrize(("lost", "code"), [(set(), 0), ({3}, 1)])
def test_pairs_with_the_recorded_run(lost: set, code: int, monkeypatch, tmp_path, capsys) -> None:
    asked = []

    def made_up(what, seeds, jobs):
        asked.append((what.precision, what.hardware, seeds[0], jobs))
        for k, seed in enumerate(seeds):
            e = Episode(seed, "pick up the red block", success=k not in lost, steps=12)
            e.commands = np.zeros((12, 7), np.float32)
            e.switch_ticks, e.executed, e.elapsed, e.disagreements, e.model_ms = [5], [0], [0], [0.1], [1.0, 2.0]
            yield e

    monkeypatch.setattr(eval_gpu, "run_seeds", made_up)
    argv = ["eval_gpu.py", "--episodes", "20", "--jobs", "4", "--out", str(tmp_path / "e.json")]
    monkeypatch.setattr(sys, "argv", argv)
    assert eval_gpu.main() == code
    assert asked == [(p, "hopper", eval_gpu.SEED, 4) for p in ("bf16", "fp8")]
    runs = json.loads((tmp_path / "e.json").read_text())["runs"]
    assert runs["fp8"]["successes"] == 20 - len(lost) and runs["fp8"]["against_host_fp32"]["n"] == 20
    assert "difference" in capsys.readouterr().out
