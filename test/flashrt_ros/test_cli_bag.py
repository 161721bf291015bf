"""`flashrt bag` as it is typed: tables, JSON, exit codes, one line for bad input."""

import json
import sys

import pytest
from support.bags import robot_bag

from flashrt_ros.cli import main
from flashrt_ros.config.config_file import load_robot


def run(capsys, *words):
    try:
        code = main(list(words))
    except SystemExit as end:
        code = end.code
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return robot_bag(tmp_path_factory.mktemp("cli") / "bag", load_robot("tabletop"), lengths=(16, 14)).path


def test_info_shows_topics_rates_gaps_and_what_the_robot_finds(capsys, bag):
    code, out, err = run(capsys, "bag", "info", str(bag), "--robot", "tabletop")
    assert code == 0 and not err
    for text in (
        "/wrist/image",
        "sensor_msgs/msg/JointState",
        "122 messages of 5 topics",
        "longest gap",
        "no CRC",
        "not needed",
    ):
        assert text in out, text
    code, out, _ = run(capsys, "bag", "info", str(bag), "--robot", "tabletop", "--json")
    found = json.loads(out)
    topic = found["topics"]["/tabletop/commands"]
    assert topic["messages"] == 30 and topic["longest_gap_s"] == pytest.approx(0.2, abs=0.002) and 10 < topic["hz"] < 20
    assert found["robot"]["/joint_states"]["problem"] is None and found["robot"]["/clock"]["problem"].startswith(
        "missing"
    )
    assert [f["fault"] for f in found["findings"]] == ["F81"] and found["files"][0]["storage"] == "mcap"


def test_check_is_0_for_a_whole_bag_3_for_losses_2_for_missing_topics(capsys, bag, tmp_path):
    code, out, _ = run(capsys, "bag", "check", str(bag))
    assert code == 0 and "F81" in out and "122 messages read, none lost" in out
    cut = tmp_path / "cut.mcap"
    data = next(bag.glob("*.mcap")).read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    code, out, _ = run(capsys, "bag", "check", str(cut))
    assert code == 3 and "F76  cut.mcap: cut inside a record" in out and "how many is not known" in out
    assert run(capsys, "bag", "check", str(cut), "--allow-loss")[0] == 0
    code, out, _ = run(capsys, "bag", "check", str(bag), "--robot", "panda")
    assert code == 2 and "F79  robot panda: image topic /exterior/image_raw: missing" in out
    code, out, err = run(capsys, "bag", "check", str(tmp_path / "none"))
    assert code == 2 and "no such file" in err and err.count("\n") == 1 and not out


def test_convert_there_and_back(capsys, bag, tmp_path):
    words = ["--robot", "tabletop", "--images", "png"]
    code, out, err = run(capsys, "bag", "convert", str(bag), "--out", str(tmp_path / "d"), *words)
    assert code == 0 and "wrote" in out and "2 episodes, 30 frames" in out, err
    code, out, err = run(capsys, "bag", "convert", str(bag), "--out", str(tmp_path / "d"), *words)
    assert code == 2 and "--force" in err and err.count("\n") == 1
    code, out, _ = run(capsys, "bag", "convert", str(tmp_path / "d"), "--out", str(tmp_path / "b"), *words, "--json")
    assert code == 0 and json.loads(out)["counts"]["/wrist/image"] == 30
    assert run(capsys, "bag", "check", str(tmp_path / "b"), "--robot", "tabletop")[0] == 0


def test_convert_of_a_cut_bag_writes_nothing_unless_allowed(capsys, bag, tmp_path):
    cut, out_folder = tmp_path / "cut.mcap", tmp_path / "d"
    data = next(bag.glob("*.mcap")).read_bytes()
    cut.write_bytes(data[:-200_000])
    words = ["bag", "convert", str(cut), "--robot", "tabletop", "--out", str(out_folder)]
    code, out, _ = run(capsys, *words)
    assert code == 3 and "nothing written" in out and not out_folder.exists()
    assert run(capsys, *words, "--allow-loss")[0] == 0 and out_folder.exists()


@pytest.mark.parametrize(
    "words, text",
    [
        (["bag"], "COMMAND"),
        (["bag", "check", "x", "--robto", "y"], "did you mean '--robot'"),
        (["bag", "convert", "--robot", "tabletop", "--out", "o"], "a bag or a dataset"),
        (["bag", "convert", "x", "--robot", "tabletop", "--out", "o", "--view", "a"], "no such file"),
        (["bag", "info", "x", "--robot", "tabeltop"], "did you mean 'tabletop'"),
    ],
)
def test_bad_input_is_said_in_words(capsys, tmp_path, monkeypatch, words, text):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2 and text in err


def test_missing_packages_are_named(capsys, bag, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    import flashrt_ros.bags.lerobot.layout as layout

    monkeypatch.setattr(layout, "find_spec", lambda name: None if name == "pyarrow" else object())
    code, _, err = run(capsys, "bag", "convert", str(bag), "--robot", "tabletop", "--out", str(tmp_path / "d"))
    assert code == 2 and "pyarrow missing" in err and "lerobot-format" in err and not (tmp_path / "d").exists()
