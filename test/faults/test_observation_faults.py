"""Rows F01 to F13 of the fault matrix at the level of the observations: each injected, seen and in time."""

from __future__ import annotations

import array
import io

import numpy as np
import pytest
from support.arm import PERIOD_S, SIDE, Rig, arm, camera, running_rig, with_safety

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import NS
from flashrt_ros.control.health import Level
from flashrt_ros.inputs.image_decode import MAX_BYTES
from flashrt_ros.inputs.observation import Observation, ObservationBuilder

T = PERIOD_S
OK, NOTE, COAST, HOLD = Level.OK, Level.NOTE, Level.COAST, Level.HOLD
EPS = 1e-9


@pytest.fixture
def rig():
    return running_rig()


def test_F01_all_cameras_stop(rig):
    limit = rig.robot.safety.max_obs_age_s
    rig.paused = {"front", "hand"}
    last = rig.obs.images["front"].frame.received_ns
    rig.until("F01", COAST, limit + T + EPS)
    age = (rig.clock.now_ns() - last) / NS
    assert limit < age <= limit + T + EPS
    assert "F02" not in rig.health.active
    reason = rig.health.to_status()["reason"]
    assert "front/image" in reason and "hand/image" in reason
    assert {r.id for r in rig.snapshot()} >= {"F01"}
    rig.paused = set()
    rig.still_good()


def test_F02_one_view_stops(rig):
    rig.paused = {"hand"}
    rig.until("F02", COAST, rig.robot.safety.max_obs_age_s + T + EPS)
    assert "F01" not in rig.health.active
    reason = rig.health.to_status()["reason"]
    assert "hand/image" in reason and "front/image" not in reason
    assert not isinstance(rig.snapshot(), Observation)
    rig.paused = set()
    rig.still_good()


def test_F02_no_request_with_a_view_that_never_came():
    rig = Rig()
    rig.paused = {"hand"}
    rig.run(0.2)
    assert "F02" in {r.id for r in rig.snapshot()}


def test_F03_camera_drops_to_3_hz(rig):
    requests = []

    def run(seconds):
        for _ in range(round(seconds / T)):
            rig.paused = set() if rig.ticks % 16 == 0 else {"front", "hand"}
            level = rig.tick()
            got = rig.snapshot()
            if isinstance(got, Observation):
                requests.append((rig.clock.now_ns(), got))
            assert level <= NOTE, rig.health.active
        return level

    run(1.0 + T)
    assert rig.health.active.get("F03") == NOTE  # within a second
    run(3.0)
    hz = rig.obs.status(rig.clock.now_ns())["front"]["hz"]
    assert 2.9 <= hz <= 4.1
    reason = rig.health.to_status()["reason"]
    assert "Hz" in reason and "fastdds_large_images.xml" in reason
    assert 10 <= len(requests) <= 15  # one per frame, never the same frame twice
    assert len({got.received_ns for _, got in requests}) == len(requests)
    assert all(got.age_s(at) <= rig.robot.safety.fresh_obs_s for at, got in requests)


@pytest.mark.parametrize("frozen", ["front", "hand"])
def test_F04_frozen_image(rig, frozen):
    picture, pixels = rig.picture, rig.picture(frozen)
    rig.picture = lambda view: pixels if view == frozen else picture(view)
    spent = rig.until("F04", HOLD, 1.0)
    assert spent > 0.5
    reason = rig.health.to_status()["reason"]
    assert "frozen" in reason and frozen in reason
    assert "F04" in {r.id for r in rig.snapshot()}
    rig.picture = picture
    rig.still_good()


def test_F04_needs_a_moving_state(rig):
    pixels = rig.picture("front")
    rig.picture = lambda view: pixels
    rig.moving = False
    assert rig.run(5.0) == OK


def test_F04_counts_from_the_start_of_the_motion(rig):
    """A robot that stood still for longer than the limit and starts to move has not shown a frozen camera yet."""
    picture, pixels = rig.picture, rig.picture("front")
    rig.picture, rig.moving = (lambda view: pixels), False
    assert rig.run(2.0) == OK
    rig.moving = True
    assert rig.run(0.5) == OK
    rig.picture = picture
    rig.still_good()


