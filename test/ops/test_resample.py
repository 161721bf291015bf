"""The integer resize against Pillow, bit for bit: it is the reference of the `resize_pad` op."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flashrt_core.ops.resample import bilinear_taps, fit_into, fitted_size

SIZES = [(480, 640), (720, 1280), (100, 50), (28, 28), (7, 5), (1, 1), (1, 300), (300, 1), (223, 224), (2, 3)]


@pytest.mark.parametrize("side", [28, 224])
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_equals_pillow(size: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = fitted_size(*size, side)
    want = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    small = Image.fromarray(image).resize((width, height), resample=Image.BILINEAR)
    want[top : top + height, left : left + width] = np.asarray(small)
    assert np.array_equal(fit_into(image, side), want)


def test_a_square_of_the_right_size_is_kept() -> None:
    image = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    assert np.array_equal(fit_into(image, 56), image)


def test_taps_sum_to_one() -> None:
    for old, new in ((1, 7), (640, 224), (1921, 5), (224, 224)):
        first, weights = bilinear_taps(old, new)
        assert abs(weights.sum(1) - (1 << 22)).max() <= weights.shape[1]
        assert first.min() >= 0 and first.max() < old
