"""A robot as data: cameras, the state a policy sees, the command it gives, topics and safety limits."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import numpy as np

from flashrt_core.errors import ConfigError, nearest

from .option import check_options, option

ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8")
TOPIC = re.compile(r"~?/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")


def _check_topic(name: str, value: str) -> None:
    if not TOPIC.fullmatch(value) or "__" in value:
        raise ConfigError(name, expected="a ROS topic name", found=ascii(value)[:80])


def _check_name(name: str, value: str) -> None:
    if not NAME.fullmatch(value):
        raise ConfigError(name, expected="a name of letters, digits and _", found=ascii(value)[:80])


def check_unique(name: str, values: list[str]) -> None:
    twice = sorted({v for v in values if values.count(v) > 1})
    if twice:
        raise ConfigError(name, expected="each name once", found=f"{', '.join(twice)} twice")


@dataclass(frozen=True)
class CameraConfig:
    """One camera: where its images come from and which view of the policy they are."""

    view: str = option(description="view of the policy that this camera is")
    topic: str = option(description="topic of the images")
    transport: str = option("raw", "sensor_msgs/Image or CompressedImage", choices=("raw", "compressed"))
    encodings: tuple[str, ...] = option(
        ("rgb8", "bgr8", "rgba8", "bgra8"), "encodings accepted; mono8 only when listed", choices=ENCODINGS
    )
    width: int | None = option(None, "the only width accepted; none: any", unit="px", low=1, high=16384)
    height: int | None = option(None, "the only height accepted; none: any", unit="px", low=1, high=16384)
    resize: str = option("pad", "pad: resize with padding; exact: refuse other sizes", choices=("pad", "exact"))
    min_hz: float = option(5.0, "a slower camera is noted in the status", unit="Hz", low=0.0, high=1000.0)
    reliability: str = option(
        "best_effort", "QoS of the subscription", choices=("best_effort", "reliable", "best_available")
    )

    def __post_init__(self) -> None:
        check_options(self)
        _check_name("CameraConfig.view", self.view)
        _check_topic(f"camera {self.view}: topic", self.topic)
        if not self.encodings:
            raise ConfigError(f"camera {self.view}: encodings", expected="at least one", found="none")


@dataclass(frozen=True)
class StateDim:
    """One number of the policy's state: which joint it is read from. value = scale * reading + offset."""

    name: str = option(description="name of the state dimension")
    lower: float = option(description="smallest value, in the policy's units")
    upper: float = option(description="largest value, in the policy's units")
    source: str = option("", "joint name in JointState; empty: the dimension's name")
    field: str = option("position", "field of JointState", choices=("position", "velocity", "effort"))
    scale: float = option(1.0, "from the joint's unit to the policy's", low=-1e6, high=1e6)
    offset: float = option(0.0, "added after scaling", low=-1e6, high=1e6)
    max_step: float | None = option(None, "largest believable change between two messages", low=0.0)

    def __post_init__(self) -> None:
        if not self.source:
            object.__setattr__(self, "source", self.name)
        check_options(self)
        _check_name("StateDim.name", self.name)
        if not self.lower <= self.upper:
            raise ConfigError(f"state {self.name}", expected="lower <= upper", found=f"{self.lower} > {self.upper}")
        if not self.scale:
            raise ConfigError(f"state {self.name}: scale", expected="a number other than 0", found=self.scale)


@dataclass(frozen=True)
class ActionDim:
    """One number of the command. position: a set-point; delta: one period's motion; discrete: a choice, never ramped.

    v_max, a_max: limits of the position in units/s and units/s^2 (a delta d means d / T), none = no limit.
    """

    name: str = option(description="joint or axis that is commanded")
    kind: str = option(description="what the number means", choices=("position", "delta", "discrete"))
    lower: float = option(description="smallest command")
    upper: float = option(description="largest command")
    v_max: float | None = option(None, "largest speed", unit="units/s", low=1e-9, high=1e9, read_only=False)
    a_max: float | None = option(None, "largest acceleration", unit="units/s^2", low=1e-9, high=1e9, read_only=False)
    values: tuple[float, ...] = option((), "the only commands allowed (discrete); none: all within the limits")
    measured_by: str = option("", "state dimension that measures a position; empty: the one of the same name")
    start: float | None = option(None, "held before the first command where nothing measures it; none: nearest to 0")

    def __post_init__(self) -> None:
        check_options(self)
        _check_name("ActionDim.name", self.name)
        where = f"action {self.name}"
        if not self.lower <= self.upper:
            raise ConfigError(where, expected="lower <= upper", found=f"{self.lower} > {self.upper}")
        if self.kind == "delta" and not self.lower <= 0 <= self.upper:
            raise ConfigError(where, expected="limits of a delta around 0", found=f"{self.lower}..{self.upper}")
        if self.kind == "discrete" and not (self.v_max is None and self.a_max is None):
            raise ConfigError(where, expected="no v_max and a_max on a discrete dimension", found="one")
        if self.values and self.kind != "discrete":
            raise ConfigError(f"{where}: values", expected="only on a discrete dimension", found=self.kind)
        outside = [v for v in self.values if not self.lower <= v <= self.upper]
        if outside:
            raise ConfigError(f"{where}: values", expected=f"within {self.lower}..{self.upper}", found=outside[0])
        if self.start is not None and not self.lower <= self.start <= self.upper:
            raise ConfigError(f"{where}: start", expected=f"within {self.lower}..{self.upper}", found=self.start)
        if self.measured_by and self.kind != "position":
            raise ConfigError(f"{where}: measured_by", expected="only on a position dimension", found=self.kind)


