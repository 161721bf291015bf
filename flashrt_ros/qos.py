"""Quality of service by name: one profile per kind of topic."""

from __future__ import annotations

from rclpy.duration import Infinite
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

from .config.settings import CameraConfig


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE, depth: int = 1):
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability,
        # Said outright: peers announce them so, and an unset one would not compare as compatible with that (F70).
        deadline=Infinite, lifespan=Infinite, liveliness=LivelinessPolicy.AUTOMATIC, liveliness_lease_duration=Infinite,
    )  # fmt: skip


# The newest message is the only one of interest. Best effort takes from reliable publishers as well.
STATE = _profile(ReliabilityPolicy.BEST_EFFORT)
PROMPT = _profile(ReliabilityPolicy.RELIABLE)
# ActionChunk, JointTrajectory, Float64MultiArray. The writer keeps a few: a subscriber that is matched a moment after
# activation, or stopped for a period, still gets every index. How many wait at the subscriber is its own depth.
COMMAND = _profile(ReliabilityPolicy.RELIABLE, depth=10)
STATUS = _profile(ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)  # late subscribers get the last (F71)
DIAGNOSTICS = _profile(ReliabilityPolicy.RELIABLE, depth=10)

_RELIABILITY = {
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_available": ReliabilityPolicy.BEST_AVAILABLE,
}


def image(camera: CameraConfig) -> QoSProfile:
    """The subscription of a camera: depth 1, reliability as configured."""
    return _profile(_RELIABILITY[camera.reliability])
