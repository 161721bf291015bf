"""The performance tables of README and docs are those of bench/results/pi05_h200.json, and its rows have every column."""

import json
import re
import sys

import pytest
from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import perf_tables

DATA = json.loads(perf_tables.RESULT.read_text())
COLUMNS = {"model", "gpu", "precision", "views", "chunk", "num_steps", "prompt_len", "replay_ms_p50", "replay_ms_p95",
           "wall_ms_p50", "nodes", "cosine_fp32", "commit", "date"}  # fmt: skip


@pytest.mark.parametrize("path", perf_tables.DOCS, ids=lambda p: p.name)
def test_tables_are_the_measured_ones(path):
    text = path.read_text(encoding="utf-8")
    assert "<!-- performance main -->\n| |" in text
    assert perf_tables.fill(text, DATA) == text, "run: python tools/perf_tables.py --docs"


def test_a_changed_figure_is_caught():
    text = perf_tables.DOCS[1].read_text(encoding="utf-8")
    changed = re.sub(r"\*\*\d+\.\d\d /", "**1.23 /", text, count=1)
    assert changed != text and perf_tables.fill(changed, DATA) == text


def test_every_row_has_every_column():
    assert DATA["rows"] and all(COLUMNS <= row.keys() for row in DATA["rows"])


def test_a_row_is_found_by_what_it_is():
    row = perf_tables.MAIN | {"precision": "fp8", "replay_ms_p50": 5.0}
    rows = [row, row | {"views": 3}, row | {"replay_ms_p50": 6.0}]
    assert perf_tables.find(rows, "fp8")["replay_ms_p50"] == 6.0, "the newest"
    assert perf_tables.find(rows, "fp8", views=3) is rows[1]
    assert perf_tables.find(rows, "bf16") is None
    with pytest.raises(KeyError):
        perf_tables.fill("<!-- performance none -->\n<!-- end performance -->\n", DATA)


def test_the_precision_table_is_that_of_the_study():
    study = json.loads((ROOT / "bench/results/precision_study.json").read_text())
    text = (ROOT / "docs/performance.md").read_text()
    for row in study["rows"]:
        error, largest = (f"{row[name]:.2e}".replace("e-0", "e-") for name in ("error", "largest"))
        assert f"{error} / {largest}" in text.replace("*", ""), row
    shipped = next(row for row in study["rows"] if "shipped" in row["case"])
    assert shipped["largest"] <= 4e-4 and study["size"] == "full"  # a cosine of 0.9996
