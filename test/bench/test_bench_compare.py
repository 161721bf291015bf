"""Comparing result files: like with like, a regression beyond the margin is flagged, everything else is not."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from flashrt_core.bench.compare import compare, read_results, write_results
from flashrt_core.errors import ConfigError

ROW = {
    "model": "pi05", "gpu": "NVIDIA H200", "precision": "fp8", "views": 2, "chunk": 10, "num_steps": 10, "prompt_len": 48,
    "capacity": 48, "replay_ms_p50": 8.0, "replay_ms_p95": 8.1, "wall_ms_p50": 8.4, "nodes": 900, "cosine_fp32": 0.9997,
    "commit": "abc", "date": "2026-01-01",
}  # fmt: skip


def changed(**values: object) -> list[dict]:
    return [copy.deepcopy(ROW) | values]


@pytest.mark.parametrize(
    ("values", "worse"),
    [
        ({}, set()), ({"replay_ms_p50": 8.2}, set()), ({"replay_ms_p50": 8.25}, {"replay_ms_p50"}),
        ({"wall_ms_p50": 9.0}, {"wall_ms_p50"}), ({"nodes": 901}, {"nodes"}), ({"cosine_fp32": 0.9995}, {"cosine_fp32"}),
        ({"cosine_fp32": 0.99965, "replay_ms_p50": 5.0}, set()), ({"replay_ms_p50": None}, set()),
    ],
    ids=str,
)  # fmt: skip
def test_what_counts_as_worse(values: dict, worse: set) -> None:
    pairs = compare([ROW], changed(**values), margin=0.03)
    assert {p.figure for p in pairs if p.worse} == worse
    assert all(p.ratio == p.new / p.old for p in pairs)


@pytest.mark.parametrize("other", [{"gpu": "NVIDIA H100"}, {"views": 3}, {"cache_frames": 2}, {"image_size": [480, 640]}], ids=str)
def test_another_configuration_is_not_compared(other: dict) -> None:
    assert compare([ROW], changed(**other)) == []
    assert len(compare(changed(**other), changed(**other))) == 4


def test_a_row_of_before_the_newer_columns_is_the_default_one() -> None:
    assert len(compare([ROW], changed(cache_frames=1, image_size=None))) == 4


def test_a_file_comes_back(tmp_path: Path) -> None:
    write_results(tmp_path / "a" / "r.json", [ROW], command="flashrt bench", gpu=None)
    assert read_results(tmp_path / "a" / "r.json") == [ROW]


@pytest.mark.parametrize("text", ["", "{}", '{"rows": []}', '{"rows": [1]}', "[]", "nonsense"])
def test_what_is_no_result_file_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ConfigError, match=r"r\.json"):
        read_results(tmp_path / "r.json")
    with pytest.raises(ConfigError, match="no such file"):
        read_results(tmp_path / "none.json")
