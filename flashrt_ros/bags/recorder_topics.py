"""Which topics a robot and its policy node use, by the names that others see them under."""

from __future__ import annotations

from ..config.settings import RobotConfig


def full_name(topic: str, node: str) -> str:
    """A topic's name from outside: ~ is the node, relative names are in the root namespace."""
    return topic.replace("~", f"/{node}", 1) if topic.startswith("~") else "/" + topic.lstrip("/")


def recorded_topics(robot: RobotConfig, node: str) -> dict[str, tuple[str, str]]:
    """Topic -> (message type, kind) of everything that is recorded; kinds decide the QoS."""
    out: dict[str, tuple[str, str]] = {}
    for camera in robot.cameras:
        kind = "Image" if camera.transport == "raw" else "CompressedImage"
        out[full_name(camera.topic, node)] = (f"sensor_msgs/msg/{kind}", "image")
    names = robot.topics
    out[full_name(names.state, node)] = ("sensor_msgs/msg/JointState", "state")
    out[full_name(names.prompt, node)] = ("std_msgs/msg/String", "prompt")
    out[full_name(names.forward, node)] = ("std_msgs/msg/Float64MultiArray", "command")
    out[full_name(names.chunk, node)] = ("flashrt_ros/msg/ActionChunk", "chunk")
    if robot.dims("position"):
        out[full_name(names.trajectory, node)] = ("trajectory_msgs/msg/JointTrajectory", "command")
    out[full_name("~/status", node)] = ("flashrt_ros/msg/PolicyStatus", "status")
    out["/clock"] = ("rosgraph_msgs/msg/Clock", "clock")
    return out
