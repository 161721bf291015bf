"""replay.launch.py starts `flashrt replay` with the arguments given, and every option that it names exists."""

from __future__ import annotations

import importlib
import sys

import pytest
from support.checkers import ROOT
from test_launch_files import describe, launch_api, of  # noqa: F401 - launch_api is a fixture

from flashrt_ros.cli import build_parser

FILE = ROOT / "launch" / "replay.launch.py"


@pytest.fixture(autouse=True)
def fresh():
    """The builder is imported anew, with the launch API of the test."""
    sys.modules.pop("flashrt_ros.launching_replay", None)
    yield
    sys.modules.pop("flashrt_ros.launching_replay", None)


def run(**given: str):
    """(declared arguments, command)."""
    entries = describe(FILE)
    declared = {e.args[0]: e.kwargs for e in entries if type(e).__name__ == "DeclareLaunchArgument"}
    context = {name: kwargs.get("default_value") for name, kwargs in declared.items()} | given
    opaque = next(e for e in entries if type(e).__name__ == "OpaqueFunction")
    (process,) = of(opaque.kwargs["function"](context), "ExecuteProcess")
    return declared, process.kwargs["cmd"]


def test_only_the_bag_has_to_be_given(launch_api):  # noqa: F811
    declared, command = run(bag="my/bag")
    assert [name for name, kwargs in declared.items() if "default_value" not in kwargs] == ["bag"]
    assert all(kwargs["description"] for kwargs in declared.values())
    assert command[:5] == [sys.executable, "-m", "flashrt_ros.cli", "replay", "my/bag"]
    args = build_parser().parse_args(command[3:])
    assert args.robot == "tabletop" and args.latency == "0" and not args.allow_loss and args.checkpoint is None


def test_every_argument_is_an_option_of_the_command(launch_api):  # noqa: F811
    given = {"bag": "a,b", "robot": "panda", "checkpoint": "c", "policy": "p", "profile": "x", "hardware": "host",
             "precision": "fp8", "latency": "40..80", "splice": "none", "prompt": "pick it up", "seed": "3", "jobs": "2",
             "out": "o", "allow_loss": "true"}  # fmt: skip
    declared, command = run(**given)
    assert set(declared) == set(given)
    args = vars(build_parser().parse_args(command[3:]))
    assert [str(b) for b in args.pop("bags")] == ["a", "b"] and args["allow_loss"] is True
    for name in set(given) - {"bag", "allow_loss"}:
        assert str(args[name]) == given[name], name


def test_with_the_real_launch():
    pytest.importorskip("launch_ros")  # this repository has a folder named launch
    launch = importlib.import_module("launch")
    importlib.invalidate_caches()
    space: dict = {}
    exec(compile(FILE.read_text(), str(FILE), "exec"), space)  # noqa: S102
    description = space["generate_launch_description"]()
    assert isinstance(description, launch.LaunchDescription)
    assert {"bag", "robot", "out"} <= {a.name for a in description.get_launch_arguments()}
