"""What a replay refuses, and how: no recording is replaced, the reason is in the line, nothing half-made is left."""

import errno
import os
import pickle
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from support.replay_bags import arm_recording, arm_robot, command, scripted_settings, state

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.bag import BagWriter
from flashrt_ros.bags.findings import BagError
from flashrt_ros.cli import main
from flashrt_ros.replay.chunk_bag import ChunkBag
from flashrt_ros.replay.feed import FeedPlan, ProcessFeed
from flashrt_ros.replay.replay import How, compare, replay
from flashrt_ros.replay.run import check_bags, find_bags

ROBOT = arm_robot()
COMMANDS = "/forward_command_controller/commands"


@pytest.fixture
def no_model(monkeypatch):
    """Loading a policy is an error of this test."""
    monkeypatch.setattr("flashrt_ros.replay.run.Player", None)


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- recordings and outputs that are there


@pytest.mark.parametrize("as_file", [False, True])
def test_the_recording_itself_is_never_the_output(tmp_path, no_model, as_file):
    """A recording in OUT/chunks/NAME is where the chunks of that very recording go."""
    bag = arm_recording(ROBOT, 20).write(tmp_path / "data" / "chunks" / "rec")
    before = content(bag)
    with pytest.raises(ConfigError, match=r"found the recording .*Choose another --out"):
        replay([bag / "rec.mcap" if as_file else bag], scripted_settings(ROBOT), tmp_path / "data")
    assert content(bag) == before


def test_another_recording_in_the_way_is_not_replaced(tmp_path, no_model):
    other = arm_recording(ROBOT, 10).write(tmp_path / "out" / "chunks" / "rec")
    notes = tmp_path / "out" / "chunks" / "notes"
    notes.mkdir()
    (notes / "mine.txt").write_text("mine")
    before = content(tmp_path / "out")
    for name in (other.name, notes.name):
        bag = arm_recording(ROBOT, 20).write(tmp_path / name)
        with pytest.raises(ConfigError, match=r"expected nothing, or the chunks of an earlier replay"):
            replay([bag], scripted_settings(ROBOT), tmp_path / "out")
    assert content(tmp_path / "out") == before


