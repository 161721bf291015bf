"""The launch description of a replay: `flashrt replay` as a process, its options as launch arguments. No ROS node is started."""

from __future__ import annotations

import sys

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from launch import LaunchContext, LaunchDescription

BAG = "rosbag2 folder or file, or a folder of bags; several separated by commas"
# Argument: (option of `flashrt replay`, default, description). An empty text leaves the option out.
OPTIONS = {
    "robot": ("--robot", "tabletop", "robot file: name of a shipped one, or a path"),
    "checkpoint": ("--checkpoint", "", "checkpoint folder; empty: the bundled policy"),
    "policy": ("--policy", "pi05", "policy file: name of a shipped one, or a path"),
    "profile": ("--profile", "", "profile of the checkpoint: name or file; empty: what the checkpoint says"),
    "hardware": ("--hardware", "", "auto, host (CPU) or an arch string; empty: the policy file's"),
    "precision": ("--precision", "", "fp32, fp8 or auto; empty: the policy file's"),
    "latency": ("--latency", "0", "of each request: ms, a range as 40..120, or measured"),
    "splice": ("--splice", "", "how chunks are joined; empty: the node's"),
    "prompt": ("--prompt", "", "the task in words, where the bag does not say it"),
    "seed": ("--seed", "0", "of the policy's noise and of drawn latencies"),
    "jobs": ("--jobs", "1", "processes, for several bags"),
    "out": ("--out", "replay-out", "folder of the report"),
}
FLAGS = {"allow_loss": ("--allow-loss", "a cut or damaged recording is no failure")}


def replay_launch(**defaults: str) -> LaunchDescription:
    """defaults: of the arguments, where they differ."""
    arguments = [DeclareLaunchArgument("bag", description=BAG)]  # no default: launch asks for it
    arguments += [
        DeclareLaunchArgument(name, default_value=defaults.get(name, default), description=text)
        for name, (_, default, text) in OPTIONS.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value="false", description=text, choices=["true", "false"])
        for name, (_, text) in FLAGS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    """The process, once the arguments are known."""

    def value(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    command = [sys.executable, "-m", "flashrt_ros.cli", "replay", *value("bag").split(",")]
    for name, (option, _, _) in OPTIONS.items():
        if value(name):
            command += [option, value(name)]
    command += [option for name, (option, _) in FLAGS.items() if value(name) == "true"]
    return [ExecuteProcess(cmd=command, name="replay", output="screen")]
