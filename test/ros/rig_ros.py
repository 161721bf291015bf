"""Rig of the ROS tests: the node as a process, a probe that asks and listens, a fake arm with two cameras."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from flashrt_ros.msg import PolicyStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from flashrt_ros import qos

HERE = Path(__file__).parent
BENCH = HERE / "data" / "bench.yaml"
NODE = "/policy_node"
NAMES = {
    "configure": Transition.TRANSITION_CONFIGURE, "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE, "cleanup": Transition.TRANSITION_CLEANUP,
}  # fmt: skip
SCRIPT = {"views": ["left", "right"], "image_size": 32, "state_dim": 3, "action_dim": 3, "step": 0.002, "horizon": 20}


def script(**changes) -> str:
    """The scripted policy of the bench arm: from where joint1 stands, 2 mm a tick."""
    return json.dumps({**SCRIPT, **changes})


def executable(name: str = "policy_node") -> list[str]:
    """The installed program and the Python that runs it."""
    prefix = Path(sys.modules["flashrt_ros.msg"].__file__).absolute().parents[5]
    return [sys.executable, str(prefix / "lib" / "flashrt_ros" / name)]


def until(condition, timeout_s: float = 10.0, what: str = "") -> float:
    """Wait for it; the seconds it took. AssertionError when it does not come."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"not within {timeout_s} s: {what or condition}"
        time.sleep(0.005)
    return time.monotonic() - start


