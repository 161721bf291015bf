"""Resize with padding as the reference does: antialiased bilinear, aspect ratio kept, black borders.

Source: openpi-client image_tools.py (`resize_with_pad`), which calls PIL.Image.resize(BILINEAR). The weights and the order
(columns, rounding to uint8, rows) are Pillow's (libImaging/Resample.c), so results agree with it bit for bit except where
a sum lies within float32 rounding of a half.
"""

from __future__ import annotations

import functools

import numpy as np

from flashrt_core.inputs import WEIGHT_BITS, bilinear_taps, fitted_size

_COLUMNS_AT_ONCE = 8  # output columns of one matrix product: small keeps the zeros in the band matrix few


@functools.lru_cache(maxsize=64)
def bilinear_weights(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """(first input [new], weights float32 [new, taps]) of Pillow's BILINEAR filter from `old` to `new` samples."""
    first, weights = bilinear_taps(old, new)
    return first, (weights / (1 << WEIGHT_BITS)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _bands(old: int, new: int, channels: int) -> tuple[tuple[int, int, np.ndarray], ...]:
    """Column resize as matrix products: (first value, last value, float32 [values in, values out]) per block."""
    first, weights = bilinear_weights(old, new)
    taps = weights.shape[1]
    out = []
    for start in range(0, new, _COLUMNS_AT_ONCE):
        rows = range(start, min(start + _COLUMNS_AT_ONCE, new))
        low, high = int(first[rows[0]]), min(int(first[rows[-1]]) + taps, old)
        band = np.zeros((high - low, len(rows)), dtype=np.float32)
        for column, row in enumerate(rows):
            count = min(taps, old - int(first[row]))
            band[first[row] - low : first[row] - low + count, column] = weights[row, :count]
        out.append((low * channels, high * channels, np.kron(band, np.eye(channels, dtype=np.float32))))
    return tuple(out)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [height, width, C]; the image itself when it has that size already."""
    old_h, old_w, channels = image.shape
    if old_w != width:
        flat = image.astype(np.float32, order="C").reshape(old_h, old_w * channels)
        out = np.empty((old_h, width * channels), dtype=np.float32)
        at = 0
        for low, high, band in _bands(old_w, width, channels):
            np.matmul(flat[:, low:high], band, out=out[:, at : at + band.shape[1]])
            at += band.shape[1]
        image = _to_uint8(out).reshape(old_h, width, channels)
    if old_h != height:
        flat = image.astype(np.float32, order="C").reshape(old_h, width * channels)
        out = np.empty((height, width * channels), dtype=np.float32)
        at = 0
        for low, high, band in _bands(old_h, height, 1):
            np.matmul(band.T, flat[low:high], out=out[at : at + band.shape[1]])
            at += band.shape[1]
        image = _to_uint8(out).reshape(height, width, channels)
    return image


def _to_uint8(values: np.ndarray) -> np.ndarray:
    """Round half up, as Pillow. Weights are positive and sum to 1, so nothing leaves 0..255 but by rounding."""
    values += 0.5
    np.minimum(values, 255.0, out=values)
    return values.astype(np.uint8)


def resize_with_pad(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [side, side, 3]: scaled to fit, centred, black around it; an odd border is larger below
    and on the right. Returns `image` itself when it has that size already."""
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    new_h, new_w = fitted_size(height, width, side)
    top, left = (side - new_h) // 2, (side - new_w) // 2
    out = np.zeros((side, side, 3), dtype=np.uint8)
    out[top : top + new_h, left : left + new_w] = resize(image, new_h, new_w)
    return out
