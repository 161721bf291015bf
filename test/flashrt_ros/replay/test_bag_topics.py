"""Which topics of a bag are read, and how recorded commands of each kind become one vector."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.replay_bags import arm_robot, scripted_settings

from flashrt_ros.bags.findings import BagError
from flashrt_ros.replay.bag_topics import find_topics, read_command

ROBOT = arm_robot()


@dataclass
class Info:
    type: str
    count: int = 5


def have(**changes):
    topics = {
        "/front/image": Info("sensor_msgs/msg/Image"), "/joint_states": Info("sensor_msgs/msg/JointState"),
        "/forward_command_controller/commands": Info("std_msgs/msg/Float64MultiArray"),
        "/policy_node/prompt": Info("std_msgs/msg/String"),
    }  # fmt: skip
    return {k: v for k, v in (topics | changes).items() if v is not None}


def test_robot_names_become_topics():
    found = find_topics(scripted_settings(ROBOT), have(), "bag")
    assert found.views == {"/front/image": "front"} and found.state == "/joint_states"
    assert found.command == "/forward_command_controller/commands" and found.prompt == "/policy_node/prompt"


def test_prompt_may_be_given_instead():
    found = find_topics(scripted_settings(ROBOT, prompt="go"), have(**{"/policy_node/prompt": None}), "bag")
    assert found.prompt == "" and "" not in found.names
    with pytest.raises(BagError, match="--prompt"):
        find_topics(scripted_settings(ROBOT), have(**{"/policy_node/prompt": None}), "bag")


def test_trajectory_where_there_is_no_forward_topic():
    name = "/joint_trajectory_controller/joint_trajectory"
    topics = have(**{"/forward_command_controller/commands": None, name: Info("trajectory_msgs/msg/JointTrajectory")})
    assert find_topics(scripted_settings(ROBOT), topics, "bag").command == name


def test_commands_may_be_elsewhere():
    settings = replace(scripted_settings(ROBOT), command_topic="/leader/joint_states")
    topics = have(**{"/leader/joint_states": Info("sensor_msgs/msg/JointState")})
    assert find_topics(settings, topics, "bag").command == "/leader/joint_states"


def test_commands_by_type():
    values = read_command(SimpleNamespace(data=[1, 2, 3]), "std_msgs/msg/Float64MultiArray", ROBOT)
    assert values.tolist() == [1, 2, 3]
    assert read_command(SimpleNamespace(data=[1, 2]), "std_msgs/msg/Float64MultiArray", ROBOT) is None
    joints = SimpleNamespace(name=["j2", "other", "j0"], position=[0.2, 9.0, 0.1])
    assert np.array_equal(read_command(joints, "sensor_msgs/msg/JointState", ROBOT), [0.1, np.nan, 0.2], equal_nan=True)
    points = [SimpleNamespace(positions=[0.5, 0.6]), SimpleNamespace(positions=[7.0, 7.0])]
    moves = SimpleNamespace(joint_names=["j1", "j0"], points=points)
    assert np.array_equal(
        read_command(moves, "trajectory_msgs/msg/JointTrajectory", ROBOT), [0.6, 0.5, np.nan], equal_nan=True
    )
    assert read_command(SimpleNamespace(joint_names=[], points=[]), "trajectory_msgs/msg/JointTrajectory", ROBOT) is None
    assert read_command(SimpleNamespace(name=["x"], position=[1.0]), "sensor_msgs/msg/JointState", ROBOT) is None
