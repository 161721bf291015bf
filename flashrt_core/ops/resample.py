"""Pillow's antialiased bilinear filter: the weights, and how a picture is fitted into a square.

Source: openpi-client image_tools.py (`resize_with_pad`), which calls PIL.Image.resize(BILINEAR); the weights, their 22-bit
rounding and the order (columns, rounding to uint8, rows) are Pillow's (libImaging/Resample.c).
"""

from __future__ import annotations

import functools

import numpy as np

WEIGHT_BITS = 22  # Pillow's fixed point for 8-bit channels: 32 bits - 8 - 2


@functools.lru_cache(maxsize=64)
def bilinear_taps(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """(first input int64 [new], weights int32 [new, taps] in units of 2^-22) from `old` to `new` samples."""
    scale = old / new
    support = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    first = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support + 0.5).astype(np.int64), old)
    at = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(0.0, 1.0 - np.abs((at - centers[:, None] + 0.5) / support))
    weights[at >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return first, np.floor(weights * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(height, width) of the largest picture of this aspect ratio in a square of `side` px."""
    ratio = max(width / side, height / side)
    return max(1, int(height / ratio)), max(1, int(width / ratio))


def fit_into(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, C] -> uint8 [side, side, C]: scaled to fit, centred, black around it; an odd border is larger below and
    on the right. Every sum in integers, as Pillow's: slow and exact."""
    height, width = image.shape[:2]
    new_h, new_w = fitted_size(height, width, side)
    top, left = (side - new_h) // 2, (side - new_w) // 2
    out = np.zeros((side, side, image.shape[2]), dtype=np.uint8)
    small = _along(_along(image.transpose(1, 0, 2), new_w).transpose(1, 0, 2), new_h)
    out[top : top + new_h, left : left + new_w] = small
    return out


def _along(x: np.ndarray, new: int) -> np.ndarray:
    """uint8 [old, ...] resampled over its first axis to `new`."""
    first, weights = bilinear_taps(x.shape[0], new)
    total = np.full((new, *x.shape[1:]), 1 << (WEIGHT_BITS - 1), dtype=np.int32)
    for k in range(weights.shape[1]):
        at = np.minimum(first + k, x.shape[0] - 1)  # a tap past the end has weight 0
        total += x[at].astype(np.int32) * weights[:, k].reshape(-1, *[1] * (x.ndim - 1))
    return np.clip(total >> WEIGHT_BITS, 0, 255).astype(np.uint8)
