"""Arrays laid one after the other into a staging area: the only copy that the CPU makes of an input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def place_bytes(stage: np.ndarray, data: np.ndarray | Sequence[np.ndarray]) -> int:
    """Copy an array, or several in order, as bytes into `stage` (uint8 [n]); returns how many. Any strides; too much raises."""
    at = 0
    for array in (data,) if isinstance(data, np.ndarray) else data:
        if at + array.nbytes > stage.nbytes:
            raise ValueError(f"{at + array.nbytes} bytes do not fit into {stage.nbytes}")
        target = stage[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(target, array)
        at += array.nbytes
    return at
