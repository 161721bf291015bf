"""Bags over Ray: the same results as here. Ray itself is an extra; a stand-in shows the calls where it is not installed."""

import json
import sys
import types

import pytest
from support.replay_bags import arm_recording, arm_robot, scripted_settings

from flashrt_core.errors import DeviceError
from flashrt_ros.replay.replay import How, replay

ROBOT = arm_robot()


def bags(tmp_path):
    for i in range(3):
        arm_recording(ROBOT, 30 + i).write(tmp_path / "bags" / f"run{i}")
    return tmp_path / "bags"


@pytest.fixture
def stand_in(monkeypatch):
    """A module `ray` (double) that runs each task at once and notes how it was used."""
    calls = []

    class Task:
        def __init__(self, function):
            self._function = function

        def remote(self, job, settings):
            calls.append(("task", job.name))
            return self._function(job, settings)

    ray = types.ModuleType("ray")
    ray.init = lambda **options: calls.append(("init", options["address"], options["include_dashboard"]))
    ray.shutdown = lambda: calls.append(("shutdown",))
    ray.remote = lambda **options: Task
    ray.put = ray.get = lambda thing: thing
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("flashrt_ros.replay.cluster.find_spec", lambda name: object())
    return ray, calls


def test_one_task_a_bag_and_the_same_result(tmp_path, stand_in):
    folder, settings = bags(tmp_path), scripted_settings(ROBOT, latency="50..150")
    replay([folder], settings, tmp_path / "here")
    replay([folder], settings, tmp_path / "there", How(ray="192.0.2.1:6379"))
    _, calls = stand_in
    assert calls == [("init", "192.0.2.1:6379", False), ("task", "run0"), ("task", "run1"), ("task", "run2"), ("shutdown",)]
    assert (tmp_path / "here" / "result.json").read_bytes() == (tmp_path / "there" / "result.json").read_bytes()
    assert (tmp_path / "there" / "chunks" / "run2" / "metadata.yaml").is_file()


def test_no_cluster_is_said(tmp_path, stand_in):
    ray, calls = stand_in

    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.\nmore")

    ray.init = init
    with pytest.raises(DeviceError, match="a cluster at auto"):
        replay([bags(tmp_path)], scripted_settings(ROBOT), tmp_path / "out", How(ray="auto"))
    assert not calls


def test_local_cluster_of_the_real_ray(tmp_path):
    pytest.importorskip("ray", reason="needs the ray extra")
    folder, settings = bags(tmp_path), scripted_settings(ROBOT, latency="50..150")
    replay([folder], settings, tmp_path / "here")
    replay([folder], settings, tmp_path / "there", How(ray="local"))
    assert (tmp_path / "here" / "result.json").read_bytes() == (tmp_path / "there" / "result.json").read_bytes()
    assert json.loads((tmp_path / "there" / "result.json").read_text())["ticks"] == 93
