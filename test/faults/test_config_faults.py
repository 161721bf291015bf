"""Rows F61, F86 and F90 of the fault matrix: bad settings, bad prompts, errors that would tell too much."""

from __future__ import annotations

import random
import traceback

import pytest
from support.arm import Rig

from flashrt_core.errors import ConfigError
from flashrt_ros.config.config_file import config_folder, load_node, load_policy, load_robot
from flashrt_ros.control.health import Health, Level
from flashrt_ros.inputs.observation import Observation

TABLETOP = (config_folder() / "robots" / "tabletop.yaml").read_text()


@pytest.mark.parametrize("old, new, words", [
    ("control_hz: 20.0", "contrl_hz: 20.0", ["contrl_hz", "did you mean 'control_hz'"]),
    ("topic: wrist/image", "topc: wrist/image", ["cameras[1]", "topc", "did you mean 'topic'"]),
    ("kind: discrete", "kind: discreet", ["actions[6]", "discreet", "did you mean 'discrete'"]),
    ("max_state_age_s: 0.15", "max_state_age_s: 0", ["max_state_age_s", "0.005..10 s", "found 0"]),
    ("max_state_age_s: 0.15", "max_state_age_s: fast", ["max_state_age_s", "a number", "fast"]),
    ("control_hz: 20.0", "control_hz: .inf", ["control_hz", "inf"]),
    ("control_hz: 20.0", "control_hz: [20]", ["control_hz", "a number", "list"]),
    ("control_hz: 20.0", "control_hz: 20.0\ncontrol_hz: 21.0", ["duplicate", "control_hz"]),
    ("control_hz: 20.0", "control_hz: !!python/object:os.system 1", ["tag"]),
    ("control_hz: 20.0", "control_hz: &a 20.0", ["aliases"]),
    ("width: 112", "width: 112.5", ["cameras[0]", "width", "a whole number"]),
    ("name: tabletop", "name: table top", ["robot name"]),
    ("name: eef_x, lower", "name: eef_y, lower", ["eef_y twice"]),
    ("state: joint_states", "state: joint states", ["topics", "state", "a ROS topic name"]),
    ("  - {name: dx, kind: delta, lower: -1.0, upper: 1.0}\n", "  - {name: dx, kind: delta, lower: -1.0}\n", ["upper"]),
    ("actions:", "actions: 3\nextra:", ["extra"]),
])  # fmt: skip
def test_F61_bad_setting_is_named(tmp_path, old, new, words):
    assert old in TABLETOP
    file = tmp_path / "robot.yaml"
    file.write_text(TABLETOP.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_robot(file)
    assert all(word in str(error.value) for word in ["robot.yaml", *words]), error.value
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("load, name, words", [
    (load_robot, "tabeltop", "tabletop"), (load_policy, "pi5", "pi05"), (load_robot, "no/such.yaml", "such.yaml"),
    (load_robot, "../../etc/passwd", "passwd"), (load_node, "missing.yaml", "missing.yaml"), (load_robot, "", "name"),
])  # fmt: skip
def test_F61_unknown_names(load, name, words):
    with pytest.raises(ConfigError, match=words):
        load(name)


def test_F61_damaged_files_give_typed_errors(tmp_path):
    """FAULTS.md, fuzz counts: YAML; here 400 damaged copies of a real file."""
    rng = random.Random(4)
    file = tmp_path / "robot.yaml"
    refused = 0
    for _ in range(400):
        text = list(TABLETOP)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            text[at] = rng.choice(
                ["", "\0", "{", "}", "[", ":", "\n", "-", "9" * 30, "&a", "*a", "!!x", "\t", text[at] * 2]
            )
        file.write_text("".join(text), newline="")
        try:
            load_robot(file)
        except ConfigError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("prompt", [
    "x" * 4097, "x" * 1_000_000, "ü" * 2049, "pick\0up", "pick\x1b[31m up", "a\rb", "a\x7fb", "\x85", "\ud800", "", "   ", "\n",
    None, 7, b"pick",
], ids=ascii)  # fmt: skip
def test_F86_bad_prompt(prompt):
    rig = Rig(prompt="stack the blocks")
    rig.run(0.3)
    report = rig.obs.put_prompt(prompt)
    assert report.id == "F86" and len(report.reason) < 400
    assert rig.tick() == Level.NOTE and rig.health.active == {"F86": Level.NOTE}  # within one period
    assert rig.obs.prompt == "stack the blocks" and rig.obs.counters["F86"] == 1
    got = rig.snapshot()
    assert not isinstance(got, Observation) or got.prompt == "stack the blocks"
    assert rig.tick() == Level.OK
    assert rig.obs.put_prompt("x" * 4096) is None and rig.obs.prompt == "x" * 4096


def test_F86_no_request_without_a_prompt():
    rig = Rig(prompt="")
    rig.run(0.3)
    assert [r.id for r in rig.snapshot()] == ["F86"]
    rig.obs.put_prompt("go")
    assert isinstance(rig.snapshot(), Observation)


SECRETS = ("/home/jane/robot_keys/model.safetensors", "/srv/lab 7/checkpoints/run.yaml", "~jane/.ssh/id_rsa")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("make", [
    lambda p: FileNotFoundError(2, "No such file or directory", p),
    lambda p: RuntimeError(f"cannot open {p!r}: denied"),
    lambda p: ConfigError(repr(p), expected="a file", found="none"),
    lambda p: KeyError(p),
    lambda p: RuntimeError(f"AWS_SECRET_KEY=hunter2 in '{p}'"),
], ids=["OSError", "RuntimeError", "ConfigError", "KeyError", "environment"])  # fmt: skip
def test_F90_errors_carry_file_names_only(secret, make):
    health = Health()
    try:
        raise make(secret)
    except Exception as error:
        health.raise_("F32", error)
        assert secret.split("/")[-1] in health.to_status()["reason"]
        assert traceback.format_exc() not in str(health.to_status())
    text = str(health.to_status()) + str([e.to_json() for e in health.events])
    for part in (
        "/home",
        "/srv",
        "jane/",
        "robot_keys",
        "lab 7",
        ".ssh",
        "hunter2",
        "test_config_faults.py",
        "Traceback",
    ):
        assert part not in text


def test_F90_configuration_errors_do_not_show_folders(tmp_path):
    folder = tmp_path / "very_secret"
    folder.mkdir()
    for name, text in (("a.yaml", "{"), ("b.yaml", "x: 1"), ("c.yaml", "- 1"), ("d.yaml", None)):
        if text is not None:
            (folder / name).write_text(text)
        with pytest.raises(ConfigError) as error:
            load_robot(folder / name)
        assert "very_secret" not in str(error.value) and name in str(error.value)
