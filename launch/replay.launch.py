"""A policy run over a recorded bag: ros2 launch flashrt_ros replay.launch.py bag:=<folder> robot:=<name> checkpoint:=<folder>."""

from flashrt_ros.launching_replay import replay_launch


def generate_launch_description():
    return replay_launch()
