"""Settings that cannot be are refused; drawn latencies come from the seed."""

from dataclasses import replace

import pytest
from support.replay_bags import arm_robot, scripted_settings

from flashrt_core.errors import ConfigError
from flashrt_ros.config.config_file import load_node
from flashrt_ros.replay.settings import Latency


@pytest.mark.parametrize("text", ["soon", "", "-1", "120..40", "1e9", "nan", "10..", "40..99999999"])
def test_bad_latency(text):
    with pytest.raises(ConfigError, match="latency"):
        Latency(text)


def test_good_latencies():
    assert Latency("measured").measured and Latency("80").seconds(0)(7) == 0.08
    draw, again = Latency("40..120").seconds(5), Latency("40..120").seconds(5)
    values = [draw(i) for i in range(100)]
    assert values == [again(i) for i in reversed(range(100))][::-1]  # by number, in whatever order they are asked for
    assert 0.04 <= min(values) < 0.05 and 0.11 < max(values) <= 0.12


def test_bad_settings():
    good = scripted_settings(arm_robot())
    for change in ({"seed": -1}, {"seed": 2**31}, {"threads": 0}, {"gap_s": 0.05}, {"node": load_node(control_hz=50.0)}):
        with pytest.raises(ConfigError):
            replace(good, **change)
