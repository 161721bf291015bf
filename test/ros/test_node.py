"""The node as a process: lifecycle, parameters, status, what comes out; one process for the whole file."""

from __future__ import annotations

import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from flashrt_ros.msg import ActionChunk
from lifecycle_msgs.msg import Transition
from rig_ros import NODE, FakeArm, NodeProcess, until
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from flashrt_ros import qos


@pytest.fixture(scope="module")
def node():
    with NodeProcess(outputs=["chunk", "forward", "trajectory"]) as n:
        yield n


@pytest.fixture(scope="module")
def arm(probe):
    with FakeArm(probe) as a:
        yield a


@pytest.fixture
def active(probe, node, arm):
    """The node, active; inactive again afterwards."""
    if probe.state() == "unconfigured":
        probe.to("configure")
    probe.to("activate")
    yield node
    if probe.state() == "active":
        probe.to("deactivate")


def test_chunks_trajectories_and_commands_agree(probe, active, arm):
    chunks = probe.listen(ActionChunk, f"{NODE}/action_chunk", qos.COMMAND)
    paths = probe.listen(JointTrajectory, "/bench/joint_trajectory", qos.COMMAND)
    commands = probe.listen(Float64MultiArray, "/bench/commands", qos.COMMAND)
    until(lambda: len(chunks) >= 4 and len(paths) >= 4 and len(commands) >= 60, 10)
    chunk = chunks[-1][1]
    rows = np.frombuffer(chunk.data, np.float32).reshape(chunk.horizon, 3)
    assert chunk.names == ["joint1", "joint2", "joint3"] and list(chunk.kinds) == [ActionChunk.POSITION] * 3
    assert chunk.period == pytest.approx(0.02) and chunk.header.frame_id == "bench"
    assert np.all(np.diff(rows, axis=0) > 0)  # the script walks on
    sent = np.array([np.array(m.data) for _, m in commands])
    steps = np.abs(np.diff(sent, axis=0))
    assert steps.max() < 0.03 and np.all(np.isfinite(sent))  # v_max T = 0.02, one row apart
    at = int(np.argmin(np.abs(sent[:, 0] - rows[0, 0])))
    assert np.abs(sent[at] - rows[0]).max() < 1e-5  # row 0 was a command
    path = paths[-1][1]
    times = [p.time_from_start.sec + p.time_from_start.nanosec * 1e-9 for p in path.points]
    assert path.joint_names == chunk.names and np.allclose(np.diff(times), 0.02)
    assert all(not p.velocities and not p.accelerations for p in path.points)
    stamp = path.header.stamp.sec + path.header.stamp.nanosec * 1e-9
    assert 0 <= time.time() - stamp < 10 and times[0] == pytest.approx(0.02)
    last = np.array([p.positions for p in path.points[-2:]])
    assert np.abs(np.diff(last, axis=0)).max() < 0.003  # ends at rest
    probe.forget()


def test_F71_late_subscriber_gets_the_last_status(probe, active):
    heard = probe.statuses()
    assert until(lambda: heard, 2) < 0.45  # the timer alone sends every 0.5 s
    status = heard[0][1]
    assert status.lifecycle == "active" and status.policy == "script on host" and status.prompt == "go"
    assert status.inputs == ["left", "right", "state"] and all(0 <= a < 0.5 for a in status.input_ages)


def test_F66_illegal_transition_is_refused_and_counted(probe, active):
    heard = probe.statuses()
    for illegal in ("configure", "activate", "cleanup", 99, Transition.TRANSITION_CREATE):
        assert not probe.change(illegal)
    assert probe.state() == "active" and active.process.poll() is None
    until(lambda: heard and "illegal_transition" in heard[-1][1].counters, 3)


def test_F74_illegal_parameters_keep_the_old_value(probe, active):
    for name, value in {
        "splice": "cubic", "prompt": "x" * 5000, "safety__max_obs_age_s": -1.0, "limits__joint1__v_max": -1.0,
        "control_hz": 20.0, "robot": "panda", "worker": "inprocess", "policy__seed": 3, "safety__max_skew_s": "wide",
        "outputs": ["chunk"], "splise": "none", "blend_ticks": 5000, "safety__fresh_obs_s": 9.0,
    }.items():  # fmt: skip
        old = probe.get(name.replace("__", "."))
        result = probe.set(**{name: value})
        assert not result.successful and result.reason, name
        assert probe.get(name.replace("__", ".")) == old, name
    both = probe.set(splice="linear", safety__max_skew_s=99.0)  # all or nothing
    assert not both.successful and probe.get("splice") == "none"


def test_prompt_splice_and_limits_change_while_active(probe, active, arm):
    heard = probe.statuses()
    assert probe.set(splice="linear", prompt="left", limits__joint1__v_max=0.05, safety__max_obs_age_s=0.4).successful
    assert probe.get("safety.max_obs_age_s") == 0.4 and probe.get("limits.joint1.v_max") == 0.05
    until(lambda: heard and heard[-1][1].prompt == "left" and heard[-1][1].splice == "linear", 3)
    time.sleep(0.5)
    sent = arm.since(time.monotonic_ns() - 300_000_000)
    steps = np.abs(np.diff(sent, axis=0))
    assert steps[:, 0].max() < 0.05 * 0.02 * 1.5 < steps[:, 1].max()
    publisher = probe.node.create_publisher(String, f"{NODE}/prompt", qos.PROMPT)
    until(lambda: publisher.get_subscription_count(), 3)
    publisher.publish(String(data="by topic"))
    until(lambda: heard[-1][1].prompt == "by topic", 3)
    probe.node.destroy_publisher(publisher)
    assert probe.set(limits__joint1__v_max=1.0, splice="none").successful


def test_deactivate_comes_to_rest_and_is_silent(probe, active, arm):
    until(lambda: len(arm.commands) > 20, 5)
    probe.to("deactivate")
    at = time.monotonic_ns()
    sent = np.array([c for _, c in arm.commands[-4:]])
    assert np.abs(np.diff(sent, axis=0))[-1].max() < 1e-9
    time.sleep(0.3)
    assert len(arm.since(at + 20_000_000)) == 0


def test_diagnostics_name_the_transport_when_images_are_slow(probe, active, arm):
    heard = probe.listen(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
    arm.camera_hz = 3.0
    try:

        def warned():
            entries = [s for _, m in heard for s in m.status if s.name.endswith(": left")]
            return any(s.level == DiagnosticStatus.WARN and "LARGE_DATA" in s.message for s in entries)

        until(warned, 6)
    finally:
        arm.camera_hz = 20.0
    assert any(s.name == "policy_node" for s in heard[-1][1].status)


def test_cleanup_ends_the_worker_and_configure_starts_another(probe, node, arm):
    if probe.state() == "unconfigured":
        probe.to("configure")
    assert len(node.children()) == 1
    probe.to("cleanup")
    assert node.children() == [] and probe.state() == "unconfigured"
    assert probe.set(control_hz=50.0, splice="none").successful  # anything may change now
    probe.to("configure", "activate", "deactivate")
    assert len(node.children()) == 1
    assert probe.set(splice="quintic").successful
