"""Launch files compile, declare what they use and name only what exists, on a stand-in for the launch API (double).

launch and launch_ros are part of a ROS install and not of the wheels; the last test runs with the real ones.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
import types
from pathlib import Path

import pytest
from support.checkers import ROOT

from flashrt_ros.config.settings import NodeConfig, PolicyConfig

FILES = sorted((ROOT / "launch").glob("*.launch.py"))
NODE_FILES = [f for f in FILES if f.name != "replay.launch.py"]  # that one starts no node: test_replay_launch.py
USED: list[str] = []  # LaunchConfiguration names that were asked for


class Recorded:
    """Any action of the launch API: keeps what it was made with."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs


class Configuration(Recorded):
    def perform(self, context):
        USED.append(self.args[0])
        return context[self.args[0]]  # KeyError: an argument that was not declared


@pytest.fixture
def launch_api(monkeypatch):
    """Modules `launch` and `launch_ros` in which every action is a class of its own that records."""
    USED.clear()
    names = {
        "launch": ("LaunchContext", "LaunchDescription"),
        "launch.actions": (
            "DeclareLaunchArgument", "ExecuteProcess", "LogInfo", "OpaqueFunction", "SetEnvironmentVariable",
        ),
        "launch.substitutions": (),
        "launch_ros": (),
        "launch_ros.actions": ("LifecycleNode",),
        "launch_ros.parameter_descriptions": ("ParameterValue",),
    }  # fmt: skip
    for module, classes in names.items():
        made = types.ModuleType(module)
        for name in classes:
            setattr(made, name, type(name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, module, made)
    sys.modules["launch.substitutions"].LaunchConfiguration = Configuration
    monkeypatch.delitem(sys.modules, "flashrt_ros.launching", raising=False)
    yield
    sys.modules.pop("flashrt_ros.launching", None)


def describe(file: Path):
    space: dict = {}
    exec(compile(file.read_text(), str(file), "exec"), space)  # noqa: S102 - as ros2 launch does
    return space["generate_launch_description"]().args[0]


def run(file: Path, **given: str):
    """(declared arguments, actions) with arguments given as on the command line."""
    entries = describe(file)
    declared = {e.args[0]: e.kwargs for e in entries if type(e).__name__ == "DeclareLaunchArgument"}
    context = {name: kwargs["default_value"] for name, kwargs in declared.items()} | given
    assert set(given) <= set(declared), "an argument that --show-args does not list"
    opaque = next(e for e in entries if type(e).__name__ == "OpaqueFunction")
    return declared, opaque.kwargs["function"](context, **opaque.kwargs["kwargs"])


def of(actions, kind: str):
    return [a for a in actions if type(a).__name__ == kind]


def test_there_are_the_launch_files_of_the_documentation():
    assert {"pi05.launch.py", "demo.launch.py"} <= {f.name for f in FILES}
    named = set(re.findall(r"(\w+\.launch\.py)", (ROOT / "docs" / "ros2.md").read_text()))
    assert named <= {f.name for f in FILES}


@pytest.mark.parametrize("file", NODE_FILES, ids=lambda f: f.name)
def test_arguments_and_parameters_exist(launch_api, file):
    declared, actions = run(file)
    assert all(k["description"] and isinstance(k["default_value"], str) for k in declared.values())
    assert set(USED) <= set(declared)
    node = of(actions, "LifecycleNode")[0].kwargs
    assert node["package"] == "flashrt_ros" and (ROOT / "scripts" / node["executable"]).is_file()
    known = {"robot", "policy.file", "autostart", "use_sim_time", *(f.name for f in dataclasses.fields(NodeConfig))}
    known |= {f"policy.{f.name}" for f in dataclasses.fields(PolicyConfig)}
    parameters = node["parameters"][0]
    assert set(parameters) <= known
    for name, value in parameters.items():
        assert value.args[0].args[0] in declared, name
    defaults = {n: declared[v.args[0].args[0]]["default_value"] for n, v in parameters.items()}
    assert (ROOT / "config" / "robots" / f"{defaults['robot']}.yaml").is_file()
    assert (ROOT / "config" / "policies" / f"{defaults['policy.file']}.yaml").is_file()


@pytest.mark.parametrize("file", NODE_FILES, ids=lambda f: f.name)
def test_discovery_is_this_machine_only_unless_asked(launch_api, file):
    _, actions = run(file)
    assert of(actions, "SetEnvironmentVariable")[0].args == ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert not of(actions, "LogInfo")
    _, actions = run(file, discovery="SUBNET")
    assert of(actions, "SetEnvironmentVariable")[0].args[1] == "SUBNET"
    assert "WARNING" in of(actions, "LogInfo")[0].kwargs["msg"]


def test_arguments_reach_the_node(launch_api):
    _, actions = run(ROOT / "launch" / "pi05.launch.py", params_file="my.yaml", log_level="debug", prompt="stack")
    node = of(actions, "LifecycleNode")[0].kwargs
    assert node["parameters"][1] == "my.yaml" and node["ros_arguments"] == ["--log-level", "debug"]
    assert "prompt" in node["parameters"][0]
    _, actions = run(ROOT / "launch" / "pi05.launch.py")
    unsaid = of(actions, "LifecycleNode")[0].kwargs["parameters"][0]  # what nobody says stays as the files have it
    assert set(unsaid) == {"robot", "policy.file", "autostart", "use_sim_time"}


def test_demo_starts_simulation_and_node_by_itself(launch_api):
    declared, actions = run(ROOT / "launch" / "demo.launch.py", episodes="3")
    assert declared["autostart"]["default_value"] == "true" and declared["robot"]["default_value"] == "tabletop"
    command = of(actions, "ExecuteProcess")[0].kwargs["cmd"]
    assert command[1:3] == ["-m", "flashrt_ros.sim.bridge"] and command[3:] == ["--episodes", "3"]
    bridge = ROOT / "flashrt_ros" / "sim" / "bridge.py"
    assert '"--episodes"' in bridge.read_text()


@pytest.mark.parametrize("file", NODE_FILES, ids=lambda f: f.name)
def test_with_the_real_launch(file):
    launch = pytest.importorskip("launch")
    pytest.importorskip("launch_ros")
    importlib.invalidate_caches()
    space: dict = {}
    exec(compile(file.read_text(), str(file), "exec"), space)  # noqa: S102
    description = space["generate_launch_description"]()
    assert isinstance(description, launch.LaunchDescription)
    assert {"robot", "discovery", "autostart"} <= {a.name for a in description.get_launch_arguments()}
