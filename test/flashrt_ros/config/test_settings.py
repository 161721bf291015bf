"""Configuration: what loads, what is refused with which words, and that the shipped files fit the policies."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import yaml
from support.arm import arm, camera
from support.checkers import ROOT

from flashrt_core.errors import ConfigError
from flashrt_ros.config import robot_config
from flashrt_ros.config.config_file import config_folder, load_node, load_policy, load_robot, robot_names
from flashrt_ros.config.option import build, option_types
from flashrt_ros.config.settings import (
    ActionDim,
    CameraConfig,
    NodeConfig,
    PolicyConfig,
    RobotConfig,
    SafetyConfig,
    StateDim,
    TopicsConfig,
)

CLASSES = (CameraConfig, StateDim, ActionDim, TopicsConfig, SafetyConfig, RobotConfig, PolicyConfig, NodeConfig)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_option_is_described(cls):
    """ROS parameters are declared from this: description, type, range or choices, read-only or not."""
    for field in dataclasses.fields(cls):
        assert len(field.metadata["description"]) > 5, field.name
        assert isinstance(field.metadata["read_only"], bool)
        kind = option_types(cls)[field.name]
        if kind in (float, int):
            default = field.default
            span = field.metadata["range"]
            assert span is None or default is dataclasses.MISSING or span[0] <= default <= span[1]
    assert cls.__doc__ and dataclasses.fields(cls)


def test_what_may_change_at_run_time():
    """Issue 3, parameters: prompt, splice and limits; the rest only when unconfigured."""
    free = {f.name for f in dataclasses.fields(NodeConfig) if not f.metadata["read_only"]}
    assert free == {"prompt", "splice", "blend_ticks"}
    assert {f.name for f in dataclasses.fields(ActionDim) if not f.metadata["read_only"]} == {"v_max", "a_max"}
    assert not any(f.metadata["read_only"] for f in dataclasses.fields(SafetyConfig))
    assert all(f.metadata["read_only"] for f in dataclasses.fields(PolicyConfig))


def test_shipped_robots_load():
    assert "tabletop" in robot_names() and len(robot_names()) >= 2
    for name in robot_names():
        robot = load_robot(name)
        assert robot.name == name and robot.description
        assert NodeConfig(control_hz=robot.control_hz).check_robot(robot) is None
        assert NodeConfig(control_hz=robot.control_hz).runner_config(robot).target_hz == robot.control_hz
        assert load_robot(config_folder() / "robots" / f"{name}.yaml") == robot


def test_tabletop_fits_the_bundled_policy():
    profile = json.loads((ROOT / "flashrt_ros/sim/tabletop/policy/flashrt_profile.json").read_text())
    robot = load_robot("tabletop")
    robot.check_policy(tuple(profile["views"]), profile["state_dim"], profile["robot_action_dim"])
    side = profile["dims"]["vision"]["image_size"]
    assert all((c.width, c.height) == (side, side) for c in robot.cameras)
    assert robot.state_names == (
        "eef_x", "eef_y", "eef_z", "eef_rx", "eef_ry", "eef_rz", "finger_left", "finger_right",
    )  # fmt: skip
    assert robot.dims("delta") == (0, 1, 2, 3, 4, 5) and robot.dims("discrete") == (6,) and robot.control_hz == 20


def test_panda_fits_the_published_profile():
    profile = yaml.safe_load((ROOT / "flashrt_core/configs/pi05.yaml").read_text())["pi05_full_droid_finetune"]
    robot = load_robot("panda")
    robot.check_policy(tuple(profile["views"]), profile["state_dim"], profile["robot_action_dim"])
    assert robot.dims("position") == tuple(profile["delta_action_dims"]) and len(robot.position_names) == 7
    assert all(d.v_max and d.a_max for d in robot.actions[:7])


def test_shipped_node_and_policy_load():
    assert load_node() == NodeConfig() and load_policy() == PolicyConfig()
    assert load_node(prompt="x", outputs=["trajectory"]).outputs == ("trajectory",)
    assert load_policy().load_options()["use_fp8"] is None


def test_load_options_fit_load_model():
    import inspect

    from flashrt_core import load_model

    assert set(PolicyConfig().load_options()) <= set(inspect.signature(load_model).parameters)


def test_runner_config_takes_the_robots_dimensions():
    runner = NodeConfig(splice="linear", blend_ticks=3, replan_ticks=7, max_held_s=2.0).runner_config(arm())
    assert runner.discrete_dims == (3,) and runner.delta_dims == () and runner.start_next_at == 7
    assert runner.blend_steps == 3 and runner.max_held == 100 and runner.max_disagreement == 0.15
    assert runner.v_max[:3] == (1.0, 1.0, 1.0) and runner.v_max[3] >= 1e6 and runner.a_max[:3] == (5.0, 5.0, 5.0)
    assert NodeConfig(splice="none").runner_config(arm()).blend_steps == 0


def test_measured_command():
    robot = arm(actions=(
        ActionDim("j1", "position", -1.0, 1.0, measured_by="elbow"), ActionDim("wrist", "position", -1.0, 1.0),
        ActionDim("free", "position", 0.0, 1.0), ActionDim("d", "delta", -1.0, 1.0), ActionDim("g", "discrete", 0.0, 1.0),
    ))  # fmt: skip
    assert robot.measured_index().tolist() == [1, 2, -1, -1, -1]
    command = robot.measured_command(np.array([0.1, 0.2, 0.3], np.float32))
    assert np.allclose(command[:2], [0.2, 0.3]) and np.isnan(command[[2, 4]]).all() and command[3] == 0


REFUSED = {
    "camera topic": lambda: camera("front", topic="front image"),
    "double underscore": lambda: camera("front", topic="front__image"),
    "camera encoding": lambda: camera("front", encodings=("rgb8", "yuv422")),
    "no encoding": lambda: camera("front", encodings=()),
    "view name": lambda: camera("front view"),
    "width 0": lambda: camera("front", width=0),
    "transport": lambda: camera("front", transport="theora"),
    "state limits": lambda: StateDim("a", 1.0, -1.0),
    "state nan": lambda: StateDim("a", math.nan, 1.0),
    "state scale": lambda: StateDim("a", -1.0, 1.0, scale=0.0),
    "action kind": lambda: ActionDim("a", "positions", -1.0, 1.0),
    "action limits": lambda: ActionDim("a", "position", 1.0, -1.0),
    "delta limits": lambda: ActionDim("a", "delta", 0.5, 1.0),
    "v_max 0": lambda: ActionDim("a", "position", -1.0, 1.0, 0.0),
    "v_max nan": lambda: ActionDim("a", "position", -1.0, 1.0, math.nan),
    "v_max discrete": lambda: ActionDim("a", "discrete", 0.0, 1.0, 1.0),
    "values outside": lambda: ActionDim("a", "discrete", 0.0, 1.0, values=(0.0, 2.0)),
    "values of a position": lambda: ActionDim("a", "position", 0.0, 1.0, values=(0.0,)),
    "start outside": lambda: ActionDim("a", "discrete", 0.0, 1.0, start=2.0),
    "measured delta": lambda: ActionDim("a", "delta", -1.0, 1.0, measured_by="x"),
    "measured unknown": lambda: arm(actions=(ActionDim("a", "position", -1.0, 1.0, measured_by="sholder"),)),
    "two views": lambda: arm(cameras=(camera("front"), camera("front", topic="b"))),
    "two topics": lambda: arm(cameras=(camera("front", topic="b"), camera("hand", topic="b"))),
    "no camera": lambda: arm(cameras=()),
    "no action": lambda: arm(actions=()),
    "actions twice": lambda: arm(actions=(ActionDim("a", "delta", -1.0, 1.0),) * 2),
    "robot name": lambda: arm(name="my robot"),
    "topic": lambda: TopicsConfig(state="joint states"),
    "ages": lambda: SafetyConfig(fresh_obs_s=1.0),
    "follow": lambda: SafetyConfig(follow_stop_s=0.1),
    "hz inf": lambda: NodeConfig(control_hz=math.inf),
    "hz text": lambda: NodeConfig(control_hz="50"),
    "hz bool": lambda: NodeConfig(control_hz=True),
    "hz huge": lambda: NodeConfig(control_hz=10**400),
    "outputs": lambda: NodeConfig(outputs=()),
    "outputs text": lambda: NodeConfig(outputs="chunk"),
    "outputs twice": lambda: NodeConfig(outputs=("chunk", "chunk")),
    "blend float": lambda: NodeConfig(blend_ticks=2.5),
    "prompt long": lambda: NodeConfig(prompt="x" * 5000),
    "prompt control": lambda: NodeConfig(prompt="a\0b"),
    "rate": lambda: NodeConfig(control_hz=49.0).check_robot(arm()),
    "policy state": lambda: arm().check_policy(("front", "hand"), 4, 4),
    "policy actions": lambda: arm().check_policy(("front", "hand"), 3, 7),
    "nested": lambda: build(
        RobotConfig, {"name": "a", "cameras": [{"view": "a"}], "state": [], "actions": []}, "a.yaml"
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    with pytest.raises(ConfigError) as error:
        REFUSED[case]()
    assert error.value.thing and (error.value.expected is not None or error.value.found is not None)


def test_whole_numbers_and_lists_are_taken():
    node = build(NodeConfig, {"control_hz": 20, "outputs": ["chunk"]}, "node.yaml")
    assert node.control_hz == 20.0 and isinstance(node.control_hz, float) and node.outputs == ("chunk",)


def test_config_has_no_mutable_defaults():
    for cls in CLASSES:
        assert cls.__dataclass_params__.frozen
    assert robot_config.TOPIC.fullmatch("~/prompt") and not robot_config.TOPIC.fullmatch("a//b")
