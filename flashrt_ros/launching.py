"""The launch description that all launch files share: arguments, discovery range, policy node, simulation."""

from __future__ import annotations

import sys

from launch.actions import DeclareLaunchArgument, ExecuteProcess, LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription

# Argument: (parameter of the node, type, default, description). What is given beats the files, an empty text does not.
PARAMETERS = {
    "robot": ("robot", str, "tabletop", "robot file: name of a shipped one, or a path"),
    "policy": ("policy.file", str, "pi05", "policy file: name of a shipped one, or a path"),
    "checkpoint": ("policy.checkpoint", str, "", "checkpoint folder; empty: the bundled policy of the simulation"),
    "profile": ("policy.profile", str, "", "profile of the checkpoint: name or file; empty: what the checkpoint says"),
    "hardware": ("policy.hardware", str, "", "auto, host (CPU) or an arch string; empty: what the policy file says"),
    "precision": ("policy.precision", str, "", "auto, fp8 or full; empty: what the policy file says"),
    "prompt": ("prompt", str, "", "the task in words; also settable by topic"),
    "splice": (
        "splice", str, "", "how chunks are joined: none, linear, quintic, temporal_fusion; empty: what node.yaml says",
    ),
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
# Simulation: (module, name of the node, its arguments, each an option of the module's command line).
SIMULATIONS = {
    "tabletop": (
        "flashrt_ros.sim.bridge", "tabletop_sim", {"episodes": ("20", "episodes that the simulation runs", None)},
    ),
    "libero": (
        "flashrt_ros.sim.libero.ros_sim", "libero_sim",
        {
            "suite": ("robosuite_lift", "libero_spatial, _object, _goal, _10, _90, or robosuite_lift", None),
            "tasks": ("0", "numbers, for example 0-3,7", None),
            "episodes": ("10", "episodes of each task", None),
            "protocol": ("openpi", "reference evaluation: steps, seeds, resolution", ("openpi", "lerobot")),
            "rate": ("1.0", "times real time; other than 1 with use_sim_time:=true, then the simulation waits", None),
            "camera_hz": ("10", "rate of the pictures: 20, 10, 5 or 4", None),
            "gl": ("egl", "what draws", ("egl", "osmesa", "glfw")),
            "sim_python": ("", "the simulator's Python; empty: .venv-libero/bin/python", None),
            "assets": ("", "LIBERO's meshes and textures; empty: ~/.cache/libero/assets", None),
        },
    ),
}  # fmt: skip


def policy_launch(*, simulation: str = "", **defaults: str) -> LaunchDescription:
    """The policy node, and one of SIMULATIONS when asked for. defaults: of the arguments, where they differ."""
    arguments = [
        DeclareLaunchArgument(name, default_value=defaults.get(name, default), description=text)
        for name, (_, _, default, text) in PARAMETERS.items()
    ]
    others = {**OTHERS, **(SIMULATIONS[simulation][2] if simulation else {})}
    for name, (default, text, choices) in others.items():
        more = {"choices": list(choices)} if choices else {}
        arguments.append(
            DeclareLaunchArgument(name, default_value=defaults.get(name, default), description=text, **more)
        )
    return LaunchDescription([*arguments, OpaqueFunction(function=_actions, kwargs={"simulation": simulation})])


def _actions(context: LaunchContext, simulation: str) -> list:
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
        module, title, options = SIMULATIONS[simulation]
        words = [word for name in options if value(name) for word in (f"--{name.replace('_', '-')}", value(name))]
        actions.append(ExecuteProcess(cmd=[sys.executable, "-m", module, *words], name=title, output="screen"))
    return actions
