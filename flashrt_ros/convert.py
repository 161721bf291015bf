"""Messages to plain values and back; no decisions."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from std_msgs.msg import Float64MultiArray, Header, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from flashrt_core.runtime.clock import NS
from flashrt_ros.msg import ActionChunk

from .config.settings import RobotConfig
from .control.tick_record import PlannedChunk

KINDS = {"position": ActionChunk.POSITION, "delta": ActionChunk.DELTA, "discrete": ActionChunk.DISCRETE}


def stamp_ns(stamp: Time) -> int:
    """A message's time in ns."""
    return stamp.sec * NS + stamp.nanosec


def to_time(ns: int) -> Time:
    """ns as a message's time; what a Time cannot hold becomes its nearest."""
    ns = min(max(ns, 0), (2**31 - 1) * NS)
    return Time(sec=ns // NS, nanosec=ns % NS)


def header(ns: int, frame: str = "") -> Header:
    return Header(stamp=to_time(ns), frame_id=frame)


def doubles(values: np.ndarray) -> array.array:
    """array.array: message fields take it as it is, a list would be checked number by number."""
    return array.array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def floats(values: np.ndarray) -> array.array:
    return array.array("f", np.ascontiguousarray(values, dtype=np.float32).tobytes())


def chunk_message(plan: PlannedChunk, robot: RobotConfig) -> ActionChunk:
    """The chunk as it takes over; stamp: the oldest image of its observation."""
    observation = plan.observation
    return ActionChunk(
        header=header(getattr(observation, "stamp_ns", 0), robot.name), chunk=plan.chunk,
        observation=getattr(observation, "seq", 0), first_command=plan.seq, executed=plan.executed,
        names=list(robot.action_names), kinds=[KINDS[dim.kind] for dim in robot.actions], period=plan.period_s,
        horizon=len(plan.rows), data=floats(plan.rows), inference_time=plan.latency_s,
        disagreement=math.nan if plan.disagreement is None else float(plan.disagreement),
    )  # fmt: skip


def command_message(command: np.ndarray) -> Float64MultiArray:
    """One command for a forward_command_controller."""
    message = Float64MultiArray(data=doubles(command))
    message.layout.dim = [MultiArrayDimension(label="action", size=len(command), stride=len(command))]
    return message


def trajectory_message(names: Sequence[str], rows: np.ndarray, period_s: float, now_ns: int) -> JointTrajectory:
    """Positions only [N, len(names)]: row i is to be reached (i + 1) periods after now_ns, ROS time.

    As joint_trajectory_controller wants it: all joints, times strictly increasing, the last one in the future.
    """
    period_ns = round(period_s * NS)
    points = []
    for i, row in enumerate(rows, start=1):
        at = i * period_ns
        points.append(
            JointTrajectoryPoint(positions=doubles(row), time_from_start=Duration(sec=at // NS, nanosec=at % NS))
        )
    return JointTrajectory(header=header(now_ns), joint_names=list(names), points=points)
