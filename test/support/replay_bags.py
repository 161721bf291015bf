"""Bags as a robot would record them: joints that move to and fro, pictures of any size, commands beside the state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flashrt_ros.bags.bag import BagWriter, typestore
from flashrt_ros.config.settings import ActionDim, CameraConfig, RobotConfig, SafetyConfig, StateDim

STORE = typestore()
START_NS = 1_700_000_000_000_000_000
IMAGE, STATE, TEXT = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState", "std_msgs/msg/String"
COMMAND = "std_msgs/msg/Float64MultiArray"
PROMPT_TOPIC = "/policy_node/prompt"


def cdr(type_name: str, **fields: object) -> bytes:
    """A serialized message."""
    return bytes(STORE.serialize_cdr(STORE.types[type_name](**fields), type_name))


def header(ns: int, frame: str = ""):
    time = STORE.types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def image(picture: np.ndarray, ns: int) -> bytes:
    """uint8 [H, W, 3] as rgb8."""
    h, w, _ = picture.shape
    data = np.ascontiguousarray(picture).reshape(-1)
    return cdr(
        IMAGE, header=header(ns), height=h, width=w, encoding="rgb8", is_bigendian=0, step=3 * w, data=data
    )


def state(names: Sequence[str], values: Sequence[float], ns: int) -> bytes:
    none = np.zeros(0)
    return cdr(
        STATE, header=header(ns), name=list(names), position=np.asarray(values, np.float64), velocity=none, effort=none
    )


def command(values: Sequence[float]) -> bytes:
    layout = STORE.types["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return cdr(COMMAND, layout=layout, data=np.asarray(values, np.float64))


def text(words: str) -> bytes:
    return cdr(TEXT, data=words)


class Recording:
    """Messages to be written in the order of log time."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, str, bytes]] = []

    def add(self, at_ns: int, topic: str, type_name: str, data: bytes) -> None:
        self.rows.append((at_ns, topic, type_name, data))

    def write(self, path: Path, leave_out: Sequence[str] = (), compress: bool = True) -> Path:
        with BagWriter(path, compress=compress) as bag:
            for at_ns, topic, type_name, data in sorted(self.rows, key=lambda row: row[0]):
                if topic in leave_out:
                    continue
                if topic not in bag.counts:
                    bag.add(topic, type_name)
                bag.write(topic, at_ns, data)
        return path


def arm_robot(joints: int = 3, hz: float = 20.0, views: Sequence[str] = ("front",), **safety: float) -> RobotConfig:
    """Position joints that the state measures, raw cameras."""
    names = [f"j{i}" for i in range(joints)]
    return RobotConfig(
        name="arm", control_hz=hz, safety=SafetyConfig(**{"max_state_age_s": 0.2, "max_disagreement": 100.0} | safety),
        cameras=tuple(CameraConfig(view=v, topic=f"{v}/image") for v in views),
        state=tuple(StateDim(name=n, lower=-10.0, upper=10.0) for n in names),
        actions=tuple(ActionDim(name=n, kind="position", lower=-10.0, upper=10.0, v_max=2.0, a_max=50.0) for n in names),
    )  # fmt: skip


def arm_recording(
    robot: RobotConfig, ticks: int, side: int = 32, offset: float = 0.0, start_ns: int = START_NS,
    pictures: int = 8,
) -> Recording:  # fmt: skip
    """A generated recording: joint values go to and fro by 0.01 a tick, each command is the state `offset` away from it."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (pictures, side, side, 3), dtype=np.uint8)
    period, out = round(1e9 / robot.control_hz), Recording()
    out.add(start_ns - period, PROMPT_TOPIC, TEXT, text("go"))
    for k in range(ticks):
        at = start_ns + k * period
        for camera in robot.cameras:
            out.add(at, f"/{camera.topic}", IMAGE, image(frames[k % pictures], at))
        values = np.full(len(robot.state), 0.01 * (100 - abs(k % 200 - 100)))
        out.add(at, "/joint_states", STATE, state(robot.state_names, values, at))
        out.add(at, f"/{robot.topics.forward}", COMMAND, command(values + offset))
    return out


def scripted_settings(robot: RobotConfig, *, seed: int = 0, latency: str = "0", prompt: str = "", **fields):
    """ReplaySettings of a scripted policy that fits `robot`; fields are the script's, splice and replan_ticks the node's."""
    from flashrt_ros.config.config_file import load_node
    from flashrt_ros.replay.settings import Latency, ReplaySettings
    from flashrt_ros.worker.interface import Script

    node = {k: fields.pop(k) for k in ("splice", "replan_ticks") if k in fields}
    node = {"control_hz": robot.control_hz, "worker": "inprocess", "splice": "none", "replan_ticks": 5, "prompt": prompt} | node
    script = {"horizon": 10, "action_dim": len(robot.actions), "state_dim": len(robot.state), "views": robot.views,
              "image_size": 32, "step": 0.01} | fields  # fmt: skip
    return ReplaySettings(
        robot, node=load_node(**node), latency=Latency(latency), seed=seed, script=Script(**script)
    )