@dataclass(frozen=True)
class TopicsConfig:
    """Names of the topics besides the cameras; relative names are in the node's namespace."""

    state: str = option("joint_states", "sensor_msgs/JointState in")
    prompt: str = option("~/prompt", "std_msgs/String in")
    chunk: str = option("~/action_chunk", "flashrt_ros/ActionChunk out")
    trajectory: str = option("joint_trajectory_controller/joint_trajectory", "trajectory_msgs/JointTrajectory out")
    forward: str = option("forward_command_controller/commands", "std_msgs/Float64MultiArray out, every period")

    def __post_init__(self) -> None:
        check_options(self)
        for field in dataclasses.fields(self):
            _check_topic(f"topics.{field.name}", getattr(self, field.name))


@dataclass(frozen=True)
class SafetyConfig:
    """When an input counts as missing or wrong, and what the robot may do then. Times by the node's steady clock."""

    max_obs_age_s: float = option(
        0.5, "an image older than this is a fault (F01, F02)", unit="s", low=0.01, high=10.0, read_only=False
    )
    fresh_obs_s: float = option(
        0.2, "a request is made only with images this new (F03)", unit="s", low=0.005, high=10.0, read_only=False
    )
    max_state_age_s: float = option(
        0.05, "a state older than this is a fault (F15)", unit="s", low=0.005, high=10.0, read_only=False
    )
    max_skew_s: float = option(
        0.05, "largest difference of the views' stamps (F11)", unit="s", low=0.001, high=10.0, read_only=False
    )
    frozen_after_s: float = option(
        0.8, "the same image for so long while the state moves is a fault (F04)", unit="s", low=0.05, high=60.0,
        read_only=False,
    )  # fmt: skip
    motion_fraction: float = option(
        0.01, "share of a state's range that counts as motion (F04)", low=0.0, high=1.0, read_only=False
    )
    constant_after_s: float = option(
        1.0, "a black, saturated or constant image for so long counts (F12)", unit="s", low=0.05, high=60.0,
        read_only=False,
    )  # fmt: skip
    hold_on_constant: bool = option(False, "F12 holds instead of only noting", read_only=False)
    limits_factor: float = option(
        1.2, "a state beyond its limits times this is in wrong units (F17)", low=1.0, high=100.0, read_only=False
    )
    teleport_fraction: float = option(
        0.5, "a state step of this share of the range is a jump (F19)", low=0.0, high=100.0, read_only=False
    )
    follow_tolerance: float = option(
        0.1, "largest error between command and state (F20)", unit="units", low=1e-6, high=1e6, read_only=False
    )
    follow_hold_s: float = option(
        0.5, "an error for so long holds (F20)", unit="s", low=0.05, high=60.0, read_only=False
    )
    follow_stop_s: float = option(
        1.5, "an error for so long stops (F20)", unit="s", low=0.05, high=60.0, read_only=False
    )
    anchor_gap: float = option(
        0.05, "largest step from the measured state to the first command (F21)", unit="units", low=0.0, high=1e6,
        read_only=False,
    )  # fmt: skip
    max_disagreement: float = option(
        0.15, "a chunk that differs more at the switch is rejected (F41)", unit="units", low=1e-6, high=1e6,
        read_only=False,
    )  # fmt: skip
    auto_resume: bool = option(
        True, "a hold ends by itself after 5 good cycles; false: the operator ends it", read_only=False
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.follow_stop_s < self.follow_hold_s:
            raise ConfigError("follow_stop_s", expected=">= follow_hold_s", found=self.follow_stop_s)
        if self.fresh_obs_s > self.max_obs_age_s:
            raise ConfigError("fresh_obs_s", expected="<= max_obs_age_s", found=self.fresh_obs_s)


@dataclass(frozen=True)
class RobotConfig:
    """A robot: cameras, the state that the policy sees, the command it gives, topics and safety limits."""

    name: str = option(description="name of the robot")
    cameras: tuple[CameraConfig, ...] = option(description="list of cameras")
    state: tuple[StateDim, ...] = option(description="list of state dimensions, in the policy's order")
    actions: tuple[ActionDim, ...] = option(description="list of action dimensions, in the policy's order")
    topics: TopicsConfig = option(factory=TopicsConfig, description="topic names")  # noqa: RUF009
    safety: SafetyConfig = option(factory=SafetyConfig, description="safety limits")  # noqa: RUF009
    control_hz: float = option(50.0, "rate of the policy's actions", unit="Hz", low=1.0, high=1000.0)
    description: str = option("", "one sentence for `--show-args` and logs")

    def __post_init__(self) -> None:
        check_options(self)
        _check_name("robot name", self.name)
        where = f"robot {self.name}"
        for part in ("cameras", "actions"):
            if not getattr(self, part):
                raise ConfigError(f"{where}: {part}", expected="at least one", found="none")
        check_unique(f"{where}: views", [c.view for c in self.cameras])
        check_unique(f"{where}: camera topics", [c.topic for c in self.cameras])
        check_unique(f"{where}: state", [d.name for d in self.state])
        check_unique(f"{where}: actions", [d.name for d in self.actions])
        for dim in self.actions:
            if dim.measured_by and dim.measured_by not in self.state_names:
                raise ConfigError(
                    f"{where}: action {dim.name}: measured_by", found=repr(dim.measured_by),
                    hint=nearest(dim.measured_by, self.state_names or ("(no state)",)),
                )  # fmt: skip

    @property
    def views(self) -> tuple[str, ...]:
        return tuple(c.view for c in self.cameras)

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.state)

    @property
    def action_names(self) -> tuple[str, ...]:
        return tuple(d.name for d in self.actions)

    @property
    def position_names(self) -> tuple[str, ...]:
        """Names of the position dimensions: the joints of a trajectory."""
        return tuple(d.name for d in self.actions if d.kind == "position")

    def dims(self, kind: str) -> tuple[int, ...]:
        """Indices of the action dimensions of a kind."""
        return tuple(i for i, d in enumerate(self.actions) if d.kind == kind)

    def measured_index(self) -> np.ndarray:
        """int [A]: for each action dimension the state dimension that measures it, -1 where none does."""
        at = {name: i for i, name in enumerate(self.state_names)}
        return np.array([at.get(d.measured_by or d.name, -1) if d.kind == "position" else -1 for d in self.actions])

    def measured_command(self, state: np.ndarray) -> np.ndarray:
        """float64 [A]: the command that keeps the robot where `state` [S] says it is; NaN where nothing measures it.

        Deltas are zero; discrete dimensions and unmeasured positions are NaN.
        """
        index = self.measured_index()
        out = np.full(len(index), np.nan)
        known = index >= 0
        out[known] = np.asarray(state, dtype=np.float64)[index[known]]
        out[list(self.dims("delta"))] = 0.0
        return out

    def check_views(self, views: tuple[str, ...]) -> None:
        """F13: refuse cameras that are not the policy's views, and views without a camera; ConfigError lists the names."""
        for view in self.views:
            if view not in views:
                raise ConfigError(
                    f"robot {self.name}: camera {view!r}", expected=f"one of the policy's views: {', '.join(views)}",
                    found="another", hint=nearest(view, views),
                )  # fmt: skip
        missing = [v for v in views if v not in self.views]
        if missing:
            raise ConfigError(
                f"robot {self.name}: views", expected=f"a camera for each of {', '.join(views)}",
                found=f"none for {', '.join(missing)}",
            )  # fmt: skip

    def check_policy(self, views: tuple[str, ...], state_dim: int, action_dim: int) -> None:
        """Refuse a robot that does not fit the policy: views (F13), number of state and action dimensions."""
        self.check_views(views)
        for name, have, want in (("state", self.state, state_dim), ("actions", self.actions, action_dim)):
            if len(have) != want:
                raise ConfigError(
                    f"robot {self.name}: {name}", expected=f"{want} dimensions, as the policy", found=len(have)
                )
