"""ImageSlot: what is stored, what is copied, what is refused; compressed images; the rate."""

from __future__ import annotations

import array
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support.arm import arm, camera

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import NS, FakeClock
from flashrt_ros.inputs import image_decode
from flashrt_ros.inputs.image_decode import MAX_BYTES
from flashrt_ros.inputs.image_slot import ImageSlot, picture_look
from flashrt_ros.inputs.observation import ObservationBuilder

RNG = np.random.default_rng(3)


def image_slot(side: int = 32, **config) -> tuple[ImageSlot, FakeClock]:
    clock = FakeClock(50.0)
    return ImageSlot(camera("front", **{"resize": "pad", **config}), side, clock), clock


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_stored_image_is_private_and_read_only(size):
    slot, clock = image_slot()
    pixels = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    data = array.array("B", pixels.tobytes())
    assert slot.put(*size, "rgb8", 3 * size[1], data, 7 * NS) is None
    kept = slot.frame.image.copy()
    for i in range(len(data)):
        data[i] = 0
    assert np.array_equal(slot.frame.image, kept)
    with pytest.raises(ValueError):
        slot.frame.image[0, 0, 0] = 1
    assert slot.frame.stamp_ns == 7 * NS and slot.frame.received_ns == clock.now_ns()


def test_mono8_only_when_configured():
    pixels = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
    slot, _ = image_slot()
    assert slot.put(32, 32, "mono8", 32, pixels.tobytes(), 1).id == "F05"
    slot, _ = image_slot(encodings=("mono8",))
    assert slot.put(32, 32, "mono8", 32, pixels.tobytes(), 1) is None
    assert np.array_equal(slot.frame.image, np.repeat(pixels[..., None], 3, axis=2))


def test_longer_data_is_cut():
    slot, _ = image_slot()
    assert slot.put(32, 32, "rgb8", 96, bytes(96 * 32 + 1000), 1) is None


def test_a_refused_message_keeps_the_last_good_one():
    slot, _ = image_slot()
    slot.put(32, 32, "rgb8", 96, bytes(96 * 32), 1)
    frame = slot.frame
    slot.put(32, 32, "rgb8", 96, b"", 1)
    assert slot.frame is frame and slot.reject.id == "F07" and slot.counters == {"F07": 1}
    slot.put(32, 32, "rgb8", 96, bytes(96 * 32), 1)
    assert slot.reject is None and slot.counters == {"F07": 1}


def test_newest_wins_and_rate_is_measured():
    slot, clock = image_slot()
    for k in range(60):
        clock.advance(1 / 30)
        slot.put(32, 32, "rgb8", 96, bytes([k]) * (96 * 32), clock.now_ns())
    assert slot.frame.seq == 60 and slot.frame.image[0, 0, 0] == 59
    assert slot.hz(clock.now_ns()) == pytest.approx(30, abs=1)
    clock.advance(2.0)
    assert slot.hz(clock.now_ns()) == 0
    fast, clock = image_slot(8)
    for _ in range(2000):
        clock.advance(1 / 1000)
        fast.put(8, 8, "rgb8", 24, bytes(192), clock.now_ns())
    assert fast.hz(clock.now_ns()) == pytest.approx(1000, rel=0.01)


@pytest.mark.parametrize("kind, options, exact", [("PNG", {}, True), ("JPEG", {"quality": 95}, False)])
def test_compressed(kind, options, exact):
    smooth = np.stack([*np.meshgrid(*[np.linspace(0, 255, 32)] * 2), np.full((32, 32), 90.0)], axis=-1).astype(np.uint8)
    slot, _ = image_slot(transport="compressed")
    assert slot.put_compressed(encoded(smooth, kind, **options), 5) is None
    difference = np.abs(slot.frame.image.astype(int) - smooth)
    assert difference.max() == 0 if exact else difference.mean() < 3


