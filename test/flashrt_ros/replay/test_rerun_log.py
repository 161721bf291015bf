"""The Rerun recording has the images of the first requests and the curves of the first episode."""

import sys
import types

import numpy as np
import pytest
from support.replay_bags import arm_recording, arm_robot, scripted_settings

from flashrt_ros.replay.replay import How, replay

ROBOT = arm_robot()


@pytest.fixture
def stand_in(monkeypatch):
    """A module `rerun` (double) that keeps what is logged."""
    logged = []

    class Stream:
        def __init__(self, name):
            assert name == "flashrt_replay"

        def save(self, path):
            self.path = path

        def set_time(self, name, **value):
            self.now = name, *value.values()

        def log(self, path, thing):
            logged.append((self.now, path, thing))

        def flush(self):
            with open(self.path, "wb") as file:
                file.write(b"rrd")

    rerun = types.ModuleType("rerun")
    rerun.RecordingStream, rerun.Image, rerun.Scalars, rerun.TextLog = Stream, np.asarray, np.asarray, str
    monkeypatch.setitem(sys.modules, "rerun", rerun)
    monkeypatch.setattr("flashrt_ros.replay.rerun_log.find_spec", lambda name: object())
    return logged


def test_what_is_logged(tmp_path, stand_in):
    bag = arm_recording(ROBOT, 30, offset=0.1).write(tmp_path / "bag")
    output = replay([bag], scripted_settings(ROBOT), tmp_path / "out", How(rerun=True))
    assert output.files[-1] == tmp_path / "out" / "replay.rrd" and output.files[-1].exists()
    paths = {path for _, path, _ in stand_in}
    assert {"prompt", "camera/front", "joint/j0/recorded", "joint/j2/served", "chunk/j1/predicted"} <= paths
    recorded = {now: float(v) for now, path, v in stand_in if path == "joint/j0/recorded"}
    assert recorded[("tick", 7)] == pytest.approx(0.07 + 0.1) and len(recorded) == 30


def test_the_real_viewer_library_takes_it(tmp_path):
    pytest.importorskip("rerun", reason="needs the rerun extra")
    bag = arm_recording(ROBOT, 30).write(tmp_path / "bag")
    replay([bag], scripted_settings(ROBOT), tmp_path / "out", How(rerun=True))
    assert (tmp_path / "out" / "replay.rrd").read_bytes()[:4] in (b"RRF2", b"RRIO")
