"""The launch description that all launch files share: arguments, discovery range, policy node, simulation."""

from __future__ import annotations

import sys

from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

# Argument: (parameter of the node, type, default, description).
PARAMETERS = {
    "robot": ("robot", str, "tabletop", "robot file: name of a shipped one, or a path"),
    "policy": ("policy.file", str, "pi05", "policy file: name of a shipped one, or a path"),
    "checkpoint": ("policy.checkpoint", str, "", "checkpoint folder; empty: the bundled policy of the simulation"),
    "profile": ("policy.profile", str, "", "profile of the checkpoint: name or file; empty: what the checkpoint says"),
    "hardware": ("policy.hardware", str, "auto", "auto, host (CPU) or an arch string"),
    "precision": ("policy.precision", str, "auto", "auto, fp8 or full"),
    "prompt": ("prompt", str, "", "the task in words; also settable by topic"),
    "splice": ("splice", str, "quintic", "how chunks are joined: none, linear, quintic, temporal_fusion"),
    "autostart": ("autostart", bool, "false", "configure and activate without a lifecycle manager"),
    "use_sim_time": ("use_sim_time", bool, "false", "follow /clock"),
}
# Argument: (default, description, choices).
OTHERS = {
    "namespace": ("", "namespace of the node", None),
    "params_file": ("", "YAML file with more parameters; empty: none", None),
    "log_level": ("info", "least severity that is logged", ("debug", "info", "warn", "error")),
    "discovery": (
        "LOCALHOST", "ROS_AUTOMATIC_DISCOVERY_RANGE; wider than this machine only when it must be",
        ("LOCALHOST", "SUBNET", "SYSTEM_DEFAULT"),
    ),
}  # fmt: skip
EPISODES = ("20", "episodes that the simulation runs", None)


def policy_launch(*, simulation: bool = False, **defaults: str) -> LaunchDescription:
    """The policy node, and the bundled simulation when asked for. defaults: of the arguments, where they differ."""
    arguments = [
        DeclareLaunchArgument(name, default_value=defaults.get(name, default), description=text)
        for name, (_, _, default, text) in PARAMETERS.items()
    ]
    others = {**OTHERS, "episodes": EPISODES} if simulation else OTHERS
    for name, (default, text, choices) in others.items():
        more = {"choices": list(choices)} if choices else {}
        arguments.append(
            DeclareLaunchArgument(name, default_value=defaults.get(name, default), description=text, **more)
        )
    return LaunchDescription([*arguments, OpaqueFunction(function=_actions, kwargs={"simulation": simulation})])


def _actions(context: LaunchContext, simulation: bool) -> list:
    """What is started, once the arguments are known."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    actions = [SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", value("discovery"))]
    if value("discovery") != "LOCALHOST":
        actions.append(
            LogInfo(
                msg=f"WARNING: discovery:={value('discovery')}: hosts in this range can read the cameras and command the "
                "robot; turn on SROS2 (config/security/policy.xml)"
            )
        )
    parameters = {
        parameter: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (parameter, kind, default, _) in PARAMETERS.items()
        if kind is not str or value(name)  # an empty text leaves the file's value
    }
    files = [value("params_file")] if value("params_file") else []
    actions.append(
        LifecycleNode(
            package="flashrt_ros", executable="policy_node", name="policy_node", namespace=value("namespace"),
            parameters=[parameters, *files], ros_arguments=["--log-level", value("log_level")], output="screen",
        )
    )  # fmt: skip
    if simulation:
        command = [sys.executable, "-m", "flashrt_ros.sim.bridge", "--episodes", value("episodes")]
        actions.append(ExecuteProcess(cmd=command, name="tabletop_sim", output="screen"))
    return actions
