"""The autotune cache: used for exactly the GPU, library and effort it was made with, never when it is damaged or unsafe."""

from __future__ import annotations

import json
import logging
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from flashrt_core.core.utils.sealed_json import checksum
from flashrt_core.hardware.tune_cache import TuneCache, TuneKey

KEY = TuneKey("NVIDIA H200 SM90", "cublasLt 130002", 9)
SHAPE = (512, 3456, 1152, 1, 3, 0, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cache = TuneCache(KEY, tmp_path / "autotune")
    assert cache.get(SHAPE) is None and cache.hits == 0
    cache.put(SHAPE, bytes(range(64)))
    cache.put((1, 2, 3), b"")
    cache.save()
    return tmp_path / "autotune"


def test_a_choice_comes_back_and_is_for_its_owner_only(folder: Path) -> None:
    cache = TuneCache(KEY, folder)
    assert cache.get(SHAPE) == bytes(range(64)) and cache.hits == 1
    assert cache.get((1, 2, 3)) is None, "nothing to choose is not kept"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_is_written_when_nothing_changed(folder: Path) -> None:
    (file,) = folder.iterdir()
    before = file.stat().st_mtime_ns
    cache = TuneCache(KEY, folder)
    cache.put(SHAPE, bytes(range(64)))
    cache.save()
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change", [{"gpu": "NVIDIA H100 SM90"}, {"library": "cublasLt 130100"}, {"effort": 15}, {"flashrt_version": "9"}], ids=str
)
def test_another_gpu_library_or_effort_is_tuned_again(folder: Path, change: dict) -> None:
    assert TuneCache(replace(KEY, **change), folder).get(SHAPE) is None


def rewrite(folder: Path, **changes: object) -> None:
    (file,) = folder.iterdir()
    body = {k: v for k, v in json.loads(file.read_text()).items() if k != "sha256"} | changes
    file.write_text(json.dumps({**body, "sha256": checksum(body)}))


@pytest.mark.parametrize(
    "choices", [{"1": "zz"}, {"1": 5}, [], {"1": "0"}, {"1": "00" * 257}], ids=str
)  # well sealed, so that only this rule refuses them
def test_a_well_sealed_file_of_something_else(folder: Path, choices: object, caplog) -> None:
    rewrite(folder, choices=choices)
    with caplog.at_level(logging.WARNING):
        assert TuneCache(KEY, folder).get(SHAPE) is None
    assert "tuning again" in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_broken_file_is_noted_and_replaced(folder: Path, cut: int, caplog) -> None:
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:cut])
    with caplog.at_level(logging.WARNING):
        cache = TuneCache(KEY, folder)
    assert cache.get(SHAPE) is None and "tuning again" in caplog.text
    cache.put(SHAPE, b"\x01" * 64)
    cache.save()
    assert TuneCache(KEY, folder).get(SHAPE) == b"\x01" * 64


def test_a_file_that_others_can_write_or_a_link_is_not_read(folder: Path, tmp_path: Path, caplog) -> None:
    (file,) = folder.iterdir()
    file.chmod(0o666)
    with caplog.at_level(logging.WARNING):
        assert TuneCache(KEY, folder).get(SHAPE) is None
        file.chmod(0o600)
        file.rename(tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", file)
        assert TuneCache(KEY, folder).get(SHAPE) is None
    assert len(caplog.records) == 2


def test_a_disk_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    cache = TuneCache(KEY, tmp_path / "file" / "autotune")
    cache.put(SHAPE, b"\x01")
    with caplog.at_level(logging.WARNING):
        cache.save()
    assert "continuing without it" in caplog.text