class NodeProcess:
    """The policy node as a user starts it."""

    def __init__(self, *args: str, robot: Path | str = BENCH, name: str = "policy_node", env: dict | None = None, **parameters):
        """env: more environment variables."""
        values = {"robot": str(robot), "prompt": "go", "script": script(), **parameters}
        words = [w for k, v in values.items() for w in ("-p", f"{k.replace('__', '.')}:={_yaml(v)}")]
        command = [*executable(), "--ros-args", "-r", f"__node:={name}", *words, *args]
        self.log: list[str] = []
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        self._reader = threading.Thread(target=lambda: self.log.extend(iter(self.process.stdout.readline, "")), daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return "".join(self.log)

    def kill(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 5.0) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(2)
        return code

    def children(self) -> list[int]:
        """Processes that it started and that live."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return found

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, kind, *_: object) -> None:
        if self.process.poll() is None:
            self.kill(signal.SIGTERM)
            try:
                self.process.wait(4)
            except subprocess.TimeoutExpired:
                self.kill(signal.SIGKILL)
                self.process.wait(4)
        print("".join(self.log[-40:]))  # shown by pytest when a test fails


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return f"'{value}'" if isinstance(value, str) else str(value)


class Probe:
    """A node of the test's own, spun in a thread."""

    def __init__(self):
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("probe", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard: dict[str, list] = defaultdict(list)
        self._subscriptions: dict[str, object] = {}
        self._clients: dict[str, object] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while not self._ended:
            self.executor.spin_once(timeout_sec=0.1)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(2)
        self.executor.shutdown(1)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def listen(self, kind: type, topic: str, profile=10) -> list:
        """The list that gets (steady ns, message) of a topic, empty from now on."""
        self.forget(topic)
        heard = self.heard[topic] = []
        self._subscriptions[topic] = self.node.create_subscription(
            kind, topic, lambda m: heard.append((time.monotonic_ns(), m)), profile
        )
        return heard

    def forget(self, *topics: str) -> None:
        for topic in topics or list(self._subscriptions):
            if topic in self._subscriptions:
                self.node.destroy_subscription(self._subscriptions.pop(topic))

    def statuses(self, name: str = NODE) -> list:
        return self.listen(PolicyStatus, f"{name}/status", qos.STATUS)

    def call(self, kind: type, service: str, request, timeout_s: float = 10.0, again_s: float | None = None):
        """The response; AssertionError when none comes. again_s: ask again after so long, for questions without effect."""
        client = self._clients.get(service)
        if client is None:
            client = self._clients[service] = self.node.create_client(kind, service)
            assert client.wait_for_service(timeout_s), f"no service {service}"
            time.sleep(0.1)  # until the server knows us too: an earlier answer would go nowhere
        future, end = client.call_async(request), time.monotonic() + timeout_s
        while not future.done():
            left = end - time.monotonic()
            assert left > 0, f"no answer within {timeout_s} s: {service}"
            try:
                until(future.done, min(left, again_s or left), service)
            except AssertionError:
                if again_s is None:
                    raise
                future = client.call_async(request)
        return future.result()

    def change(self, transition: str | int, name: str = NODE, timeout_s: float = 15.0) -> bool:
        number = NAMES.get(transition, transition)
        request = ChangeState.Request(transition=Transition(id=number))
        return self.call(ChangeState, f"{name}/change_state", request, timeout_s).success

    def state(self, name: str = NODE, timeout_s: float = 10.0) -> str:
        return self.call(GetState, f"{name}/get_state", GetState.Request(), timeout_s, 2.0).current_state.label

    def to(self, *transitions: str, name: str = NODE) -> None:
        """Through transitions that must succeed."""
        for transition in transitions:
            assert self.change(transition, name), f"{transition} refused in {self.state(name)}"

    def set(self, name: str = NODE, **values):
        """The SetParametersResult of one atomic change; `__` in a name is a dot."""
        wanted = [Parameter(k.replace("__", "."), value=v).to_parameter_msg() for k, v in values.items()]
        request = SetParametersAtomically.Request(parameters=wanted)
        return self.call(SetParametersAtomically, f"{name}/set_parameters_atomically", request).result

    def get(self, parameter: str, name: str = NODE):
        request = GetParameters.Request(names=[parameter])
        values = self.call(GetParameters, f"{name}/get_parameters", request, 10.0, 2.0).values
        if not values:
            return None  # not declared
        value = values[0]
        fields = {
            ParameterType.PARAMETER_DOUBLE: "double_value", ParameterType.PARAMETER_STRING: "string_value",
            ParameterType.PARAMETER_INTEGER: "integer_value", ParameterType.PARAMETER_BOOL: "bool_value",
            ParameterType.PARAMETER_STRING_ARRAY: "string_array_value",
        }  # fmt: skip
        return getattr(value, fields[value.type]) if value.type in fields else None


class FakeArm:
    """Three joints that follow their commands at once, and two cameras that show them. All rates in Hz.

    camera_hz: may be set to 0 to stop them. loss: share of images that are not sent. at_ns: stamps; default steady clock.
    """

    def __init__(self, probe: Probe, camera_hz: float = 20.0, state_hz: float = 50.0, camera_qos=None, follow: bool = True):
        self.positions = np.zeros(3)
        self.commands: list[tuple[int, np.ndarray]] = []
        self.camera_hz, self.state_hz, self.loss, self.stamp = camera_hz, state_hz, 0.0, None
        self._node = node = probe.node
        self._follow = follow
        profile = camera_qos or qos._profile(qos.ReliabilityPolicy.RELIABLE)
        self._cameras = [node.create_publisher(Image, f"/{v}/image", profile) for v in ("left", "right")]
        self._state = node.create_publisher(JointState, "/joint_states", 10)
        self._listen = node.create_subscription(Float64MultiArray, "/bench/commands", self._on_command, qos.COMMAND)
        self._random, self._frame = np.random.default_rng(1), 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _on_command(self, message: Float64MultiArray) -> None:
        command = np.array(message.data)
        self.commands.append((time.monotonic_ns(), command))
        if self._follow:
            self.positions = command

    def _now(self) -> Time:
        ns = time.time_ns() if self.stamp is None else self.stamp()
        return Time(sec=ns // 10**9, nanosec=ns % 10**9)

    def images(self) -> None:
        """Send one image per camera, unless it is lost."""
        self._frame += 1
        for i, camera in enumerate(self._cameras):
            if self._random.random() < self.loss:
                continue
            pixels = np.full((32, 32, 3), 40 + i, np.uint8)
            pixels[:, self._frame % 32] = 200
            message = Image(height=32, width=32, encoding="rgb8", step=96, data=pixels.tobytes())
            message.header.stamp = self._now()
            camera.publish(message)

    def joints(self) -> None:
        message = JointState(name=["joint1", "joint2", "joint3"], position=[float(p) for p in self.positions])
        message.header.stamp = self._now()
        self._state.publish(message)

    def _run(self) -> None:
        next_image = next_state = time.monotonic()
        while not self._ended:
            now = time.monotonic()
            if self.camera_hz and now >= next_image:
                self.images()
                next_image = max(next_image + 1 / self.camera_hz, now)
            if self.state_hz and now >= next_state:
                self.joints()
                next_state = max(next_state + 1 / self.state_hz, now)
            time.sleep(0.002)

    def close(self) -> None:
        self._ended = True
        self._thread.join(2)
        for publisher in (*self._cameras, self._state):
            self._node.destroy_publisher(publisher)
        self._node.destroy_subscription(self._listen)

    def __enter__(self) -> FakeArm:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- what it saw

    def since(self, at_ns: int) -> np.ndarray:
        """Commands [N, 3] received after a moment."""
        return np.array([c for t, c in list(self.commands) if t >= at_ns]).reshape(-1, 3)

    def resting(self, seconds: float = 0.1) -> bool:
        """Whether the commands of the last so many seconds are all the same, or none came."""
        recent = self.since(time.monotonic_ns() - int(seconds * 1e9))
        return len(recent) == 0 or bool(np.all(np.abs(recent - recent[-1]) < 1e-9))


class Inside:
    """The node in this process, on the probe's executor."""

    def __init__(self, probe: Probe, module, name: str, **parameters):
        self.probe, self.module, self.name, self.parameters = probe, module, name, parameters

    def __enter__(self):
        values = {"robot": str(BENCH), "prompt": "go", "script": script(), **self.parameters}
        self.node = self.module.PolicyNode(
            self.name, context=self.probe.context,
            parameter_overrides=[Parameter(k, value=v) for k, v in values.items()],
        )  # fmt: skip
        self.probe.executor.add_node(self.node)
        return self.node

    def __exit__(self, *_):
        self.node.stop()
        self.probe.executor.remove_node(self.node)
        self.node.destroy_node()