def test_F04_a_camera_without_noise_is_seen_at_any_place(rig):
    """Every pixel of a small image counts, so one that changes is enough."""
    rig.picture = lambda view: (
        np.full((SIDE, SIDE, 3), 100, np.uint8)
        + 50
        * np.eye(SIDE, dtype=np.uint8)[..., None]
        * (np.arange(SIDE) == rig.ticks // 2 % SIDE)[:, None, None].astype(np.uint8)
    )
    assert rig.run(3.0) == OK


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "16UC1", "yuv422", "", "rgb8 ", "rgba8\0"])
def test_F05_wrong_encoding(encoding):
    rig = Rig(arm(cameras=(camera("front", encodings=("rgb8",)), camera("hand"))))
    report = rig.send_image("front", encoding=encoding)  # the very first message
    assert report.id == "F05" and "front/image" in report.reason and "rgb8" in report.reason
    assert rig.obs.images["front"].frame is None
    rig.paused = {"front"}
    assert rig.tick() >= HOLD and "F05" in rig.health.active  # one period after the message: activation is refused
    rig.paused = set()
    rig.still_good()
    rig.send_image("front", encoding=encoding)
    rig.paused = {"front"}
    assert rig.tick() == HOLD
    assert rig.obs.counters["F05"] == 2


@pytest.mark.parametrize(
    "config, size, good",
    [
        ({"resize": "exact"}, (SIDE, SIDE), True),
        ({"resize": "exact"}, (2 * SIDE, 2 * SIDE), False),
        ({"resize": "pad"}, (2 * SIDE, 3 * SIDE), True),
        ({"resize": "pad", "width": 48, "height": 32}, (32, 48), True),
        ({"resize": "pad", "width": 48, "height": 32}, (48, 32), False),
        ({"resize": "pad", "width": 48}, (32, 49), False),
    ],
)
def test_F06_wrong_size(config, size, good):
    rig = Rig(arm(cameras=(camera("front", **config), camera("hand"))))
    height, width = size
    report = rig.send_image("front", height=height, width=width, step=3 * width, data=bytes(3 * height * width))
    if good:
        assert report is None and rig.obs.images["front"].frame.image.shape == (SIDE, SIDE, 3)
    else:
        assert report.id == "F06" and rig.obs.images["front"].frame is None
        rig.paused = {"front"}
        rig.tick()
        assert rig.health.active["F06"] == HOLD


@pytest.mark.parametrize("length", [0, 1, 3 * SIDE, 3 * SIDE * SIDE - 1])
@pytest.mark.parametrize(
    "kind", [bytes, bytearray, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)]
)
def test_F07_short_data(rig, length, kind):
    report = rig.send_image("front", data=kind(bytes(length)))
    assert report.id == "F07"
    rig.paused = {"front"}
    rig.tick()
    assert rig.health.active["F07"] == COAST
    rig.paused = set()
    rig.still_good()


@pytest.mark.parametrize("encoding, order", [("rgb8", "RGB"), ("bgr8", "BGR"), ("rgba8", "RGBA"), ("bgra8", "BGRA")])
@pytest.mark.parametrize("padding", [0, 1, 7, 64])
def test_F08_padded_step(encoding, order, padding):
    rig = Rig()
    rgb = rig.picture("front")
    channels = {"R": rgb[..., 0], "G": rgb[..., 1], "B": rgb[..., 2], "A": np.full(rgb.shape[:2], 9, np.uint8)}
    rows = np.stack([channels[c] for c in order], axis=-1).reshape(SIDE, -1)
    data = np.full((SIDE, rows.shape[1] + padding), 255, np.uint8)
    data[:, : rows.shape[1]] = rows
    assert rig.send_image("front", encoding=encoding, step=data.shape[1], data=data.tobytes()) is None
    assert np.array_equal(rig.obs.images["front"].frame.image, rgb)


