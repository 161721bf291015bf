"""The bundled policy in its worker process, behind the node, on the bundled simulation: images in, actions out over DDS."""

from __future__ import annotations

import time

import numpy as np
from builtin_interfaces.msg import Time
from flashrt_ros.msg import ActionChunk
from rig_ros import NodeProcess
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from flashrt_core import load_model
from flashrt_ros import qos
from flashrt_ros.config.config_file import load_robot
from flashrt_ros.convert import doubles
from flashrt_ros.sim.tabletop import POLICY_DIR, TabletopEnv

NODE = "/tabletop_policy"


def test_bundled_policy_acts_on_the_simulation(probe):
    robot = load_robot("tabletop")
    env = TabletopEnv()
    env.reset(500_000)
    cameras = [probe.node.create_publisher(Image, f"/{c.topic}", 10) for c in robot.cameras]
    joints = probe.node.create_publisher(JointState, f"/{robot.topics.state}", 10)
    chunks = probe.listen(ActionChunk, f"{NODE}/action_chunk", qos.COMMAND)
    commands = probe.listen(Float64MultiArray, f"/{robot.topics.forward}", qos.COMMAND)
    seen: dict[int, dict] = {}

    def publish() -> None:
        observed, now = env.observe(), time.time_ns()
        seen[now] = observed
        stamp = Time(sec=now // 10**9, nanosec=now % 10**9)
        for camera, pixels in zip(cameras, observed["images"], strict=True):
            message = Image(height=112, width=112, encoding="rgb8", step=336, data=pixels.tobytes())
            message.header.stamp = stamp
            camera.publish(message)
        message = JointState(name=list(robot.state_names), position=doubles(observed["state"]))
        message.header.stamp = stamp
        joints.publish(message)

    with NodeProcess("-p", "policy.precision:=full", robot="tabletop", script="", prompt=env.prompt,
                     name="tabletop_policy", autostart=True) as node:  # fmt: skip
        heard = probe.statuses(NODE)
        deadline, used, steps = time.monotonic() + 60, 0, 0
        while steps < 40 and time.monotonic() < deadline:
            publish()
            time.sleep(0.04)
            for _, message in commands[used:]:
                env.step(np.array(message.data))
                steps += 1
            used = len(commands)
        assert steps >= 40, node.text
        status = heard[-1][1]
        assert status.policy == "policy on host" and not status.unverified and status.rejected == 0
    _, chunk = chunks[0]
    assert chunk.names == list(robot.action_names) and chunk.chunk == 0
    rows = np.frombuffer(chunk.data, np.float32).reshape(chunk.horizon, 7)
    # The first chunk is what the model says to exactly that observation, from the row on that was due.
    stamp = chunk.header.stamp.sec * 10**9 + chunk.header.stamp.nanosec
    observed = seen[stamp]
    model = load_model(str(POLICY_DIR), num_views=2, hardware="host", use_fp8=False)
    spread = [
        model.predict(list(observed["images"]), prompt=env.prompt, state=observed["state"], seed=s) for s in range(4)
    ]
    wanted = np.mean(spread, axis=0)[chunk.executed :]
    near = np.abs(rows - np.clip(wanted, -1, 1)).mean()
    assert near < 0.3, near  # the noise differs, the plan does not
    for publisher in (*cameras, joints):
        probe.node.destroy_publisher(publisher)
    probe.forget()
