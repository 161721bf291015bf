"""Fault rows of the replay: F76 a cut bag, F79 topics that are not there, F82 twice the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.replay_bags import IMAGE, START_NS, arm_recording, arm_robot, command, image, scripted_settings

from flashrt_ros.bags.findings import BagError
from flashrt_ros.cli import main
from flashrt_ros.replay.replay import How, replay

ROBOT = arm_robot()
COMMANDS = "/forward_command_controller/commands"


@pytest.fixture
def no_model(monkeypatch):
    """Loading a policy is an error of this test."""

    def load(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("flashrt_ros.replay.run.Player", load)


def wrong_type(recording):
    recording.rows = [(at, t, IMAGE, image_like) if t == COMMANDS else (at, t, kind, data)
                      for at, t, kind, data in recording.rows for image_like in [command([0.0])]]  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "found"),
    [("/front/image", "none"), ("/joint_states", "none"), (COMMANDS, "none"), ("/policy_node/prompt", "--prompt")],
)
def test_F79_missing_topic_is_an_error_before_the_model_loads(tmp_path, no_model, topic, found):
    bag = arm_recording(ROBOT, 10).write(tmp_path / "bag", leave_out=[topic])
    with pytest.raises(BagError) as caught:
        replay([bag], scripted_settings(ROBOT), tmp_path / "out")
    said = str(caught.value)
    assert caught.value.fault == "F79" and topic in said and found in said and "robot arm" in said
    others = {"/front/image", "/joint_states", COMMANDS, "/policy_node/prompt"} - {topic}
    assert all(f"{name} (" in said for name in others), "it says what the bag has"
    assert not (tmp_path / "out").exists()


def test_F79_wrong_type_and_zero_messages(tmp_path, no_model):
    recording = arm_recording(ROBOT, 10)
    wrong_type(recording)
    with pytest.raises(BagError, match=r"Float64MultiArray.*found sensor_msgs/msg/Image"):
        replay([recording.write(tmp_path / "wrong")], scripted_settings(ROBOT), tmp_path / "out")
    from flashrt_ros.bags.bag import BagWriter

    with BagWriter(tmp_path / "empty") as bag:
        for at, topic, kind, data in arm_recording(ROBOT, 5).rows:
            if topic not in bag.counts:
                bag.add(topic, kind)
            if topic != "/front/image":
                bag.write(topic, at, data)
    with pytest.raises(BagError, match=r"/front/image.*no message"):
        replay([tmp_path / "empty"], scripted_settings(ROBOT), tmp_path / "out")


def test_F79_one_bad_bag_of_many_is_named_before_any_is_played(tmp_path, no_model):
    arm_recording(ROBOT, 10).write(tmp_path / "bags" / "good")
    arm_recording(ROBOT, 10).write(tmp_path / "bags" / "bad", leave_out=["/joint_states"])
    with pytest.raises(BagError, match="bag bad"):
        replay([tmp_path / "bags"], scripted_settings(ROBOT), tmp_path / "out")


def cut(bag):
    """The recording as it is when its machine lost power: the last third of the file is not there."""
    (file,) = bag.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: 2 * len(data) // 3])
    return bag


def test_F76_replay_of_a_cut_bag_plays_what_is_there_and_exits_3(tmp_path, capsys, monkeypatch):
    robot = arm_robot(joints=7, views=("agentview", "wrist"))
    settings = scripted_settings(robot, image_size=112)
    bag = cut(arm_recording(robot, 200, side=112, pictures=200).write(tmp_path / "bag"))
    output = replay([bag], settings, tmp_path / "out")
    r = output.played.result
    assert output.lost == ("bag",) and "F76" in {f["fault"] for f in r["bags"][0]["findings"]}
    assert 50 < r["ticks"] < 200 and r["action_error"]["all"]["chunk"]["count"] > 0
    assert "F76" in (tmp_path / "out" / "report.html").read_text()
    assert replay([bag], replace(settings, allow_loss=True), tmp_path / "out").lost == ()
    monkeypatch.setattr("flashrt_ros.commands.replay.settings_from", lambda args: replace(settings, allow_loss=args.allow_loss))
    words = ["replay", str(bag), "--robot", "tabletop", "--out", str(tmp_path / "out")]
    assert main(words) == 3
    assert "messages are missing in bag" in capsys.readouterr().err
    assert main([*words, "--allow-loss"]) == 0


@pytest.mark.parametrize("latency", ["0", "90", "40..150"])
def test_F82_replayed_twice_gives_the_same_bytes(tmp_path, latency):
    recording = arm_recording(ROBOT, 90, offset=0.02)
    recording.rows = [r for r in recording.rows if not (r[1] == "/front/image" and 40 <= (r[0] - START_NS) / 5e7 <= 55)]
    recording.add(START_NS + 1, "/front/image", IMAGE, image(recording_frame(), START_NS + 1))
    bag = recording.write(tmp_path / "bag")
    written = []
    for name in ("a", "b"):
        settings = scripted_settings(ROBOT, latency=latency, seed=4, latencies_s=(0.0, 0.004))
        replay([bag], settings, tmp_path / name, How())
        written.append((tmp_path / name / "result.json").read_bytes())
    assert written[0] == written[1]
    assert json.loads(written[0])["not_asked"]["skipped_ticks"], "the run has something to skip"
    assert (tmp_path / "a" / "timing.json").read_bytes() != (tmp_path / "b" / "timing.json").read_bytes()


def recording_frame():
    import numpy as np

    return np.full((16, 16, 3), 90, np.uint8)


def test_F82_another_seed_is_another_result(tmp_path):
    bag = arm_recording(ROBOT, 60).write(tmp_path / "bag")
    results = []
    for seed in (1, 2):
        replay([bag], scripted_settings(ROBOT, latency="40..150", seed=seed), tmp_path / str(seed))
        results.append((tmp_path / str(seed) / "result.json").read_bytes())
    assert results[0] != results[1]
