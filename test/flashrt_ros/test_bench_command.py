"""`flashrt bench` as it is typed: tables, JSON, result files, and the exit code of a regression."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flashrt_ros.cli import main

TINY = ["bench", "--random", "tiny", "--hardware", "host", "--replays", "3", "--warmup", "1", "--num-steps", "2", "--threads", "1"]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("bench") / "r.json"
    assert main([*TINY, "--precision", "fp32", "--out", str(file)]) == 0
    return file


def test_the_file_says_how_it_was_made(results: Path) -> None:
    content = json.loads(results.read_text())
    assert content.keys() == {"command", "gpu", "versions", "ops", "rows"}
    assert len(content["rows"]) == 1 and content["rows"][0]["precision"] == "fp32"


def test_tables_and_json(capsys) -> None:
    assert main([*TINY, "--precision", "fp32", "fp8", "--no-exact", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [row["precision"] for row in json.loads(out)["rows"]] == ["fp32", "fp8"] and "measuring" in err


def test_compare_names_the_regression_and_exits_3(results: Path, capsys, tmp_path: Path) -> None:
    content = json.loads(results.read_text())
    content["rows"][0]["wall_ms_p50"] /= 2
    (tmp_path / "faster.json").write_text(json.dumps(content))
    again = ["bench", "--from", str(results), "--compare"]
    assert main([*again, str(tmp_path / "faster.json")]) == 3
    assert "WORSE" in capsys.readouterr().out
    assert main([*again, str(results)]) == 0
    assert main([*again, str(tmp_path / "faster.json"), "--margin", "1.5"]) == 0


def test_compare_tells_rows_apart(results: Path, capsys, tmp_path: Path) -> None:
    content = json.loads(results.read_text())
    row = content["rows"][0]
    content["rows"] += [{**row, "cache_frames": 2}, {**row, "image_size": [480, 640]}, {**row, "views": 1}]
    (tmp_path / "more.json").write_text(json.dumps(content))
    assert main(["bench", "--from", str(tmp_path / "more.json"), "--compare", str(tmp_path / "more.json")]) == 0
    walls = [line.split("wall_ms")[0].strip() for line in capsys.readouterr().out.splitlines() if "wall_ms_p50" in line]
    assert len(set(walls)) == len(walls) == 4, walls
    assert "cache 2" in walls[1] and "480x640" in walls[2] and "1 view," in walls[3]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--random", "fulll"], "did you mean 'full'"),
        (["--random", "tiny", "--image-size", "480"], "480x640"),
        (["--random", "tiny", "--compare", "none.json"], "no such file"),
        (["--random", "tiny", "--replays", "0"], "--replays"),
        (["--precision", "fp7"], "fp32, bf16, fp8"),
        (["--chunk", "5"], "which fixes them"),
    ],
)
def test_bad_input_is_one_line(capsys, argv: list[str], words: str) -> None:
    assert main(["bench", "--hardware", "host", *argv]) == 2
    err = capsys.readouterr().err.strip()
    assert words in err.splitlines()[-1]


def test_files_of_different_machines_are_not_compared(results: Path, capsys, tmp_path: Path) -> None:
    content = json.loads(results.read_text())
    content["rows"][0]["gpu"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(content))
    assert main(["bench", "--from", str(results), "--compare", str(tmp_path / "other.json")]) == 2
    assert "like with like" in capsys.readouterr().err
