"""Sinks: what the control loop publishes, as one of three kinds of message. Called from the control tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.command import CommandSpec
from flashrt_core.runtime.rest import rest_tail

from .config.settings import RobotConfig
from .control.tick_record import PlannedChunk, TickRecord
from .convert import chunk_message, command_message, trajectory_message

Publish = Callable[[Any], None]


class ChunkSink:
    """flashrt_ros/ActionChunk: every chunk that takes over, all dimensions."""

    def __init__(self, publish: Publish, robot: RobotConfig):
        self._publish, self._robot = publish, robot

    def command(self, record: TickRecord) -> None:
        """Chunks only."""

    def chunk(self, plan: PlannedChunk) -> None:
        self._publish(chunk_message(plan, self._robot))


class ForwardSink:
    """std_msgs/Float64MultiArray: one command per control period, all dimensions."""

    def __init__(self, publish: Publish):
        self._publish = publish

    def command(self, record: TickRecord) -> None:
        self._publish(command_message(record.command))

    def chunk(self, plan: PlannedChunk) -> None:
        """Commands only."""


class TrajectorySink:
    """trajectory_msgs/JointTrajectory: the position dimensions of each chunk, ended at rest (rule R4).

    The controller interpolates and needs no message per period; while the loop holds, it gets each step of the way to
    rest as a trajectory of one point, which replaces the chunk.
    """

    def __init__(self, publish: Publish, robot: RobotConfig, spec: CommandSpec, now_ns: Callable[[], int]):
        """spec: meaning and limits of the whole command. now_ns: ROS time. ConfigError without position dimensions."""
        self._dims = list(robot.dims("position"))
        if not self._dims:
            raise ConfigError(
                "output trajectory", expected="a robot with position commands", found=f"none in {robot.name}",
                hint="use the output forward or chunk",
            )  # fmt: skip
        self._names = robot.position_names
        self._publish, self._spec, self._now_ns = publish, spec, now_ns
        self._held: np.ndarray | None = None

    def command(self, record: TickRecord) -> None:
        if record.source == "chunk":
            self._held = None
            return
        positions = record.command[self._dims]
        if self._held is None or np.any(positions != self._held):
            self._held = positions
            self._send(positions[None])

    def chunk(self, plan: PlannedChunk) -> None:
        rows = plan.rows
        tail = rest_tail(rows[-1], rows[-2] if len(rows) > 1 else None, self._spec)
        self._send(np.concatenate([rows, tail])[:, self._dims])

    def _send(self, rows: np.ndarray) -> None:
        self._publish(trajectory_message(self._names, rows, self._spec.period_s, self._now_ns()))
