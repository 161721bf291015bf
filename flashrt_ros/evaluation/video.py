"""A small animated GIF of episodes, with the prompt under the picture and the outcome at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .closed_loop import Episode

BAR_PX = 34
FRAME_MS = 80
LAST_FRAME_MS = 900
MAX_BYTES = 5_000_000
INK, PAPER, GOOD, BAD = (235, 238, 242), (24, 28, 34), (74, 200, 120), (240, 100, 90)


def write_gif(path: Path, episodes: Sequence[Episode], limit: int = MAX_BYTES) -> int:
    """Write the kept frames of `episodes` one after another; returns the size in bytes, 0 when there are no frames.

    When the film is over `limit` bytes, every second frame is dropped until it fits.
    """
    episodes = [e for e in episodes if e.frames]
    if not episodes:
        return 0
    stride = 1
    while True:
        pictures, times = [], []
        for e in episodes:
            kept = e.frames[::stride]
            pictures += [_captioned(f, e.prompt, None) for f in kept[:-1]] + [
                _captioned(e.frames[-1], e.prompt, e.success)
            ]
            times += [FRAME_MS * stride] * (len(kept) - 1) + [LAST_FRAME_MS]
        # one palette for the whole film: small, and no flicker between frames
        palette = _palette(pictures)
        small = [p.quantize(palette=palette, dither=0) for p in pictures]
        small[0].save(path, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)
        if path.stat().st_size <= limit or stride > 16:
            return path.stat().st_size
        stride *= 2


def _palette(pictures: Sequence[object]):
    """256 colours for all pictures, spread over the colours that occur: by area, a small red block would turn brown."""
    from PIL import Image

    some = pictures[:: max(1, len(pictures) // 12)]
    sheet = Image.new("RGB", (some[0].width * len(some), some[0].height))
    for i, p in enumerate(some):
        sheet.paste(p, (i * p.width, 0))
    return sheet.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)


def _captioned(frame: np.ndarray, prompt: str, success: bool | None):
    """The frame over a bar with the prompt, and the outcome when it is known."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = frame.shape[:2]
    canvas = Image.new("RGB", (width, height + BAR_PX), PAPER)
    canvas.paste(Image.fromarray(frame), (0, 0))
    draw = ImageDraw.Draw(canvas)
    size = 14
    font = ImageFont.load_default(size)
    room = width - 34
    while draw.textlength(prompt, font) > room and size > 8:
        size -= 1
        font = ImageFont.load_default(size)
    draw.text((10, height + BAR_PX / 2), prompt, INK, font, anchor="lm")
    if success is not None:
        draw.ellipse((width - 22, height + 11, width - 10, height + 23), fill=GOOD if success else BAD)
    return canvas
