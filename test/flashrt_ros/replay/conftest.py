"""A recorded demo with the bundled policy, made once for all tests of the replay."""

import pytest
from support.replay_bags import demo_recording

from flashrt_ros.config.config_file import load_robot
from flashrt_ros.evaluation.rollout import load_policy

NOISE, SEEDS, STEPS = 7, (500_000, 500_001), 24


@pytest.fixture(scope="session")
def demo_bag(tmp_path_factory):
    """Two short episodes of the tabletop task in closed loop: pictures, states, prompts and what the policy commanded."""
    recording = demo_recording(load_policy().predict, load_robot("tabletop"), SEEDS, NOISE, max_steps=STEPS)
    return recording.write(tmp_path_factory.mktemp("recorded") / "demo")
