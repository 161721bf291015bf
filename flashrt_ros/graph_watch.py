"""GraphWatch: faults that only the ROS graph shows: a rival on the command topics, a twin, peers of other QoS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible

from .control.health import FaultReport


@dataclass(frozen=True)
class Endpoint:
    """One of our topics. qos: ours. command: nobody else may publish here."""

    topic: str
    qos: QoSProfile
    command: bool = False


class GraphWatch:
    """`look` from a timer, `faults` from anywhere: what was seen last, to be raised in every control period.

    commanding: whether our own publishers of commands are there.
    """

    def __init__(self, node: Node):
        self._node = node
        self._inputs: list[Endpoint] = []
        self._outputs: list[Endpoint] = []
        self.faults: tuple[FaultReport, ...] = ()
        self.commanding = False

    def watch(self, inputs: Iterable[Endpoint], outputs: Iterable[Endpoint]) -> None:
        self._inputs, self._outputs = list(inputs), list(outputs)

    def twin(self) -> str | None:
        """F75: the name of this node when it is in the graph twice."""
        own = (self._node.get_name(), self._node.get_namespace())
        names = self._node.get_node_names_and_namespaces()
        return self._node.get_fully_qualified_name() if names.count(own) > 1 else None

    def look(self) -> tuple[FaultReport, ...]:
        """F18, F70."""
        found = [self._rival(e.topic) for e in self._outputs if e.command]
        found += [self._mismatch(e, self._node.get_publishers_info_by_topic, True) for e in self._inputs]
        found += [self._mismatch(e, self._node.get_subscriptions_info_by_topic, False) for e in self._outputs if e.command]
        self.faults = tuple(f for f in found if f is not None)
        return self.faults

    def _rival(self, topic: str) -> FaultReport | None:
        own = (self._node.get_name(), self._node.get_namespace())
        peers = self._node.get_publishers_info_by_topic(topic)
        if len(peers) <= self.commanding:
            return None
        others = sorted({_full(p.node_namespace, p.node_name) for p in peers if (p.node_name, p.node_namespace) != own})
        return FaultReport("F18", f"{topic}: {', '.join(others) or 'a node of the same name'} publishes too", topic)

    def _mismatch(self, end: Endpoint, peers_of: Callable, ours_reads: bool) -> FaultReport | None:
        """Peers are there and none of them is compatible: nothing can arrive."""
        reasons = []
        for peer in peers_of(end.topic):
            pair = (peer.qos_profile, end.qos) if ours_reads else (end.qos, peer.qos_profile)
            state, reason = qos_check_compatible(*pair)
            if state != QoSCompatibility.ERROR:
                return None
            reasons.append(f"{_full(peer.node_namespace, peer.node_name)}: {reason.strip().rstrip(';')}")
        return FaultReport("F70", f"{end.topic}: {reasons[0]}", end.topic) if reasons else None


def _full(namespace: str, name: str) -> str:
    if name == "_NODE_NAME_UNKNOWN_":  # rmw's word for a node of which so far only the topic is known
        return "a node that has just come"
    return f"{namespace.rstrip('/')}/{name}"
