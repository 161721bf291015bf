"""The demo over DDS end to end: episodes solved, no index lost, a bag that reads back, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from flashrt_ros.msg import ActionChunk
from rig_ros import until

from flashrt_core.errors import DeviceError
from flashrt_ros import qos
from flashrt_ros.bags.bag import open_bag
from flashrt_ros.bags.event_log import EventFollower
from flashrt_ros.ros_demo.run import RosDemo, run_ros_demo

DEMO_KEYS = {"successes", "success_wilson95", "model_latency_ms", "tick_misses", "boundary", "rows", "machine", "seed"}


def children_of(pid: int) -> dict[int, str]:
    """Processes that `child.start` made for a parent: pid -> what it was told to be."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and "flashrt_ros.worker.child" in words and str(pid) in words:
                found[int(entry.name)] = words[-2]
    return found


def test_two_episodes_end_to_end(tmp_path, probe):
    phases = []
    output = run_ros_demo(RosDemo(episodes=2), tmp_path, on_phase=phases.append, command="make ros-demo")
    r = json.loads((tmp_path / "result.json").read_text())
    assert r["successes"] == 2 and r["errors"] == 0
    assert r["lost_or_repeated_actions"] == 0
    a = r["actions"]
    assert (
        a["published"] == a["received"] == a["applied"] + a["surplus"] and a["applied"] + r["held_steps"] == r["ticks"]
    )
    assert r["bag"]["/tabletop/commands"]["messages"] == a["published"]
    assert set(r) >= DEMO_KEYS and set(r["tick_lateness_ms"]) == {"p50", "p99", "p999", "max"}
    assert all(v is not None and v >= 0 for v in (*r["tick_lateness_ms"].values(), *r["image_age_ms"].values()))
    assert r["boundary"]["cb6_index_law"] == 1.0 and r["boundary"]["switches"] > 4
    assert any("warming up" in text for text in phases) and not children_of(os.getpid())
    page = (tmp_path / "report.html").read_text()
    assert "Lost or repeated actions" in page and "Tick lateness" in page and "make ros-demo" in page
    assert output.episodes[0].frames and output.episodes[0].shots.keys() == {"first", "last"}
    with open_bag(tmp_path / "bag") as reader:
        kinds = {c.topic: c for c in reader.connections}
        assert {"/agentview/image", "/wrist/image", "/joint_states", "/clock", "/policy_node/prompt"} <= set(kinds)
        assert kinds["/policy_node/status"].ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
        for connection, _, data in reader.messages():  # every message is whole
            reader.deserialize(data, connection.msgtype)
        recorded = kinds["/policy_node/action_chunk"].digest
    # the hash in the bag is the one that ROS announces for the built messages
    publisher = probe.node.create_publisher(ActionChunk, "/hash_probe", qos.COMMAND)
    (info,) = until_info(probe, "/hash_probe")
    assert str(info.topic_type_hash) == recorded
    probe.node.destroy_publisher(publisher)


def until_info(probe, topic: str):
    until(lambda: probe.node.get_publishers_info_by_topic(topic), 5, "the publisher in the graph")
    return probe.node.get_publishers_info_by_topic(topic)


def start_cli(out: Path) -> subprocess.Popen:
    argv = [sys.executable, "-m", "flashrt_ros.ros_demo", "--episodes", "50", "--out", str(out)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def running(out: Path) -> bool:
    """The first episode has been solved."""
    return any(e["event"] == "episode" for e in EventFollower(out / "log" / "simulation.jsonl").news())


def test_interrupt_closes_the_bag_and_leaves_no_process(tmp_path):
    process = start_cli(tmp_path)
    try:
        until(lambda: running(tmp_path) or process.poll() is not None, 60, "the first episode")
        assert len(children_of(process.pid)) == 3
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130 and "interrupted" in errors
    until(lambda: not children_of(process.pid), 2, "no process left")
    with open_bag(tmp_path / "bag") as reader:
        assert reader.message_count > 100
        assert sum(1 for _ in reader.messages()) == reader.message_count


def test_killed_parent_takes_its_processes_along(tmp_path):
    process = start_cli(tmp_path)
    try:
        until(lambda: len(children_of(process.pid)) == 3 or process.poll() is not None, 30, "three processes")
    finally:
        process.kill()
        process.communicate()
    until(lambda: not children_of(process.pid), 20, "no process left")


def test_killed_node_is_an_error_and_ends_the_others(tmp_path):
    killed = []

    def kill_node(text: str) -> None:
        if "warming up" in text and not killed:
            killed.extend(pid for pid, spec in children_of(os.getpid()).items() if '"flashrt_ros.main"' in spec)
            os.kill(killed[0], signal.SIGKILL)

    with pytest.raises(DeviceError, match=r"node process.*exit code -9"):
        run_ros_demo(RosDemo(episodes=2), tmp_path, on_phase=kill_node)
    assert not children_of(os.getpid())


@pytest.mark.timeout(400)
def test_F29_ten_times_faster_makes_the_same_actions(tmp_path):
    """Simulated time that waits: the real policy over DDS at 1x and at 10x, every action bitwise the same."""
    runs = {}
    for rate in (1.0, 10.0):
        run_ros_demo(RosDemo(episodes=1, seed=500_003, rate=rate, lockstep=True), tmp_path / str(rate))
        lines = (tmp_path / str(rate) / "log/simulation.jsonl").read_text().splitlines()
        runs[rate] = next(row for row in map(json.loads, lines) if row["event"] == "episode")
    slow, fast = runs[1.0], runs[10.0]
    assert slow["steps"] > 20 and slow["missing"] == fast["missing"] == 0
    assert fast["commands"] == slow["commands"] and fast["success"] == slow["success"]
    assert slow["ended_ns"] - slow["started_ns"] > 0.9e9 * slow["steps"] / 20  # it was real time
