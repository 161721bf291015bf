"""The Python blocks of docs/calibration.md run as they stand, and the tests it names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "calibration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)


def test_the_page_has_blocks():
    assert len(BLOCKS) == 6


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs_on_its_own(number):
    done = subprocess.run([sys.executable, "-c", BLOCKS[number]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_named_tests_exist():
    paths = re.findall(r"python -m pytest (\S+\.py)", TEXT)
    assert len(paths) == 2 and all((ROOT / path).is_file() for path in paths)
