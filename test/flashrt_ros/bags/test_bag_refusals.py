"""`flashrt bag` when the disk or the folder does not play along: one line, exit code 2, nothing half-made."""

import errno
import os

import pytest
from support.bags import robot_bag
from support.replay_bags import arm_recording, arm_robot, command, state

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.bag import BagWriter
from flashrt_ros.bags.conversion import Target, convert_bag
from flashrt_ros.bags.episodes import FrameOptions
from flashrt_ros.bags.findings import BagError
from flashrt_ros.bags.reading import BagReader
from flashrt_ros.cli import main
from flashrt_ros.config.config_file import load_robot


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    return robot_bag(tmp_path_factory.mktemp("source") / "bag", load_robot("tabletop"), lengths=(6,)).path


def line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "bug" not in error, error
    return error


@pytest.mark.parametrize("kind", ["bag", "lerobot-v3"])
def test_output_below_a_file(bag, tmp_path, capsys, kind):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert main(["bag", "convert", str(bag), "--robot", "tabletop", "--to", kind, "--out", str(out)]) == 2
    said = line(capsys)
    assert "expected a file or folder that can be read or written" in said and str(tmp_path / "file") in said


def test_disk_full_while_converting(bag, tmp_path, capsys, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(BagWriter, "write", full)
    out = tmp_path / "out"
    assert main(["bag", "convert", str(bag), "--robot", "tabletop", "--to", "bag", "--out", str(out)]) == 2
    assert f"output {out}: expected room on the disk, found No space left on device" in line(capsys)
    assert not list(tmp_path.iterdir())


def test_writer_says_what_is_in_the_way(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match=r"bag .*there: expected a folder that does not exist yet, found it"):
        BagWriter(tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"expected a place that can be written, found Not a directory"):
        BagWriter(tmp_path / "file" / "below")


def test_a_folder_of_recordings_names_them(tmp_path):
    robot = load_robot("tabletop")
    for name in ("monday", "tuesday"):
        robot_bag(tmp_path / "week" / name, robot, lengths=(4,))
    with pytest.raises(BagError, match=r"It holds 2 recording\(s\), give one: monday, tuesday"):
        BagReader(tmp_path / "week").__enter__()


@pytest.mark.parametrize("words", [["bag", "info"], ["bag", "check"], ["bag", "convert", "--out", "x"], ["replay"]])
def test_a_name_that_no_file_can_have(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert main([*words, "b" * 300, "--robot", "tabletop"]) == 2
    assert "b" * 300 in line(capsys) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["rec", "rec/rec.mcap", "link"])
@pytest.mark.parametrize("kind", ["bag", "lerobot-v3"])
def test_force_never_replaces_what_is_converted(tmp_path, capsys, source, kind):
    """Messages between two commands are not in a dataset, and video loses something."""
    robot_bag(tmp_path / "rec", load_robot("tabletop"), lengths=(6,))
    (tmp_path / "link").symlink_to(tmp_path / "rec")
    before = {p: p.read_bytes() for p in (tmp_path / "rec").iterdir()}
    words = ["bag", "convert", str(tmp_path / source), "--robot", "tabletop", "--to", kind, "--force"]
    assert main([*words, "--out", str(tmp_path / "rec")]) == 2
    assert "expected another folder than the source" in line(capsys)
    assert {p: p.read_bytes() for p in (tmp_path / "rec").iterdir()} == before


@pytest.mark.parametrize(
    ("topic", "data", "said"),
    [
        ("/joint_states", state(["a"], [0.0], 0), r"on /joint_states: joint j0: expected a position in the joint state"),
        ("/forward_command_controller/commands", command([1.0, 2.0]), r"2 numbers, expected 3 finite numbers"),
        ("/front/image", b"\0\1\0\0", r"on /front/image: \w+, expected sensor_msgs/msg/Image"),
    ],
)
def test_a_bag_without_one_usable_frame_says_what_its_messages_lack(tmp_path, topic, data, said):
    robot = arm_robot()
    recording = arm_recording(robot, 10)
    recording.rows = [(at, t, kind, data if t == topic else d) for at, t, kind, d in recording.rows]
    with pytest.raises(ConfigError, match=said):
        convert_bag(recording.write(tmp_path / "bag"), robot, Target(tmp_path / "out", "bag"), FrameOptions())