@pytest.mark.parametrize("changes", [
    {"height": 2**31}, {"width": 2**31}, {"height": 2**32 - 1, "width": 2**32 - 1}, {"height": 0}, {"width": 0},
    {"step": 0}, {"step": 3 * SIDE - 1}, {"step": 2**32 - 1}, {"height": -1}, {"width": 16385, "step": 3 * 16385},
    {"height": 16384, "step": MAX_BYTES // 16384 + 1}, {"height": 2**63}, {"step": 2.5}, {"width": None},
])  # fmt: skip
def test_F09_absurd_dims(changes):
    rig = Rig(arm(cameras=(camera("front", resize="pad"), camera("hand"))))
    report = rig.send_image("front", **changes)
    assert report.id == "F09", report
    rig.paused = {"front"}
    rig.tick()
    assert rig.health.active["F09"] == COAST


def test_F09_compressed_bomb_is_refused_by_its_header():
    from PIL import Image

    rig = Rig(arm(cameras=(camera("front", transport="compressed", resize="pad"), camera("hand"))))
    small = io.BytesIO()
    Image.new("1", (16384, 16384)).save(small, "PNG")  # 35 KB that would decode to 805 MB
    assert len(small.getvalue()) < 100_000
    assert rig.obs.put_compressed("front", small.getvalue(), 1).id == "F09"


def test_F10_stamps(rig):
    """Zero, future or going back: ages are those of the receipt; skewed views are not aligned."""
    frame = rig.obs.images["front"].frame
    rig.send_image("front", stamp_ns=0)
    rig.send_image("hand", stamp_ns=0)
    after = rig.obs.images["front"].frame
    assert after.stamp_ns == 0 and after.received_ns == rig.clock.now_ns() > frame.received_ns
    rig.paused = {"front", "hand"}
    assert rig.tick() == NOTE and "F10" in rig.health.active  # both without stamps: compared by receipt, still aligned
    assert isinstance(rig.snapshot(), Observation)
    rig.paused = set()
    rig.still_good()
    rig.send_image("front", stamp_ns=0)  # one without, one with: by receipt as well
    rig.send_image("hand")
    assert isinstance(rig.snapshot(), Observation)
    rig.still_good()
    rig.stamp_offset_ns = {"front": 3600 * NS}
    assert "future" in _stamp_reason(rig)
    rig.run(0.1)
    rig.stamp_offset_ns = {"front": -3600 * NS}
    assert "went back" in _stamp_reason(rig)
    rig.paused = {"front", "hand"}
    rig.tick()
    assert rig.health.active["F10"] == COAST  # an hour apart: no request is made with these
    assert not isinstance(rig.snapshot(), Observation)
    rig.stamp_offset_ns, rig.paused = {}, set()
    rig.still_good()


def _stamp_reason(rig: Rig) -> str:
    rig.send_image("front", ros_now_ns=rig.clock.now_ns())
    rig.send_image("hand")
    return rig.obs.images["front"].stamp_fault.reason


def test_F11_skewed_views(rig):
    limit = rig.robot.safety.max_skew_s
    rig.stamp_offset_ns = {"hand": -round(limit * NS)}
    assert rig.run(0.5) == OK  # exactly at the limit
    rig.stamp_offset_ns = {"hand": -round(limit * NS) - 2}
    rig.ticks += rig.ticks % 2
    assert rig.until("F11", COAST, T + EPS) <= T + EPS
    assert [r.id for r in rig.snapshot()] == ["F11"]
    rig.stamp_offset_ns = {}
    rig.still_good()


def test_F11_views_that_never_come_together(rig):
    """Two slow cameras in turn: no request is ever possible, which must not stay a secret."""
    rig.clock.advance(T)
    requests, seen, publish = [], [], rig.publish

    def in_turn():
        rig.paused = {"hand"} if rig.ticks % 8 == 0 else {"front"} if rig.ticks % 8 == 4 else {"front", "hand"}
        publish()

    rig.publish = in_turn
    for _ in range(round(2.0 / T)):
        rig.tick()
        requests.append(rig.snapshot())
        seen.append(rig.health.active.get("F11"))
    assert not any(isinstance(r, Observation) for r in requests[4:])
    limit = rig.robot.safety.max_obs_age_s
    assert limit - 4 * T <= seen.index(COAST) * T <= limit + 4 * T  # since they last were together
    rig.publish, rig.paused = publish, set()
    rig.still_good()


@pytest.mark.parametrize("value, name", [(4, "black"), (12, "black"), (255, "saturated"), (120, "constant")])
@pytest.mark.parametrize("hold", [False, True])
def test_F12_no_picture(value, name, hold):
    rig = Rig(with_safety(arm(), hold_on_constant=hold))
    rig.run(1.2)
    good = rig.picture
    noise = np.random.default_rng(1)
    rig.picture = lambda view: (
        np.clip(value - noise.integers(0, 4, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        if view == "hand"
        else good(view)
    )
    rig.ticks += rig.ticks % 2
    rig.tick()
    assert rig.health.active["F12"] == NOTE and name in rig.health.to_status()["reason"]
    if hold:
        assert 0.9 <= rig.until("F12", HOLD, 1.0 + 2 * T) + T
        assert not isinstance(rig.snapshot(), Observation)
    else:
        assert rig.run(3.0) == NOTE
        assert isinstance(rig.snapshot(), Observation)
    rig.picture = good
    rig.still_good()


def test_F13_camera_names():
    robot = arm()
    for views in (("front", "wrist"), ("front", "hand", "side"), ("front",)):
        with pytest.raises(ConfigError) as error:
            ObservationBuilder(robot, image_size=SIDE, clock=None, views=views)
        assert all(v in str(error.value) for v in set(views) - {"front"})
    rig = Rig(views=("hand", "front"))  # the policy's order counts, not the file's
    rig.picture = lambda view: np.full((SIDE, SIDE, 3), 40 if view == "hand" else 200, np.uint8)
    rig.run(0.2)
    assert [im[0, 0, 0] for im in rig.snapshot().images] == [40, 200]