def test_a_second_replay_replaces_the_first_when_it_is_whole(tmp_path):
    bag, settings = arm_recording(ROBOT, 40).write(tmp_path / "bag"), scripted_settings(ROBOT)
    out = tmp_path / "out"
    replay([bag], settings, out)
    first = content(out / "chunks")
    with pytest.raises(KeyboardInterrupt), ChunkBag(out / "chunks" / "bag", ROBOT, "/x", "mcap"):
        raise KeyboardInterrupt
    assert content(out / "chunks") == first and os.listdir(out / "chunks") == ["bag"]
    replay([bag], scripted_settings(ROBOT, step=0.02), out)
    assert content(out / "chunks") != first and os.listdir(out / "chunks") == ["bag"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_full_disk_is_one_line_and_leaves_nothing_half(tmp_path, monkeypatch, capsys, jobs):
    for name in ("a", "b"):
        arm_recording(ROBOT, 20).write(tmp_path / "bags" / name)
    monkeypatch.setattr("flashrt_ros.commands.replay.settings_from", lambda args: scripted_settings(ROBOT))
    out = tmp_path / "out"
    words = ["replay", str(tmp_path / "bags"), "--robot", "tabletop", "--out", str(out), "--jobs", str(jobs)]
    assert main(words) == 0
    before = content(out)
    capsys.readouterr()

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if jobs == 1:
        monkeypatch.setattr(BagWriter, "write", full)
    else:
        monkeypatch.setattr("pathlib.Path.write_text", full)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "No space left on device" in error and str(out) in error and "bug" not in error
    assert content(out) == before


def test_an_output_that_cannot_be_written_is_said_before_loading(tmp_path, no_model, capsys, monkeypatch):
    monkeypatch.setattr("flashrt_ros.commands.replay.settings_from", lambda args: scripted_settings(ROBOT))
    bag = arm_recording(ROBOT, 20).write(tmp_path / "bag")
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["replay", str(bag), "--robot", "tabletop", "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "expected a folder that can be written" in error and str(out) in error


def test_the_same_bag_twice_is_refused(tmp_path):
    bag = arm_recording(ROBOT, 10).write(tmp_path / "bags" / "one")
    (tmp_path / "link").symlink_to(bag)
    for twice in ([bag, bag], [tmp_path / "bags", bag], [bag, tmp_path / "link"]):
        with pytest.raises(ConfigError, match="each bag once"):
            find_bags(twice)


# ---- the reason is said


def changed(recording, topic, data):
    recording.rows = [(at, t, kind, data(i, d) if t == topic else d)
                      for i, (at, t, kind, d) in enumerate(recording.rows)]  # fmt: skip
    return recording


@pytest.mark.parametrize(
    ("topic", "data", "said"),
    [
        ("/joint_states", lambda i, d: state(["a", "b", "c"], [0, 0, 0], 0), r"F16 in 20 ticks \(.*no joint j0, j1, j2"),
        ("/joint_states", lambda i, d: state(["j0", "j1", "j2"], [0, np.nan, 0], 0), r"F14 in 20 ticks \(.*j1 is nan"),
        ("/front/image", lambda i, d: d.replace(b"rgb8", b"rgbX"), r"F05 in 20 ticks \(.*encoding 'rgbX', accepted: rgb8"),
        ("/front/image", lambda i, d: d[:40], r"20 messages of /front/image cannot be used \(not decodable as sensor_msgs"),
        (COMMANDS, lambda i, d: command([1.0, 2.0]), r"20 messages of commands cannot be used \(2 numbers, robot arm has 3"),
        (COMMANDS, lambda i, d: d[:3], r"20 messages of commands cannot be used \(not decodable as std_msgs"),
    ],
    ids=["joint-names", "nan", "encoding", "cut-images", "other-robot", "cut-commands"],
)  # fmt: skip
def test_nothing_asked_says_what_was_wrong_with_the_messages(tmp_path, topic, data, said):
    recording = changed(arm_recording(ROBOT, 20), topic, data)
    with pytest.raises(ConfigError, match=said):
        replay([recording.write(tmp_path / "bag")], scripted_settings(ROBOT), tmp_path / "out")


def test_a_policy_that_fails_is_quoted(tmp_path):
    bag = arm_recording(ROBOT, 20).write(tmp_path / "bag")
    always, once = dict.fromkeys(range(100), "exception"), {1: "exception"}
    with pytest.raises(ConfigError, match=r"the policy failed with LookupError: scripted exception"):
        replay([bag], scripted_settings(ROBOT, faults=always), tmp_path / "out")
    result = replay([bag], scripted_settings(ROBOT, faults=once), tmp_path / "out").played.result
    assert result["runner"]["policy_errors"] == 1 and result["reasons"]["policy"] == "LookupError: scripted exception"


def test_some_bad_messages_are_explained_in_the_result_and_on_the_page(tmp_path):
    recording = changed(arm_recording(ROBOT, 60), "/joint_states", lambda i, d: d if i % 9 != 2 else state(["j0"], [0], 0))
    result = replay([recording.write(tmp_path / "bag")], scripted_settings(ROBOT), tmp_path / "out").played.result
    assert result["refused_messages"]["F16"] > 0 and "no joint j1, j2" in result["reasons"]["F16"]
    assert "no joint j1, j2" in (tmp_path / "out" / "report.html").read_text()


def test_commands_of_another_topic_may_be_named_without_their_slash(tmp_path):
    recording = arm_recording(ROBOT, 10)
    recording.rows = [(at, "/else/q" if t == COMMANDS else t, kind, d) for at, t, kind, d in recording.rows]
    bag, settings = recording.write(tmp_path / "bag"), scripted_settings(ROBOT)
    from dataclasses import replace

    (job,) = check_bags([bag], replace(settings, command_topic="else/q"), None)
    assert job.topics.command == "/else/q"
    with pytest.raises(BagError, match=r"topic /nope: expected .*, as --command-topic may be, found none"):
        check_bags([bag], replace(settings, command_topic="nope"), None)


# ---- before a model is loaded


def test_a_folder_that_is_no_checkpoint_is_said_before_anything_is_played(tmp_path, no_model, monkeypatch):
    from dataclasses import replace

    bag = arm_recording(ROBOT, 10).write(tmp_path / "bag")
    (tmp_path / "empty").mkdir()
    good = scripted_settings(ROBOT)
    bad = replace(good, script=None, policy=replace(good.policy, checkpoint=str(tmp_path / "empty")))
    for sides in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=r"checkpoint .*empty: found .*expected model.safetensors"):
            compare([bag], sides, ("a", "b"), 0.05, tmp_path / "out")
    with pytest.raises(ValueError, match=r"expected model\.safetensors"):
        replay([bag], bad, tmp_path / "out", How(jobs=2))


@pytest.mark.parametrize("gap", ["nan", "inf", "0", "-1", "1e9"])
def test_a_gap_that_is_no_time_is_refused(tmp_path, no_model, capsys, gap):
    bag = arm_recording(ROBOT, 10).write(tmp_path / "bag")
    assert main(["replay", str(bag), "--robot", "tabletop", f"--gap-s={gap}", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "gap: expected 0.1 s (two periods) to 3600 s" in error and error.count("\n") == 1


# ---- processes


def test_a_policy_that_does_not_load_in_a_process_is_said_as_here(tmp_path):
    for name in ("a", "b"):
        arm_recording(ROBOT, 10).write(tmp_path / "bags" / name)
    settings = scripted_settings(ROBOT, action_dim=5)
    said = []
    for jobs in (1, 2):
        with pytest.raises(ConfigError) as caught:
            replay([tmp_path / "bags"], settings, tmp_path / "out", How(jobs=jobs))
        said.append(str(caught.value))
    assert said[0] == said[1] and "5" in said[0]


def test_an_error_of_a_bag_crosses_to_another_process():
    error = BagError("F76", "bag x", expected="a", found="b", hint="c")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.fault, again.hint) == (str(error), "F76", "c") and type(again) is BagError


def test_ctrl_c_is_for_the_process_that_was_started_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr("flashrt_ros.replay.feed.MAX_SLOTS", 8)  # it cannot end before its pictures are taken
    bag = arm_recording(ROBOT, 100).write(tmp_path / "bag")
    settings = scripted_settings(ROBOT)
    (job,) = check_bags([bag], settings, None)
    with ProcessFeed(FeedPlan(job.path, job.topics, settings, 32)) as feed:
        blocked = re.search(r"SigBlk:\s*(\w+)", open(f"/proc/{feed._process.pid}/status").read())[1]
        assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        list(feed)


# ---- what is shown


def test_progress_is_of_all_bags(tmp_path):
    """The bar is full at the end of the last bag, not of the first."""
    for name in ("a", "b"):
        arm_recording(ROBOT, 100).write(tmp_path / "bags" / name)
    shares, done = [], []
    how = How(
        on_tick=lambda bag, ticks, share: shares.append(share), on_bag=lambda bag, n, of: done.append((bag.bag, n, of))
    )  # fmt: skip
    replay([tmp_path / "bags"], scripted_settings(ROBOT), tmp_path / "out", how)
    assert shares == sorted(shares) and 0.3 < shares[len(shares) // 2 - 1] <= 0.5 < shares[-1] <= 1
    assert done == [("a", 1, 2), ("b", 2, 2)]


@pytest.mark.parametrize("word", [".", "..", "../rec", "../rec/rec.mcap"])
def test_a_bag_is_named_after_its_folder_however_it_is_said(tmp_path, monkeypatch, word):
    bag = arm_recording(ROBOT, 20).write(tmp_path / "rec")
    inside = bag / "sub" if word == ".." else bag
    inside.mkdir(exist_ok=True)
    monkeypatch.chdir(inside)
    replay([Path(word)], scripted_settings(ROBOT), tmp_path / "out")
    assert os.listdir(tmp_path / "out" / "chunks") == ["rec"]


def test_commands_of_another_rate_are_seen_at_first_sight(tmp_path, capsys, monkeypatch):
    recording = arm_recording(ROBOT, 40)
    commands = [row for row in recording.rows if row[1] == COMMANDS]
    recording.rows = [row for row in recording.rows if row not in commands[1::2]]
    monkeypatch.setattr("flashrt_ros.commands.replay.settings_from", lambda args: scripted_settings(ROBOT))
    bag = recording.write(tmp_path / "bag")
    assert main(["replay", str(bag), "--robot", "tabletop", "--out", str(tmp_path / "out")]) == 0
    assert "in 20 of them, at the robot file's 20 Hz" in capsys.readouterr().out
