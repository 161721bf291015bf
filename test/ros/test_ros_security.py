"""F85: the SROS2 policy allows what the node has and nothing else; the operator cannot write parameters."""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from rig_ros import NodeProcess, script, until
from sensor_msgs.msg import Image, JointState

from flashrt_ros.config.config_file import config_folder, load_robot

POLICY = config_folder() / "security" / "policy.xml"


def allowed(enclave: str) -> dict[str, set[str]]:
    """publish, subscribe, reply, request -> full names."""
    root = ET.parse(POLICY).getroot()
    profile = root.find(f".//enclave[@path='{enclave}']/profiles/profile")
    out: dict[str, set[str]] = {"publish": set(), "subscribe": set(), "reply": set(), "request": set()}
    for group in (*profile.findall("topics"), *profile.findall("services")):
        for right, verdict in group.attrib.items():
            assert verdict == "ALLOW"
            out[right] |= {profile.get("ns") + item.text.strip() for item in group}
    return out


@pytest.fixture
def tabletop(probe):
    """The node on the robot of the policy, active."""
    robot = load_robot("tabletop")
    cameras = [probe.node.create_publisher(Image, f"/{c.topic}", 10) for c in robot.cameras]
    joints = probe.node.create_publisher(JointState, "/joint_states", 10)
    ended = threading.Event()

    def publish() -> None:
        rng = np.random.default_rng(0)
        while not ended.wait(0.04):
            for camera in cameras:
                pixels = rng.integers(0, 255, (112, 112, 3), dtype=np.uint8)
                camera.publish(Image(height=112, width=112, encoding="rgb8", step=336, data=pixels.tobytes()))
            joints.publish(JointState(name=list(robot.state_names), position=[0.0] * 8))

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    policy = script(views=["agentview", "wrist"], image_size=112, state_dim=8, action_dim=7, constant=0.1)
    with NodeProcess(robot="tabletop", script=policy, autostart=True, use_sim_time=False) as node:
        yield node
    ended.set()
    thread.join()
    for publisher in (*cameras, joints):
        probe.node.destroy_publisher(publisher)


def test_F85_policy_is_what_the_node_really_has(probe, tabletop):
    heard = probe.statuses()
    until(lambda: heard and heard[-1][1].lifecycle == "active", 15)
    time.sleep(0.3)
    graph, where = probe.node, ("policy_node", "/")
    has = {
        "publish": {n for n, _ in graph.get_publisher_names_and_types_by_node(*where)},
        "subscribe": {n for n, _ in graph.get_subscriber_names_and_types_by_node(*where)} | {"/clock"},
        "reply": {n for n, _ in graph.get_service_names_and_types_by_node(*where)},
        "request": {n for n, _ in graph.get_client_names_and_types_by_node(*where)},
    }
    may = allowed("/flashrt/policy_node")
    for right in has:
        assert has[right] - may[right] == set(), f"{right}: the node needs more than the policy allows"
        assert may[right] - has[right] == set(), f"{right}: the policy allows more than the node needs"


def test_F85_operator_has_no_way_to_command_or_to_write_parameters():
    node, operator = allowed("/flashrt/policy_node"), allowed("/flashrt/operator")
    assert operator["request"] <= node["reply"]
    assert not [s for s in operator["request"] if "set_parameters" in s]
    assert operator["publish"] & node["subscribe"] == {"/policy_node/prompt"}
    assert not operator["publish"] & {"/tabletop/commands", "/policy_node/action_chunk", "/policy_node/status", "/joint_states"}


def test_the_large_image_profile_is_read_by_fast_dds(probe, monkeypatch, capfd):
    profile = config_folder() / "fastdds_large_images.xml"
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(profile))
    with NodeProcess(name="large") as node:
        assert probe.state("/large") == "unconfigured"  # it is found with these transports
    assert "XMLPARSER" not in node.text and "rror" not in node.text
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(POLICY))  # the control: another file is complained about
    with NodeProcess(name="wrong") as node:
        until(lambda: "XMLPARSER" in node.text, 20)
