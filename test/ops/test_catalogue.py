"""docs/ops.md is what the table says."""

from __future__ import annotations

from pathlib import Path

from flashrt_core.ops.catalogue import catalogue
from flashrt_core.ops.table import OPS


def test_page_equals_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ops.md").read_text(encoding="utf-8")
    assert page == catalogue(), "run: python -m flashrt_core.ops.catalogue > docs/ops.md"
    assert all(f"## {name}\n" in page for name in OPS)
