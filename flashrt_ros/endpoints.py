"""What a configured node subscribes to and, while active, publishes commands on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String
from trajectory_msgs.msg import JointTrajectory

from flashrt_ros.msg import ActionChunk

from . import qos
from .config.settings import CameraConfig, RobotConfig
from .control.tick_record import Sink
from .convert import stamp_ns
from .graph_watch import Endpoint
from .inputs.observation import ObservationBuilder
from .sinks import ChunkSink, ForwardSink, TrajectorySink
from .stack import StackConfig

MATCH_S = 0.5  # how long to wait for the subscribers of commands to be matched
ACKED_S = 0.2  # how long to wait for them to have the last command


class Inputs:
    """Subscriptions of cameras, state and prompt; each message goes to its slot."""

    def __init__(
        self, node: LifecycleNode, robot: RobotConfig, slots: ObservationBuilder, ros_now_ns: Callable[[], int],
        on_mismatch: Callable[[], object],
    ):  # fmt: skip
        """on_mismatch: called when a publisher of other QoS shows up (F70)."""
        self._node, self._slots, self._ros_now_ns = node, slots, ros_now_ns
        self._events = SubscriptionEventCallbacks(incompatible_qos=lambda info: on_mismatch())
        # A group of its own: a group keeps a weak reference to all it ever had, and the node's would grow (F67).
        self._group = MutuallyExclusiveCallbackGroup()
        self._made: list[Any] = []
        self.endpoints: list[Endpoint] = []
        for camera in robot.cameras:
            self._camera(camera)
        self._subscribe(JointState, robot.topics.state, qos.STATE, self._state)
        self._subscribe(String, robot.topics.prompt, qos.PROMPT, lambda m: slots.put_prompt(m.data))

    def _camera(self, camera: CameraConfig) -> None:
        view, slots, now = camera.view, self._slots, self._ros_now_ns

        def raw(m: Image) -> None:
            slots.put_image(view, m.height, m.width, m.encoding, m.step, m.data, stamp_ns(m.header.stamp), now())

        def compressed(m: CompressedImage) -> None:
            slots.put_compressed(view, m.data, stamp_ns(m.header.stamp), now())

        kind, callback = (Image, raw) if camera.transport == "raw" else (CompressedImage, compressed)
        self._subscribe(kind, camera.topic, qos.image(camera), callback)

    def _state(self, m: JointState) -> None:
        self._slots.put_state(m.name, m.position, stamp_ns(m.header.stamp), m.velocity, m.effort)

    def _subscribe(self, kind: type, topic: str, profile: QoSProfile, callback: Callable[[Any], object]) -> None:
        made = self._node.create_subscription(
            kind, topic, callback, profile, callback_group=self._group, event_callbacks=self._events
        )
        self._made.append(made)
        self.endpoints.append(Endpoint(made.topic_name, profile))

    def close(self) -> None:
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        self._made = []


class Commands:
    """Sinks of the outputs asked for. Their publishers exist only while open: an inactive node is nobody's rival."""

    def __init__(
        self, node: LifecycleNode, config: StackConfig, ros_now_ns: Callable[[], int], on_mismatch: Callable[[], object]
    ):
        """Raises ConfigError for an output that the robot cannot have."""
        self._node, robot = node, config.robot
        self._events = PublisherEventCallbacks(incompatible_qos=lambda info: on_mismatch())
        spec = config.node.runner_config(robot).spec
        kinds = {
            "chunk": (ActionChunk, robot.topics.chunk, lambda send: ChunkSink(send, robot)),
            "trajectory": (JointTrajectory, robot.topics.trajectory,
                           lambda send: TrajectorySink(send, robot, spec, ros_now_ns)),
            "forward": (Float64MultiArray, robot.topics.forward, lambda send: ForwardSink(send)),
        }  # fmt: skip
        self._kinds = {name: kinds[name] for name in config.node.outputs}
        self._open: dict[str, Any] = {}
        self.sinks: list[Sink] = [make(self._sender(name)) for name, (_, _, make) in self._kinds.items()]
        self.endpoints = [
            Endpoint(node.resolve_topic_name(topic), qos.COMMAND, command=name != "chunk")
            for name, (_, topic, _) in self._kinds.items()
        ]

    def _sender(self, name: str) -> Callable[[Any], None]:
        return lambda message: self._open[name].publish(message)

    def open(self) -> None:
        """Make the publishers and wait a little for the subscribers that are there: they would miss the first commands."""
        group = MutuallyExclusiveCallbackGroup()  # as for Inputs
        for name, (kind, topic, _) in self._kinds.items():
            self._open[name] = self._node.create_lifecycle_publisher(
                kind, topic, qos.COMMAND, callback_group=group, event_callbacks=self._events
            )
        until = time.monotonic() + MATCH_S
        known = [(p, self._node.count_subscribers(p.topic_name)) for p in self._open.values()]
        while any(p.get_subscription_count() < n for p, n in known) and time.monotonic() < until:
            time.sleep(0.01)

    def close(self) -> None:
        """The last command may still be on its way: a writer that goes takes what is not acknowledged with it."""
        for publisher in self._open.values():
            publisher.wait_for_all_acked(Duration(seconds=ACKED_S))
            self._node.destroy_lifecycle_publisher(publisher)
        self._open = {}
