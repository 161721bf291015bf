"""NodeOperator: brings a policy node to a lifecycle state through its services, as a robot's operator does."""

from __future__ import annotations

import time

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future

from flashrt_ros.msg import PolicyStatus

RETRY_S, MAX_TRIES = 0.3, 20
# (state, wanted) -> transition; a state that ends in -ing is waited for.
ROUTE = {
    ("unconfigured", "inactive"): Transition.TRANSITION_CONFIGURE,
    ("unconfigured", "active"): Transition.TRANSITION_CONFIGURE,
    ("inactive", "active"): Transition.TRANSITION_ACTIVATE,
    ("active", "inactive"): Transition.TRANSITION_DEACTIVATE,
}


class NodeOperator:
    """`go` says where to, `poll` (once per control step) takes the next step there; status and answers come by ROS.

    A transition that is refused is tried again, RETRY_S apart and at most MAX_TRIES times: an activation right after a
    change of scene may come before the inputs are all new.
    """

    def __init__(self, node: Node, policy_node: str):
        self._client = node.create_client(ChangeState, f"/{policy_node}/change_state")
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(PolicyStatus, f"/{policy_node}/status", self._on_status, qos)
        self.status: PolicyStatus | None = None
        self._count = 0  # statuses received
        self._since = 0  # of these, when `go` was called
        self._target: str | None = None
        self._answer: Future | None = None
        self._tries, self._next_s = 0, 0.0
        self.refusals = 0

    # ---- lockstep.Operator

    def go(self, state: str) -> None:
        self._target, self._since, self._tries, self._next_s = state, self._count, 0, 0.0

    @property
    def arrived(self) -> bool:
        status = self.status
        return status is not None and self._count > self._since and status.lifecycle == self._target

    @property
    def problem(self) -> str | None:
        status = self.status
        if status is not None and status.lifecycle == "finalized":
            return "the policy node was shut down"
        if self._tries >= MAX_TRIES or (
            self._tries and status is not None and status.phase.startswith("configure failed")
        ):
            return f"the policy node does not become {self._target}: {status.phase if status else 'no status'}"
        return None

    @property
    def commands(self) -> int | None:
        return None if self.status is None else int(self.status.commands)

    @property
    def prompt(self) -> str | None:
        return None if self.status is None else self.status.prompt

    # ---- once per control step

    def poll(self) -> None:
        """Ask for the transition that leads on, if none is under way."""
        if self._answer is not None:
            if not self._answer.done():
                return
            answer, self._answer = self._answer, None
            self._next_s = time.monotonic() + RETRY_S  # the status has followed by then
            result = answer.result()
            if result is None or not result.success:
                self.refusals += 1
                self._tries += 1
            return
        status = self.status
        if self._target is None or status is None or time.monotonic() < self._next_s or self._tries >= MAX_TRIES:
            return
        transition = ROUTE.get((status.lifecycle, self._target))
        if transition is not None and self._client.service_is_ready():
            self._answer = self._client.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def _on_status(self, status: PolicyStatus) -> None:
        self.status = status
        self._count += 1
