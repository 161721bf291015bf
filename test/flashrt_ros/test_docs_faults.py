"""docs/faults.md holds the table that the command prints; docs/robots.md names only what exists."""

import json
import re
from dataclasses import fields

from support.checkers import ROOT

from flashrt_ros.cli import main
from flashrt_ros.config.config_file import robot_names
from flashrt_ros.config.settings import ActionDim, CameraConfig, RobotConfig, SafetyConfig, StateDim
from flashrt_ros.control.faults import FAULTS, levels_markdown, table_markdown


def test_the_page_ends_with_the_table():
    page = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    table = levels_markdown() + "\n" + table_markdown()
    assert page.endswith(table), "run: python -m flashrt_ros.control.health --table, and put it at the end of docs/faults.md"
    assert "flashrt_ros.control.health --table" in page.removesuffix(table)


def test_the_command_prints_the_table(capsys):
    assert main(["health", "--table", "--markdown"]) == 0
    assert capsys.readouterr().out == levels_markdown() + "\n" + table_markdown()
    assert main(["health", "--table", "--json"]) == 0
    assert '"id": "F90"' in capsys.readouterr().out
    assert main(["health", "f04", "F20"]) == 0
    shown = capsys.readouterr().out
    assert "frozen_image" in shown and "robot_not" in shown and "camera_slow" not in shown
    for one in ("f4", "4", "F04"):
        assert main(["health", one, "--json"]) == 0
        assert [row["id"] for row in json.loads(capsys.readouterr().out)] == ["F04"]
    assert main(["health"]) == 0 and "coast" in capsys.readouterr().out
    assert main(["health", "F99"]) == 2 and "F90" in capsys.readouterr().err


def test_every_row_is_in_the_table_once():
    lines = table_markdown().splitlines()
    assert [line[2:5] for line in lines if re.match(r"\| F\d\d ", line)] == list(FAULTS)


def test_robots_page_names_settings_that_exist():
    text = (ROOT / "docs/robots.md").read_text(encoding="utf-8")
    known = {f.name for cls in (RobotConfig, CameraConfig, StateDim, ActionDim, SafetyConfig) for f in fields(cls)}
    known |= {"sensor_msgs", "position", "velocity", "effort", "delta", "discrete", *robot_names()}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)(?:: [^`]*)?`", text))
    assert named <= known | {"rgb8"}, named - known
    assert all(f"`{name}`" in text for name in robot_names())
