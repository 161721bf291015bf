"""The start measurement on the host: a written checkpoint is a real one, and a second start finds the calibration."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import start_figure

from flashrt_core.bench.random_model import size_named, write_random
from flashrt_core.core.checkpoint import open_checkpoint


def test_a_written_checkpoint_is_read_by_the_strict_reader(tmp_path: Path) -> None:
    size = write_random(tmp_path, size_named("tiny"))
    assert size == (tmp_path / "model.safetensors").stat().st_size
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.check_finite()
    checkpoint.digest_soon()
    assert checkpoint.digest() == open_checkpoint(tmp_path).digest()


def test_two_starts(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["start_figure.py", "--write", str(tmp_path / "c"), "--size", "tiny"])
    assert start_figure.main() == 0
    common = [str(tmp_path / "c"), "--hardware", "host", "--precision", "fp8", "--calls", "2", "--out", str(tmp_path / "r.json")]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["start_figure.py", *common])
        assert start_figure.main() == 0
    first, second = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert (first["calibration_cached"], second["calibration_cached"]) == (False, True)
    assert first["start_s"] > 0 and first["grown_bytes"] == 0 and first["finite"]
