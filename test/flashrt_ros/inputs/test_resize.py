"""Resize with padding against Pillow, which the reference preprocessing calls."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flashrt_ros.inputs.resize import bilinear_weights, fitted_size, resize, resize_with_pad

SIZES = [
    (480, 640), (720, 1280), (240, 320), (100, 50), (112, 112), (640, 334), (7, 5), (1080, 1920), (448, 448), (1, 1),
    (1, 500), (500, 1), (223, 224), (225, 225), (2, 3),
]  # fmt: skip


def reference(image: np.ndarray, side: int) -> np.ndarray:
    """openpi-client image_tools.py `_resize_with_pad_pil`, method BILINEAR."""
    height, width = image.shape[:2]
    if (width, height) == (side, side):
        return image
    ratio = max(width / side, height / side)
    new_h, new_w = max(1, int(height / ratio)), max(1, int(width / ratio))
    small = Image.fromarray(image).resize((new_w, new_h), resample=Image.BILINEAR)
    out = Image.new("RGB", (side, side), 0)
    out.paste(small, (max(0, int((side - new_w) / 2)), max(0, int((side - new_h) / 2))))
    return np.asarray(out)


@pytest.mark.parametrize("side", [112, 224])
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_equals_pillow(size, side):
    """Bit for bit but for sums within float32 rounding of a half: one level, in less than one value of a hundred."""
    image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
    got, want = resize_with_pad(image, side), reference(image, side)
    assert got.shape == (side, side, 3) and got.dtype == np.uint8
    difference = np.abs(got.astype(int) - want)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_one_colour_stays_one_colour(size, value):
    height, width = fitted_size(*size, 224)
    assert np.all(resize(np.full((*size, 3), value, np.uint8), height, width) == value)


def test_known_values():
    """Halving averages with weights 1 3 3 1 / 8 (at the border 3 3 1 / 7)."""
    row = np.array([0, 80, 160, 240], np.uint8)
    image = np.repeat(np.repeat(row[None, :, None], 3, axis=2), 4, axis=0)
    left, right = (3 * 0 + 3 * 80 + 160) / 7, (80 + 3 * 160 + 3 * 240) / 7
    assert resize(image, 4, 2)[0, :, 0].tolist() == [int(left + 0.5), int(right + 0.5)]


def test_weights_sum_to_one():
    for old in (1, 2, 3, 224, 480, 1921):
        for new in (1, 2, 112, 224):
            first, weights = bilinear_weights(old, new)
            assert np.allclose(weights.sum(axis=1), 1.0, atol=1e-5) and np.all(weights >= 0)
            used = first[:, None] + np.arange(weights.shape[1])
            assert np.all((used < old) | (weights == 0))


@pytest.mark.parametrize("view", [
    lambda a: a[:, :, ::-1], lambda a: a[::2, 3:-5], lambda a: np.asfortranarray(a), lambda a: a[:, :, 2::-1][..., :3],
])  # fmt: skip
def test_views_and_copies_give_the_same(view):
    image = view(np.random.default_rng(0).integers(0, 256, (96, 130, 3), dtype=np.uint8))
    assert np.array_equal(resize_with_pad(image, 64), resize_with_pad(np.ascontiguousarray(image), 64))


def test_padding_is_black_and_centred():
    out = resize_with_pad(np.full((480, 640, 3), 200, np.uint8), 224)
    assert np.all(out[28:196] == 200) and not out[:28].any() and not out[196:].any()
    odd = resize_with_pad(np.full((10, 9, 3), 200, np.uint8), 20)  # 18 wide, 1 px on each side
    assert not odd[:, 0].any() and not odd[:, -1].any() and np.all(odd[:, 1:-1] == 200)


def test_right_size_is_returned_as_it_is():
    image = np.zeros((224, 224, 3), np.uint8)
    assert resize_with_pad(image, 224) is image
