"""A recorded demo with the bundled policy, made once for all tests of the replay."""

import pytest

from flashrt_ros.evaluation.rollout import load_policy
from flashrt_ros.replay.demo_recording import record_demo

NOISE, SEEDS, STEPS = 7, (500_000, 500_001), 24


@pytest.fixture(scope="session")
def demo_bag(tmp_path_factory):
    """Two short episodes of the tabletop task in closed loop: pictures, states, prompts and what the policy commanded."""
    bag = tmp_path_factory.mktemp("recorded") / "demo"
    record_demo(bag, load_policy().predict, SEEDS, noise=NOISE, max_steps=STEPS)
    return bag