def test_compressed_other_kinds():
    slot, _ = image_slot(transport="compressed")
    rgb = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    good = encoded(rgb, "JPEG")
    assert slot.put_compressed(encoded(rgb, "BMP"), 1).id == "F05"
    assert slot.put_compressed(encoded(rgb, "GIF"), 1).id == "F05"
    assert slot.put_compressed(encoded(rgb[..., 0], "PNG"), 1).id == "F05"  # gray, not configured
    assert slot.put_compressed(b"", 1).id in ("F05", "F07")
    assert slot.put_compressed(good[: len(good) // 2], 1).id == "F07"
    assert slot.put_compressed(None, 1).id == "F07"
    alpha = np.dstack([rgb, np.full((32, 32), 7, np.uint8)])
    assert slot.put_compressed(encoded(alpha, "PNG"), 1) is None
    assert np.array_equal(slot.frame.image, rgb)
    gray, _ = image_slot(transport="compressed", encodings=("mono8",))
    assert gray.put_compressed(encoded(rgb[..., 0], "PNG"), 1) is None
    assert gray.put_compressed(good, 1).id == "F05"


def png_header(width: int, height: int) -> bytes:
    """A PNG that says this size and has next to no data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    small = encoded(np.zeros((4, 4, 3), np.uint8), "PNG")
    return small[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + small[33:]


@pytest.mark.parametrize("size, fault", [
    ((4, 4), None), ((8000, 8000), "F09"), ((4096, 4097), "F09"), ((16385, 1), "F09"), ((2**31 - 1, 1), "F09"),
    ((60000, 60000), "F09"), ((4096, 4096), "F07"),
])  # fmt: skip
def test_compressed_size_is_checked_in_the_header(size, fault):
    """Before decoding: with the size allowed, the missing data is what is found."""
    slot, _ = image_slot(transport="compressed")
    report = slot.put_compressed(png_header(*size), 1)
    assert (report and report.id) == fault


def test_compressed_message_over_the_cap():
    slot, _ = image_slot(transport="compressed")
    report = slot.put_compressed(bytes(MAX_BYTES + 1), 1)
    assert report.id == "F09" and "compressed" in report.reason


def test_pillow_is_needed_for_compressed_images_only(monkeypatch):
    monkeypatch.setattr(image_decode, "find_spec", lambda name: None)
    ObservationBuilder(arm(), image_size=8, clock=FakeClock())
    with pytest.raises(ConfigError, match="Pillow"):
        cameras = (camera("front", transport="compressed"), camera("hand"))
        ObservationBuilder(arm(cameras=cameras), image_size=8, clock=FakeClock())


@pytest.mark.parametrize("data", [
    np.zeros((32, 12)), array.array("d", [0.0] * 384), np.zeros((64, 96), np.uint8)[::2], "x" * 3072, [0] * 3072, 7,
], ids=lambda d: type(d).__name__)  # fmt: skip
def test_only_bytes_are_data(data):
    slot, _ = image_slot()
    report = slot.put(32, 32, "rgb8", 96, data, 1)
    assert report.id == "F07" and "no bytes" in report.reason


def test_reasons_say_the_numbers():
    slot, _ = image_slot(width=32)
    assert "3071 bytes of data, 3072" in slot.put(32, 32, "rgb8", 96, bytes(3071), 1).reason
    assert slot.put(32, 33, "rgb8", 99, b"", 1).id == "F06"  # the size is looked at before the data
    slot.put(32, 32, "rgb8", 96, bytes(3072), 5)
    slot.put(32, 32, "rgb8", 96, bytes(3072), 0)
    assert "zero" in slot.stamp_fault.reason and slot.counters["F10"] == 1


def test_compressed_bytes_damaged_at_random():
    slot, _ = image_slot(transport="compressed")
    rgb = RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    for kind in ("PNG", "JPEG"):
        good = encoded(rgb, kind)
        for _ in range(300):
            bad = bytearray(good)
            for at in RNG.integers(0, len(bad), RNG.integers(1, 8)):
                bad[at] = RNG.integers(256)
            report = slot.put_compressed(bytes(bad[: RNG.integers(1, len(bad) + 1)]), 1)
            assert report is None or report.id in ("F05", "F07", "F09")


@pytest.mark.parametrize("pixels, name", [
    (np.zeros((8, 8, 3)), "black"), (np.full((8, 8, 3), 12), "black"), (np.full((8, 8, 3), 250), "saturated"),
    (np.full((8, 8, 3), (10, 200, 90)), "constant"), (np.full((8, 8, 3), 13), "constant"),
    (np.arange(192).reshape(8, 8, 3), ""), (np.pad([[[99, 99, 99]]], ((0, 7), (0, 7), (0, 0))), ""),
])  # fmt: skip
def test_picture_look(pixels, name):
    assert picture_look(np.asarray(pixels, dtype=np.uint8)) == name
