"""ObservationBuilder: what an observation holds, one log line per change, counters, run-time limits, reset."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.arm import PERIOD_S, Rig, arm, camera

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import NS
from flashrt_ros.inputs.observation import Observation


def test_an_observation_holds_the_newest_of_all():
    rig = Rig()
    rig.run(0.1)
    rig.clock.advance(0.001)
    rig.send_image("front", stamp_ns=7 * NS)
    rig.send_image("hand", stamp_ns=7 * NS + 1000)
    rig.clock.advance(0.001)
    rig.send_state(positions=[0.1, 0.2, 0.3], stamp_ns=8 * NS)
    got = rig.snapshot()
    assert isinstance(got, Observation)
    assert got.stamps == {"front": 7 * NS, "hand": 7 * NS + 1000, "state": 8 * NS} and got.stamp_ns == 7 * NS
    assert np.allclose(got.state, [0.1, 0.2, 0.3]) and got.state.dtype == np.float32
    assert got.prompt == "stack the blocks" and got.seq == 1
    assert got.age_s(rig.clock.now_ns()) == pytest.approx(0.001)
    assert got.images[0] is rig.obs.images["front"].frame.image  # no copy on the control thread
    assert rig.snapshot() == []  # nothing new


def test_one_line_per_change_of_state():
    rig = Rig(arm(cameras=(camera("front", encodings=("rgb8",)), camera("hand"))))
    for encoding in ["rgb8", *["bgr8"] * 50, *["rgb8"] * 5]:
        rig.send_image("front", encoding=encoding)
    for length in [0] * 20:
        rig.send_image("front", data=bytes(length))
    lines = rig.log.lines
    assert [line.split(":")[0] for line in lines] == ["refused", "front accepted again", "refused"]
    assert "F05 wrong_encoding" in lines[0] and "F07 short_image" in lines[2]
    assert rig.obs.counters == {"F05": 50, "F07": 20}


def test_limits_change_at_run_time():
    rig = Rig()
    rig.run(0.5)
    rig.paused = {"state"}
    rig.obs.safety = dataclasses.replace(rig.obs.safety, max_state_age_s=0.3, limits_factor=10.0)
    rig.run(0.2)
    assert "F15" not in rig.health.active
    assert rig.send_state(positions=[5.0, 0.0, 0.0]) is None
    rig.obs.safety = dataclasses.replace(rig.obs.safety, limits_factor=1.0)
    assert rig.send_state(positions=[1.1, 0.0, 0.0]).id == "F17"


def test_reset_forgets_messages_but_not_the_prompt():
    rig = Rig()
    rig.run(0.3)
    rig.send_image("front", encoding="x")
    rig.obs.reset()
    assert rig.ids() == set() and {r.id for r in rig.snapshot()} == {"F01", "F15"}
    assert rig.obs.prompt and rig.obs.counters["F05"] == 1
    rig.run(0.3)
    assert isinstance(rig.snapshot(), Observation)


def test_status_has_ages_and_rates():
    rig = Rig()
    before = rig.obs.status(rig.clock.now_ns())
    assert before["front"] == {"age_s": None, "hz": 0.0} and before["state"] == {"age_s": None}
    rig.run(2.0)
    status = rig.obs.status(rig.clock.now_ns())
    assert status["hand"]["hz"] == pytest.approx(25, abs=1) and status["state"]["age_s"] == pytest.approx(PERIOD_S)


def test_unknown_view_is_a_wiring_error():
    rig = Rig()
    with pytest.raises(KeyError):
        rig.obs.put_image("side", 1, 1, "rgb8", 3, b"abc", 1)
    with pytest.raises(ConfigError):
        Rig(views=("front",))
