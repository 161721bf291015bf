"""Playback: ticks in, commands out, without time and without a worker."""

import numpy as np
import pytest

from flashrt_core.runtime.playback import Playback
from flashrt_core.runtime.rtc_config import RTCConfig


def ramp(start, rows=4):
    return start + np.arange(float(rows))[:, None]


def test_rows_go_to_their_ticks():
    play = Playback(RTCConfig())
    assert play.step() is None and play.tick == 1
    assert play.take(ramp(0), executed=1) == 0
    assert [play.step()[0] for _ in range(3)] == [1, 2, 3] and play.index() is None


def test_a_hold_cannot_be_changed_by_the_caller():
    play = Playback(RTCConfig(), anchor=np.array([2.0]))
    for _ in range(5):
        action = play.step()
        assert action[0] == 2.0
        action[:] = 99.0
    assert play.held_in_row == 5


def test_freeze_forgets_the_chunks_of_another_time():
    play = Playback(RTCConfig(splice="temporal_fusion"))
    play.take(ramp(500.0, 20), 0)
    assert play.step()[0] == 500
    play.freeze()
    assert [play.step()[0] for _ in range(2)] == [500, 500]  # no way to rest: the robot stands already
    play.take(ramp(0.0), 0)
    assert play.step()[0] == 0


@pytest.mark.parametrize("splice", ["linear", "quintic"])
def test_a_join_from_inside_the_way_to_rest_follows_it(splice):
    """Two ticks into the ramp (steps .75 .5 | .25 0): the old side of the blend goes on with .25, it does not start anew."""
    play = Playback(RTCConfig(splice=splice, blend_steps=3))
    play.take(ramp(0.0), 0)
    out = [play.step()[0] for _ in range(6)]
    assert out[-1] == 4.25
    play.take(np.full((4, 1), 4.5), 0)
    assert play.step()[0] == pytest.approx(4.5), "both sides are at 4.5 now"


def test_fusion_ages_count_ticks_between_requests_only_of_older_chunks():
    play = Playback(RTCConfig(splice="temporal_fusion", fusion_decay=np.log(2.0)))
    play.take(np.full((9, 1), 9.0), 0)
    play.step(), play.step()
    play.take(np.full((9, 1), 0.0), 0)  # age of the other: 2 ticks, weight 1/4
    assert play.step()[0] == pytest.approx(9 * 0.25 / 1.25)
