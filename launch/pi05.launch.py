"""Pi0.5 on a robot: ros2 launch flashrt_ros pi05.launch.py robot:=<name or file> checkpoint:=<folder> prompt:="..."."""

from flashrt_ros.launching import policy_launch


def generate_launch_description():
    return policy_launch(policy="pi05")
