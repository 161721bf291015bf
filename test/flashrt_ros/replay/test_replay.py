"""Bags in, files out: the demo with the bundled policy, generated bags with a script, alone and in processes."""

import json
import re
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from support.replay_bags import START_NS, STORE, arm_recording, arm_robot, scripted_settings

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.bag import typestore
from flashrt_ros.bags.reading import BagReader
from flashrt_ros.cli import main
from flashrt_ros.config.config_file import load_node, load_policy, load_robot
from flashrt_ros.replay.replay import How, compare, replay
from flashrt_ros.replay.run import find_bags
from flashrt_ros.replay.settings import ReplaySettings

CHUNK = "flashrt_ros/msg/ActionChunk"
ROBOT = arm_robot()


def tabletop_settings(seed: int) -> ReplaySettings:
    node = load_node(control_hz=20.0, splice="none", replan_ticks=5, worker="inprocess")
    return ReplaySettings(load_robot("tabletop"), replace(load_policy(), hardware="host"), node, seed=seed)


def chunks(folder):
    """(log time, message) of every ActionChunk."""
    store = typestore()
    with BagReader(folder) as bag:
        assert {t: i.type for t, i in bag.topics.items()} == {"/policy_node/action_chunk": CHUNK}
        return [(m.log_time_ns, store.deserialize_cdr(m.data, CHUNK)) for m in bag]


def test_the_policy_that_recorded_the_demo_is_found_to_be_itself(demo_bag, tmp_path):
    """Same policy, same noise, calls that take no time, as in the recording: what it would serve is what was recorded."""
    output = replay([demo_bag], tabletop_settings(7), tmp_path / "out")
    r = output.played.result
    assert r["action_error"]["all"]["served"]["max"] == 0.0
    assert r["compared_ticks"] == r["ticks"] == 46  # the first episode succeeds at step 22, the second is cut at 24
    assert r["episodes"] == 2 and r["requests"] == 10 and not r["not_asked"]["skipped_ticks"]
    by_row = r["action_error"]["by_horizon_index"]["mae_normalised"]
    assert max(by_row[:5]) < 0.01  # the rows that were executed; the bag has them clipped to the range
    assert max(by_row[5:]) > 10 * max(by_row[:5])  # the others were replaced by newer chunks
    assert r["action_error"]["scale"] == "quantile statistics in norm_stats.json"
    written = chunks(tmp_path / "out" / "chunks" / "demo")
    assert len(written) == r["chunks"] == 10
    (at, first) = written[0]
    assert at == START_NS and first.header.stamp.sec * 10**9 + first.header.stamp.nanosec == START_NS
    assert first.names[0] == "dx" and first.horizon == 10 and first.data.shape == (70,)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") > 10 and "pick up the" in page and not re.search(r"(src|href)=.https?:", page)
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == json.loads(json.dumps(r))


def test_other_noise_is_another_result(demo_bag, tmp_path):
    r = replay([demo_bag], tabletop_settings(8), tmp_path / "out").played.result
    assert 0 < r["action_error"]["all"]["served"]["mae"] < 0.2


def test_generated_bag_of_224_px(tmp_path):
    robot = arm_robot(7, views=("front", "wrist"))
    bag = arm_recording(robot, 60, side=224, offset=0.1).write(tmp_path / "bag")
    output = replay([bag], scripted_settings(robot, image_size=224), tmp_path / "out")
    r = output.played.result
    assert r["requests"] == 12 and r["action_error"]["joints"]["j6"]["chunk"]["mae"] == pytest.approx(0.1, abs=1e-6)
    assert output.played.total.first_frames[0].images["wrist"].shape == (224, 224, 3)
    assert output.lost == () and r["bags"][0]["verified"]


def many(tmp_path, count: int = 3):
    for i in range(count):
        arm_recording(ROBOT, 40 + 10 * i, offset=0.01 * i).write(tmp_path / "bags" / f"run{i}")
    return tmp_path / "bags"


def test_processes_do_not_change_the_result(tmp_path):
    folder, settings = many(tmp_path), scripted_settings(ROBOT, latency="60..140", seed=3)
    assert [b.name for b in find_bags([folder])] == ["run0", "run1", "run2"]
    one = replay([folder], settings, tmp_path / "one")
    two = replay([folder], settings, tmp_path / "two", How(jobs=2))
    assert (tmp_path / "one" / "result.json").read_bytes() == (tmp_path / "two" / "result.json").read_bytes()
    assert [b["bag"] for b in two.played.result["bags"]] == ["run0", "run1", "run2"]
    r = one.played.result
    assert r["ticks"] == 150 and r["episodes"] == 3 and r["requests"] == sum(b["requests"] for b in r["bags"])
    for i in range(3):
        assert len(chunks(tmp_path / "two" / "chunks" / f"run{i}")) == r["bags"][i]["chunks"]


