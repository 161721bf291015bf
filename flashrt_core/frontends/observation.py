"""Check an observation against the policy before anything is computed: views, image shape and dtype, state, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ObservationError

DICT_KEYS = ("image", "wrist_image", "wrist_image_right")  # documented keys of a dict observation, in view order


def image_views(
    observation: Mapping[str, Any], views: Sequence[str], side: int, sizes: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    """One array per view: all uint8, each [side, side, 3] or of its size in `sizes` (height, width); or, when any view is
    float, all float32 [side, side, 3] in [-1, 1] (uint8 ones are mapped to x/255*2-1).

    Takes `images` (a list, one per view) or the documented keys. ObservationError names the view.
    """
    images = _views(observation, len(views))
    arrays = [
        _image(np.asarray(image), f"image {i} ({name})", side, size)
        for i, (image, name, size) in enumerate(zip(images, views, sizes, strict=True))
    ]
    if all(a.dtype == np.uint8 for a in arrays):
        return arrays
    for i, a in enumerate(arrays):
        if a.shape != (side, side, 3):
            raise ObservationError(
                f"image {i} ({views[i]})", expected=f"shape ({side}, {side}, 3) beside a float image", found=f"shape {a.shape}"
            )
    return [a if a.dtype == np.float32 else a.astype(np.float32) / 255 * 2 - 1 for a in arrays]


def _views(observation: Mapping[str, Any], count: int) -> Sequence[Any]:
    if "images" in observation:
        images = observation["images"]
        if len(images) != count:
            raise ObservationError("images", expected=f"{count} views, as loaded (num_views)", found=f"{len(images)}")
        return images
    missing = [k for k in DICT_KEYS[:count] if k not in observation]
    if missing:
        raise ObservationError(
            f"observation[{missing[0]!r}]",
            expected=f"an image under each of {', '.join(DICT_KEYS[:count])}",
            found=f"keys {', '.join(map(str, observation)) or 'none'}",
        )
    extra = [k for k in DICT_KEYS[count:] if k in observation]
    if extra:
        raise ObservationError(
            f"observation[{extra[0]!r}]", expected=f"{count} views, as loaded (num_views)", found=f"{count + 1} or more"
        )
    return [observation[k] for k in DICT_KEYS[:count]]


def _image(image: np.ndarray, name: str, side: int, size: tuple[int, int]) -> np.ndarray:
    square = image.shape == (side, side, 3)
    if image.dtype == np.uint8 and (square or image.shape == (*size, 3)):
        return image
    if not square:
        other = f" or {(*size, 3)}, as loaded" if size != (side, side) else ""
        raise ObservationError(
            name, expected=f"shape ({side}, {side}, 3), rows x columns x RGB{other}", found=f"shape {image.shape}",
            hint=f"Load with image_sizes=[(height, width), ...] to have uint8 pictures resized with padding to {side} x {side}",
        )  # fmt: skip
    if image.dtype not in (np.float32, np.float64, np.float16):
        raise ObservationError(name, expected="uint8, or float in [-1, 1]", found=f"dtype {image.dtype}")
    image = image.astype(np.float32)
    low, high = float(image.min()), float(image.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ObservationError(name, expected="finite values", found="NaN or infinity")
    if low < -1.0 or high > 1.0:
        raise ObservationError(name, expected="float values within [-1, 1]", found=f"[{low:.4g}, {high:.4g}]")
    return image


def vector(value: Any, name: str, length: int) -> np.ndarray:
    """float32 [length], finite; ObservationError says which entry is not."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as e:
        raise ObservationError(name, expected=f"{length} numbers", found=type(value).__name__) from e
    if array.shape != (length,):
        raise ObservationError(name, expected=f"shape ({length},)", found=f"shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ObservationError(name, expected="finite values", found=f"{array[bad[0]]} at index {bad[0]}")
    return array


def noise_array(noise: Any, shape: tuple[int, int]) -> np.ndarray:
    """float32 of `shape`, finite."""
    array = np.asarray(noise, dtype=np.float32)
    if array.shape != shape:
        raise ObservationError("noise", expected=f"shape {shape}", found=f"shape {array.shape}")
    if not np.isfinite(array).all():
        raise ObservationError("noise", expected="finite values", found="NaN or infinity")
    return array
