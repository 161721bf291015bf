"""The precision study at the smallest size: every GEMM has a case, nothing rounded is exact, and keeping the mean helps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tools import precision_study
from tools.precision_study import Case, Study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    made = Study("tiny", tmp_path_factory.mktemp("study"))
    made.collect_means([0, 1])
    return made


def test_nothing_rounded_is_the_same_forward_and_something_is_not(study) -> None:
    exact = study.actions(7, Case("nothing", ()))
    assert exact.shape == (3, study.dims.horizon, study.dims.action_dim)
    assert np.array_equal(study.actions(7, Case("nothing", study.gemms, "")), exact)
    for gemm in study.gemms:
        assert not np.array_equal(study.actions(7, Case(gemm, (gemm,))), exact), gemm


def test_it_says_what_the_shipped_plan_rounds(study) -> None:
    from flashrt_core.models.pi05 import pipeline_host

    shipped = next(c for c in precision_study.all_cases(study.gemms) if "shipped" in c.name)
    assert set(study.gemms) - set(shipped.gemms) == ({"vision.o"} if pipeline_host.PLAN_FP8.vision.heads_wide else set())


def test_the_command_writes_a_row_per_case(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["precision_study.py", "--size", "tiny", "--observations", "1", "--out", str(tmp_path / "r")])
    main: Callable[[], int] = precision_study.main
    assert main() == 0
    rows = json.loads((tmp_path / "r").read_text())["rows"]
    assert len(rows) == len(capsys.readouterr().out.splitlines()) == 13 + 13
    by = {(r["case"], r["rounding"]): r["error"] for r in rows}
    assert by["all weights", "keeping"] < by["all weights", "nearest"] and all(0 < e < 0.1 for e in by.values())