def sqlite_bag(recording, path):
    """The recording as rosbag2 writes it with its sqlite3 plug-in, by an independent library."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        topics = {}
        for at_ns, topic, kind, data in sorted(recording.rows, key=lambda row: row[0]):
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(topics[topic], at_ns, data)
    return path


def test_storage_is_the_originals(tmp_path):
    bag = sqlite_bag(arm_recording(ROBOT, 30), tmp_path / "bag")
    settings = scripted_settings(ROBOT)
    r = replay([bag], settings, tmp_path / "out").played.result
    (file,) = (tmp_path / "out" / "chunks" / "bag").glob("*.db3")
    rows = sqlite3.connect(file).execute("SELECT timestamp FROM messages").fetchall()
    assert len(rows) == r["chunks"] == len(chunks(tmp_path / "out" / "chunks" / "bag")) == 6
    assert not r["bags"][0]["verified"]  # F81: sqlite3 has no checksums
    mcap = replay([arm_recording(ROBOT, 30).write(tmp_path / "m" / "bag")], settings, tmp_path / "out2").played.result
    assert mcap["action_error"] == r["action_error"]


def test_nothing_asked_says_why(tmp_path):
    recording = arm_recording(ROBOT, 30)
    state = next(row for row in recording.rows if row[1] == "/joint_states")
    recording.rows = [row for row in recording.rows if row[1] != "/joint_states"]
    recording.rows.append((START_NS - 10**10, *state[1:]))  # the only one, long before
    with pytest.raises(ConfigError, match=r"Of 30 ticks: F15 in 30 ticks"):
        replay([recording.write(tmp_path / "bag")], scripted_settings(ROBOT), tmp_path / "out")


def test_splices_are_compared_on_the_same_chunks(tmp_path):
    bag = arm_recording(ROBOT, 100).write(tmp_path / "bag")
    a = scripted_settings(ROBOT, latency="100")
    output = compare([bag], (a, a), ("none", "none"), 0.0, tmp_path / "same")
    assert output.verdict.word == "within" and output.verdict.kind == "served"
    assert output.differences["chunk"].relative == 0.0
    worse = replace(a, script=replace(a.script, step=0.03), policy=replace(a.policy, checkpoint="other"))
    output = compare([bag], (a, worse), ("a", "b"), 0.05, tmp_path / "worse")
    assert output.verdict.word == "worse" and output.verdict.kind == "chunk"
    saved = json.loads((tmp_path / "worse" / "result.json").read_text())["compare"]
    assert saved["verdict"] == "worse" and saved["differences"]["chunk"]["units"] == 5
    page = (tmp_path / "worse" / "report.html").read_text()
    assert "A against B" in page and "B is worse" in page


def test_command_line(demo_bag, tmp_path, capsys):
    words = ["replay", str(demo_bag), "--robot", "tabletop", "--hardware", "host", "--seed", "7", "--splice", "none",
             "--replan-ticks", "5"]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "error of served commands   0 %" in said and "temporal_fusion" in said and "report.html" in said
    assert main([*words, "--compare", "none", "linear", "--latency", "100", "--out", str(tmp_path / "out")]) in (0, 1)
    assert "B against A" in capsys.readouterr().out


def test_bad_command_lines_say_so_before_loading(demo_bag, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("flashrt_ros.replay.run.Player", None)  # a load would be a bug: exit code 1
    for words, text in (
        (["nowhere", "--robot", "tabletop"], "nothing there"),
        ([str(tmp_path), "--robot", "tabletop"], "neither"),
        ([str(demo_bag), "--robot", "panda"], "/exterior/image_raw"),
        ([str(demo_bag), "--robot", "tabletop", "--latency", "soon"], "latency"),
        ([str(demo_bag), "--robot", "tabletop", "--compare", "none", "quintik"], "did you mean 'quintic'?"),
        ([str(demo_bag), "--robot", "tabletop", "--precision", "fp9"], "fp8"),
        ([str(demo_bag), "--robot", "tabletop", "--jobs", "0"], "jobs"),
    ):
        assert main(["replay", *words, "--out", str(tmp_path / "out")]) == 2, words
        error = capsys.readouterr().err
        assert text in error and error.count("\n") == 1, error


def test_missing_packages_are_said_in_one_line(demo_bag, tmp_path, capsys, monkeypatch):
    words = ["replay", str(demo_bag), "--robot", "tabletop", "--out", str(tmp_path / "out")]
    for module, option in (("rerun_log", ["--rerun"]), ("cluster", ["--ray", "auto"])):
        monkeypatch.setattr(f"flashrt_ros.replay.{module}.find_spec", lambda name: None)
        assert main([*words, *option]) == 2
        assert "pip install -e '.[r" in capsys.readouterr().err
        assert not (tmp_path / "out" / "result.json").exists()


def test_a_chunk_message_survives_any_policy(tmp_path):
    """Horizon 1: chunks of a single row, a hold in between."""
    bag = arm_recording(ROBOT, 20).write(tmp_path / "bag")
    r = replay([bag], scripted_settings(ROBOT, horizon=1, replan_ticks=1, latency="50"), tmp_path / "out").played.result
    written = [m for _, m in chunks(tmp_path / "out" / "chunks" / "bag")]
    assert len(written) == r["chunks"] > 0 and all(np.isfinite(m.data).all() for m in written)
