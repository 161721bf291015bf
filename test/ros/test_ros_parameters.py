"""Parameters given at the start, set while the policy loads and set at run time are in force, or refused with a reason."""

from __future__ import annotations

import threading
import time

import pytest
from flashrt_ros.msg import PolicyStatus
from rig_ros import Inside, script, until
from std_msgs.msg import String

import flashrt_ros.node as module
from flashrt_ros import qos

NAME = "/settings"


def inside(probe, **parameters):
    return Inside(probe, module, NAME[1:], **{k.replace("__", "."): v for k, v in parameters.items()})


def test_limits_given_at_the_start_are_in_force(probe):
    with inside(probe, limits__joint1__v_max=0.125, limits__joint2__a_max=3.5) as node:
        probe.to("configure", name=NAME)
        actions = node.stack.config.robot.actions
        assert (actions[0].v_max, actions[1].a_max, actions[2].v_max) == (0.125, 3.5, 1.0)
        assert node.stack.loop.outlet.guard.robot.actions == actions and node.stack.runner.config.v_max[0] == 0.125
        assert probe.get("limits.joint1.v_max", NAME) == 0.125
        assert probe.set(NAME, limits__joint1__v_max=0.25).successful  # what was set later outlives a new configuration
        probe.to("cleanup", "configure", name=NAME)
        assert node.stack.config.robot.actions[0].v_max == 0.25 == probe.get("limits.joint1.v_max", NAME)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("limits__jiont1__v_max", 0.1, "limits.joint1.v_max"),
        ("limits__joint1__vmax", 0.1, "limits.joint1.v_max"),
        ("limits__joint1__v_max", -1.0, "v_max"),
        ("limits__joint1__v_max", 1, "decimal point"),
    ],
    ids=["joint", "limit", "range", "type"],
)
def test_F61_limits_that_cannot_be_are_refused_at_configure(probe, name, value, words):
    """The robot's file tells the names: configure is the first to know a misspelt one, and must not ignore it."""
    with inside(probe, **{name: value}) as node:
        assert not probe.change("configure", NAME)
        assert "configure failed" in node.phase and words in node.phase
        assert probe.state(NAME) == "unconfigured"


def test_a_value_that_is_the_default_still_beats_the_file(probe):
    """The bench's file says 0.25 s and 0.2 s; the operator's own word is the class's default."""
    with inside(probe, safety__max_state_age_s=0.05, safety__fresh_obs_s=0.2) as node:
        probe.to("configure", name=NAME)
        safety = node.stack.config.robot.safety
        assert (safety.max_state_age_s, safety.fresh_obs_s, safety.max_skew_s) == (0.05, 0.2, 0.2)
    with inside(probe, control_hz=50.0, robot="tabletop") as node:  # whose rate is 20 Hz
        assert not probe.change("configure", NAME) and "control_hz" in node.phase


def test_what_is_set_while_the_policy_loads_is_in_force(probe):
    with inside(probe, script=script(start_s=2.0)) as node:
        done = []
        thread = threading.Thread(target=lambda: done.append(probe.change("configure", NAME)))
        thread.start()
        until(lambda: node.phase == "loading script", 5)
        assert probe.set(NAME, prompt="turn left", splice="linear", safety__anchor_gap=0.01).successful
        thread.join(10)
        assert done == [True] and node.stack.observations.prompt == "turn left"
        assert node.stack.runner.config.splice == "linear" and node.stack.loop.outlet.guard.anchor_gap == 0.01
        assert probe.get("prompt", NAME) == "turn left"


def test_F86_prompts_at_run_time(probe):
    with inside(probe) as node:
        probe.to("configure", name=NAME)
        good = "Nimm den grünen Würfel 🟩"
        assert probe.set(NAME, prompt=good).successful and node.stack.observations.prompt == good
        for bad in ("", "   ", "字" * 2000, "a\x7fb", "a\x85b", "x" * 5000):
            result = probe.set(NAME, prompt=bad)
            assert not result.successful and "prompt" in result.reason, ascii(bad)[:20]
            assert probe.get("prompt", NAME) == good == node.stack.observations.prompt
        publisher = probe.node.create_publisher(String, f"{NAME}/prompt", qos.PROMPT)
        until(publisher.get_subscription_count, 5)
        publisher.publish(String(data="by topic"))
        until(lambda: node.stack.observations.prompt == "by topic", 5)
        probe.node.destroy_publisher(publisher)
        assert probe.set(NAME, splice="linear").successful and node.stack.observations.prompt == "by topic"
        assert probe.set(NAME, prompt=good).successful  # as it was set before
        assert node.stack.observations.prompt == good


def test_after_a_failed_configure_parameters_are_answered(probe):
    """Nothing is in force then: a change must not be judged with what was tried."""
    with inside(probe, script=script(start_error="ConfigError")) as node:
        assert not probe.change("configure", NAME) and "scripted start error" in node.phase
        assert probe.set(NAME, control_hz=20.0).successful  # another rate than the robot's, said at configure
        assert probe.set(NAME, script=script()).successful
        assert not probe.change("configure", NAME) and "control_hz" in node.phase
        assert probe.set(NAME, control_hz=50.0).successful
        probe.to("configure", name=NAME)


def test_settings_of_the_node_itself_change_while_unconfigured(probe):
    with inside(probe, status_hz=1.0) as node:
        heard = probe.listen(PolicyStatus, f"{NAME}/status", qos.STATUS)
        assert probe.set(NAME, status_hz=20.0, autostart=True).successful
        until(lambda: node.lifecycle == "inactive", 10, "autostart")
        del heard[:]
        start = time.monotonic()
        until(lambda: len(heard) >= 30, 20)
        assert time.monotonic() - start < 15.0  # at 1 Hz it would be 30 s
        probe.forget()
