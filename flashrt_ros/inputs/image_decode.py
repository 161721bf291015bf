"""Turns the fields of a raw or compressed image message into an RGB array, or says which fault they are.

Nothing is allocated or read before the fields have been checked against each other and against the caps.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from flashrt_core.errors import ConfigError

from ..control.faults import FaultReport

MAX_BYTES = 64 << 20  # of one image, as sent and as decoded (FAULTS.md, parser caps)
MAX_SIDE = 16384  # px
# encoding -> (bytes per pixel, order of R, G, B within a pixel)
CHANNELS: dict[str, tuple[int, tuple[int, int, int]]] = {
    "rgb8": (3, (0, 1, 2)), "bgr8": (3, (2, 1, 0)), "rgba8": (4, (0, 1, 2)), "bgra8": (4, (2, 1, 0)), "mono8": (1, (0, 0, 0)),
}  # fmt: skip
PILLOW_FORMATS = ("JPEG", "PNG")


class Rejected(Exception):
    """A message that must not be stored; `report` says why. Raised and caught within the slots."""

    def __init__(self, fault: str, reason: str):
        super().__init__(reason)
        self.report = FaultReport(fault, reason)


def decode_raw(height: int, width: int, encoding: str, step: int, data: object, accepted: Sequence[str]) -> np.ndarray:
    """uint8 RGB [height, width, 3], a view of `data` where the encoding allows (not for mono8, never a copy otherwise).

    step: bytes from one row to the next, at least width * bytes per pixel. data: bytes, array.array('B') or uint8 array.
    Raises Rejected: F05 encoding, F09 absurd sizes or step, F07 too little data.
    """
    if not isinstance(encoding, str) or encoding not in accepted or encoding not in CHANNELS:
        raise Rejected("F05", f"encoding {ascii(encoding)[:40]}, accepted: {', '.join(accepted)}")
    bytes_per_pixel, order = CHANNELS[encoding]
    if not all(isinstance(x, int | np.integer) for x in (height, width, step)):
        raise Rejected("F09", "height, width and step must be whole numbers")
    height, width, step = int(height), int(width), int(step)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise Rejected("F09", f"{width} x {height} px, allowed 1..{MAX_SIDE}")
    if step < width * bytes_per_pixel or step * height > MAX_BYTES:
        raise Rejected(
            "F09", f"step {step} for {width} px of {encoding}, allowed {width * bytes_per_pixel}..{MAX_BYTES // height}"
        )
    flat = _byte_view(data)
    if len(flat) < step * height:
        raise Rejected("F07", f"{len(flat)} bytes of data, {step * height} = step x height needed")
    rows = flat[: step * height].reshape(height, step)[:, : width * bytes_per_pixel]
    pixels = rows.reshape(height, width, bytes_per_pixel)
    if encoding == "mono8":
        return np.repeat(pixels, 3, axis=2)
    return pixels[:, :, :3] if order == (0, 1, 2) else pixels[:, :, 2::-1]


def _byte_view(data: object) -> np.ndarray:
    """uint8 [N] over the memory of `data`, without a copy."""
    try:
        memory = memoryview(data)
        if memory.itemsize != 1 or not memory.contiguous:
            raise Rejected("F07", f"data is no bytes: items of {memory.itemsize} bytes")
        return np.frombuffer(memory, dtype=np.uint8) if memory.nbytes else np.zeros(0, dtype=np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise Rejected("F07", f"data is no bytes: {type(error).__name__}") from None


def check_pillow() -> None:
    """ConfigError when compressed images cannot be decoded here."""
    if find_spec("PIL") is None:
        raise ConfigError("compressed images", expected="the package Pillow", found="none", hint="pip install pillow")


def decode_compressed(data: object, accepted: Sequence[str]) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a JPEG or PNG file in memory. Its size is checked in the header, before decoding.

    accepted: encodings; gray pictures only with mono8, colour ones only with an RGB or BGR encoding.
    Raises Rejected: F05 other formats, F09 absurd sizes, F07 damaged data. Needs Pillow (`check_pillow`).
    """
    from PIL import Image

    flat = _byte_view(data)
    if len(flat) > MAX_BYTES:
        raise Rejected("F09", f"{len(flat)} bytes compressed, at most {MAX_BYTES}")
    try:
        with Image.open(io.BytesIO(flat), formats=PILLOW_FORMATS) as picture:
            width, height = picture.size
            if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and 4 * width * height <= MAX_BYTES):
                raise Rejected("F09", f"{width} x {height} px in the header, at most {MAX_BYTES} bytes decoded")
            gray = picture.mode in ("1", "L", "LA", "I", "I;16", "F")
            if gray and ("mono8" not in accepted or picture.mode != "L"):
                raise Rejected("F05", f"{picture.mode} picture, accepted: {', '.join(accepted)}")
            if not gray and (picture.mode not in ("RGB", "RGBA", "P") or set(accepted) <= {"mono8"}):
                raise Rejected("F05", f"{picture.mode} picture, accepted: {', '.join(accepted)}")
            return np.asarray(picture.convert("RGB"))
    except Rejected:
        raise
    except Image.UnidentifiedImageError:
        raise Rejected("F05", f"neither {' nor '.join(PILLOW_FORMATS)}") from None
    except Image.DecompressionBombError:
        raise Rejected("F09", "more pixels than any camera has") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        raise Rejected("F07", f"damaged picture: {type(error).__name__}") from None
