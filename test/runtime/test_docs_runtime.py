"""docs/runtime.md: its examples run, the options and counters it names exist."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from flashrt_core.runtime.chunk import SPLICES
from flashrt_core.runtime.rtc import RTCConfig, RTCStats

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runtime.md"


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """(line, code) of every ```python block of a Markdown page."""
    text = page.read_text(encoding="utf-8")
    return [(text[: m.start()].count("\n") + 2, m[1]) for m in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M)]


@pytest.mark.parametrize(("line", "code"), python_blocks(PAGE), ids=lambda x: f"line{x}" if isinstance(x, int) else "")
def test_example_runs(line, code):
    exec(compile("\n" * (line - 1) + code, str(PAGE), "exec"), {})  # noqa: S102 - a test runs the page's own code


def test_the_page_has_its_examples():
    assert len(python_blocks(PAGE)) == 4


def test_names_on_the_page_exist():
    text = PAGE.read_text(encoding="utf-8")
    options = {f.name for f in fields(RTCConfig)}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?:=[^`]*)?`", text))
    known = options | {f.name for f in fields(RTCStats)} | set(SPLICES) | {"next_action", "boundary_metrics"}
    assert named <= known | {"block_if_empty"}, named - known
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == set(SPLICES)
