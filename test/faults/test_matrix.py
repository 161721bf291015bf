"""The fault matrix: every row that can be shown without a GPU names its tests, and they exist."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest
from support.checkers import ROOT, source_files

from flashrt_core.inputs import read_yaml
from flashrt_ros.control.faults import FAULTS

MATRIX = read_yaml(ROOT / "test/faults/matrix.yaml")
# Issue 3: rows of observations, command, time, worker; lifecycle and DDS; security.
REQUIRED = [f"F{i:02d}" for i in (*range(1, 47), *range(64, 75), *range(85, 91))]


def rows_in_tree() -> dict[str, list[str]]:
    """Every test function of the tree that is named after a row, as path::name."""
    out = defaultdict(list)
    for file in source_files("test"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            found = isinstance(node, ast.FunctionDef) and re.match(r"test_(F\d\d)_\w", node.name)
            if found:
                out[found[1]].append(f"{file.relative_to(ROOT).as_posix()}::{node.name}")
    return out


IN_TREE = rows_in_tree()


def test_every_required_row_is_there_once():
    parts = [*MATRIX["tests"], *MATRIX["gpu"], *MATRIX["pending"]]
    assert sorted(parts) == sorted(set(parts)), "a row in two parts"
    assert set(REQUIRED) <= set(parts), sorted(set(REQUIRED) - set(parts))
    assert set(parts) <= set(FAULTS)


@pytest.mark.parametrize("row", MATRIX["tests"])
def test_row_names_tests_that_exist(row):
    names = MATRIX["tests"][row]
    assert names and len(set(names)) == len(names)
    for name in names:
        assert name.split("::")[1].startswith(f"test_{row}_"), f"{name} is not named after {row}"
        assert name in IN_TREE[row], f"{name} does not exist"


def test_pending_rows_have_no_test_yet():
    written = {row: IN_TREE[row] for row in (*MATRIX["pending"], *MATRIX["gpu"]) if row in IN_TREE}
    assert not written, f"list these in matrix.yaml: {written}"


def test_gpu_rows_are_those_of_tier_g():
    assert all(FAULTS[row].tier == "G" for row in MATRIX["gpu"])


def test_every_test_named_after_a_row_has_a_row():
    assert set(IN_TREE) <= set(FAULTS), sorted(set(IN_TREE) - set(FAULTS))
