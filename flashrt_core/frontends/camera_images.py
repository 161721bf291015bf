"""Camera pictures of fixed sizes: slots for them, and the captured calls that fit them into the model's square input."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from ..errors import ConfigError

Size = tuple[int, int]  # height, width in px
MAX_SIDE = 4096  # of the resize_pad op


class CameraImages:
    """One slot per group of neighbouring views of equal size, and a graph over them. Allocates in the constructor only."""

    def __init__(self, name: str, machine: Any, sizes: Sequence[Size], side: int, target: int):
        """sizes: of each view. target: address of the square images [V, side, side, 3] uint8."""
        self.sizes, self._machine = tuple(sizes), machine
        self._groups: list[tuple[Any, int, int]] = []  # slot, first view, number of views
        first = 0
        for size, same in groupby(self.sizes):
            count = len(list(same))
            slot = machine.ctx.buffer(f"{name}.camera.{first}", count * size[0] * size[1] * 3)
            self._groups.append((slot, first, count))
            first += count
        self._graph = machine.ctx.graph(f"{name}.cameras")

        def emit(ops: Any, stream: int) -> None:
            for slot, first, count in self._groups:
                out = target + first * side * side * 3
                ops.resize_pad(slot.dptr(), out, count, *self.sizes[first], side, stream)

        machine.prepare(lambda: emit(machine.ops, machine.ctx.stream_handle(machine.stream)))
        self._graph.capture(0, lambda stream: emit(machine.ops, stream), machine.stream)

    def write(self, views: Sequence[np.ndarray]) -> None:
        """uint8 [H, W, 3] per view, of the sizes given at the start; then the squares are made, in the stream's order."""
        for slot, first, count in self._groups:
            self._machine.upload(slot, views[first : first + count])
        self._graph.replay(0, self._machine.stream)


def camera_sizes(sizes: Any, views: int, side: int) -> tuple[Size, ...]:
    """The option `image_sizes` as one (height, width) per view: None is the model's square, one pair stands for all."""
    if sizes is None:
        return ((side, side),) * views
    try:
        pairs = [sizes] * views if len(sizes) == 2 and not hasattr(sizes[0], "__len__") else list(sizes)
        checked = tuple((int(height), int(width)) for height, width in pairs)
        exact = all((height, width) == tuple(pair) for (height, width), pair in zip(checked, pairs, strict=True))
    except (TypeError, ValueError):
        checked, exact = (), False
    if not exact or len(checked) != views or not all(1 <= n <= MAX_SIDE for pair in checked for n in pair):
        raise ConfigError(
            "image_sizes", expected=f"(height, width) within 1..{MAX_SIDE} for each of {views} views", found=repr(sizes)[:80]
        )
    return checked
