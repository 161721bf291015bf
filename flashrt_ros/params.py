"""ROS parameters made from the configuration classes: declared, checked and turned back into them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from flashrt_core.errors import ConfigError, FlashRTError, nearest
from flashrt_core.inputs import parse_yaml

from .config.config_file import load_node, load_policy, load_robot
from .config.option import option_types
from .config.settings import NodeConfig, PolicyConfig, RobotConfig, SafetyConfig
from .redact import public_error
from .stack import StackConfig, script_from_json

GROUPS = {"": NodeConfig, "policy.": PolicyConfig, "safety.": SafetyConfig}
LIMITS = "limits."  # limits.<action>.v_max, .a_max: declared once the robot is known
LIMITED = ("v_max", "a_max")
NAMES = {
    "robot": ("tabletop", "robot file: name of a shipped one, or a path"),
    "policy.file": ("pi05", "policy file: name of a shipped one, or a path"),
    "autostart": (False, "configure, then activate as soon as the inputs allow it, without a lifecycle manager"),
    "script": ("", "play this script (JSON) instead of a policy, for tests and rehearsals"),
}
ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.", "diagnostic_updater.", "bond_")
ONCE = "only while unconfigured"


class Params:
    """The parameters of one node. `given`: those that somebody set; the others follow the robot's, policy's, node's file.

    changed: called after a change at run time with the new configuration and the names of what was set (also to the value
    that it had); ConfigError from it is logged, not raised.
    """

    def __init__(
        self, node: Node, *, configured: Callable[[], bool], changed: Callable[[StackConfig, frozenset[str]], None]
    ):
        """Raises ConfigError for a parameter that is given and not known (F61)."""
        self._node, self._configured, self._changed = node, configured, changed
        self._given: dict[str, Any] = {}
        self._started_with = getattr(node, "_parameter_overrides", {})  # by the command line and parameter files
        self._robot = ""  # whose limits are given
        self._now: StackConfig | None = None  # in force, while configured
        self._showing: int | None = None  # the thread that shows values
        self._refuse_unknown(self._started_with)
        for name, (default, text) in NAMES.items():
            self._declare(name, default, ParameterDescriptor(description=text, additional_constraints=ONCE))
        for prefix, cls in GROUPS.items():
            for field in dataclasses.fields(cls):
                self._declare(prefix + field.name, _to_ros(field.default), _descriptor(field))
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def load(self) -> StackConfig:
        """The configuration as the parameters say it. Raises ConfigError."""
        robot = load_robot(self._value("robot"))
        self._take_limits(robot)
        self._now = self._with(robot, self._given)
        return self._now

    def show(self) -> None:
        """Declare the limits of the robot in force, let every parameter show what is in force, and hand on what was set since
        `load`: loading takes long. On the thread that sets parameters."""
        self._hand_on(frozenset())
        now = self._now
        values: dict[str, Any] = {}
        for prefix, config in (("", now.node), ("policy.", now.policy), ("safety.", now.robot.safety)):
            values |= {prefix + f.name: _to_ros(getattr(config, f.name)) for f in dataclasses.fields(config)}
        with self._unchecked():
            for action in now.robot.actions:
                for field in dataclasses.fields(action):
                    if field.name in LIMITED:
                        name = f"{LIMITS}{action.name}.{field.name}"
                        values[name] = _to_ros(getattr(action, field.name) or 0.0)
                        if not self._node.has_parameter(name):
                            self._declare(name, values[name], _descriptor(field, low=0.0))
        self._show(values)

    def forget(self) -> None:
        """Unconfigured again: limits belong to no robot, the other parameters show what somebody set or the default."""
        self._now = None
        for name in [n for n in self._node.get_parameters_by_prefix(LIMITS.rstrip("."))]:
            self._node.undeclare_parameter(LIMITS + name)
        fields = {prefix + f.name: f for prefix, cls in GROUPS.items() for f in dataclasses.fields(cls)}
        self._show({name: self._given.get(name, _to_ros(field.default)) for name, field in fields.items()})

    # ---- inside

    def _show(self, values: dict[str, Any]) -> None:
        """Set what differs, without check and without effect: every change is an event for the whole graph."""
        differ = {name: value for name, value in values.items() if _plain(self._value(name)) != _plain(value)}
        with self._unchecked():
            self._node.set_parameters([Parameter(name, value=value) for name, value in differ.items()])

    @contextlib.contextmanager
    def _unchecked(self) -> Iterator[None]:
        """What this thread sets is shown only; what another one sets meanwhile is checked as ever."""
        self._showing = threading.get_ident()
        try:
            yield
        finally:
            self._showing = None

    def _value(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _declare(self, name: str, default: Any, descriptor: ParameterDescriptor) -> None:
        value = self._node.declare_parameter(name, default, descriptor).value
        # Also when it is the default of the class: the file may say something else. What was set since then is newer.
        if name in self._started_with:
            self._given.setdefault(name, value)

    def _take_limits(self, robot: RobotConfig) -> None:
        """Limits given at the start, whose names only the robot tells: they are in force from the beginning (F61)."""
        if robot.name != self._robot:  # those of another robot are nobody's
            for name in [n for n in self._given if n.startswith(LIMITS)]:
                del self._given[name]
            self._robot = robot.name
        known = [f"{LIMITS}{a.name}.{limit}" for a in robot.actions for limit in LIMITED]
        for name, parameter in self._started_with.items():
            if not name.startswith(LIMITS):
                continue
            if name not in known:
                raise ConfigError(f"parameter {ascii(name)[:80]}", found="unknown", hint=nearest(name, known))
            if not isinstance(parameter.value, float):
                raise ConfigError(
                    f"parameter {name}", expected="a number with a decimal point", found=ascii(parameter.value)[:60]
                )
            self._given.setdefault(name, parameter.value)

    def _refuse_unknown(self, names: Iterable[str]) -> None:
        known = [*NAMES, *(p + f.name for p, cls in GROUPS.items() for f in dataclasses.fields(cls))]
        for name in names:
            if name not in known and not name.startswith((*ROS_OWN, LIMITS)):
                raise ConfigError(f"parameter {ascii(name)[:80]}", found="unknown", hint=nearest(name, known))

    def _with(self, robot: RobotConfig, given: dict[str, Any]) -> StackConfig:
        """The files' values with `given` on top."""

        def part(prefix: str, cls: type) -> dict[str, Any]:
            names = {f.name for f in dataclasses.fields(cls)}
            found = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
            return {n: _plain(v) for n, v in found.items() if n in names}

        node = part("", NodeConfig)
        actions = []
        for action in robot.actions:
            limits = {n: given.get(f"{LIMITS}{action.name}.{n}", getattr(action, n)) or None for n in LIMITED}
            actions.append(dataclasses.replace(action, **limits))
        return StackConfig(
            dataclasses.replace(
                robot, safety=dataclasses.replace(robot.safety, **part("safety.", SafetyConfig)), actions=tuple(actions)
            ),
            dataclasses.replace(load_policy(given.get("policy.file", "pi05")), **part("policy.", PolicyConfig)),
            dataclasses.replace(load_node(), **{"control_hz": robot.control_hz, **node}),
            script_from_json(given.get("script", ""), lambda text: parse_yaml(text.encode(), name="script")),
        )

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        """Validate only: F74. The old values stay when one is refused."""
        if self._showing == threading.get_ident():
            return SetParametersResult(successful=True)
        try:
            self._refuse_unknown(p.name for p in changes)
            given = {**self._given, **{p.name: p.value for p in changes}}
            if self._configured():
                fixed = [p.name for p in changes if not self._may_change(p.name)]
                if fixed:
                    raise ConfigError(f"parameter {fixed[0]}", expected=f"a change {ONCE}", found="a configured node")
                if self._now is not None:
                    self._with(self._now.robot, given)
                if not given.get("prompt", "go").strip():
                    raise ConfigError("prompt", expected="a task in words", found="an empty prompt")
            else:
                for prefix, cls in GROUPS.items():  # each value for itself; together they are checked at configure
                    names = {f.name for f in dataclasses.fields(cls)}
                    one = {p.name.removeprefix(prefix): _plain(p.value) for p in changes if p.name.startswith(prefix)}
                    cls(**{n: v for n, v in one.items() if n in names})
        except FlashRTError as error:
            self._node.get_logger().warning(f"parameter refused: {error}")
            return SetParametersResult(successful=False, reason=public_error(error))
        return SetParametersResult(successful=True)

    def _may_change(self, name: str) -> bool:
        if name.startswith((*ROS_OWN, LIMITS)):
            return True
        for prefix, cls in reversed(GROUPS.items()):
            if prefix and not name.startswith(prefix):
                continue
            for field in dataclasses.fields(cls):
                if prefix + field.name == name:
                    return not field.metadata["read_only"]
        return False

    def _apply(self, changes: list[Parameter]) -> None:
        """After all checks: remember, and hand on while configured."""
        if self._showing == threading.get_ident():
            return
        self._given |= {p.name: p.value for p in changes if not p.name.startswith(ROS_OWN)}
        if self._now is not None:
            self._hand_on(frozenset(p.name for p in changes))

    def _hand_on(self, names: frozenset[str]) -> None:
        try:
            self._now = self._with(self._now.robot, self._given)
            self._changed(self._now, names)
        except ConfigError as error:
            self._node.get_logger().error(f"parameter not applied: {error}")


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) or hasattr(value, "typecode") else value


def _to_ros(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _descriptor(field: dataclasses.Field, low: float | None = None) -> ParameterDescriptor:
    """Description, unit, range and when it may change, from the field's metadata."""
    rule = field.metadata
    unit = f" [{rule['unit']}]" if rule.get("unit") else ""
    constraints = [f"one of {', '.join(rule['choices'])}"] if rule.get("choices") else []
    if rule.get("read_only"):
        constraints.append(ONCE)
    zero = "; 0: no limit" if low == 0.0 else ""  # a parameter cannot be none
    made = ParameterDescriptor(
        description=f"{rule.get('description', '')}{unit}{zero}", additional_constraints="; ".join(constraints)
    )
    if rule.get("range"):
        first, last = rule["range"]
        first = low if low is not None else first
        kind = option_types(NodeConfig).get(field.name, type(field.default))
        if isinstance(field.default, int) and not isinstance(field.default, bool) and kind is not float:
            made.integer_range = [IntegerRange(from_value=int(first or 0), to_value=int(last or 2**31 - 1), step=0)]
        else:
            made.floating_point_range = [
                FloatingPointRange(
                    from_value=-math.inf if first is None else float(first),
                    to_value=math.inf if last is None else float(last), step=0.0,
                )
            ]  # fmt: skip
    return made
