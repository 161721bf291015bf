"""What the shifts of the expert's norms give behind the next weights: (r + shift) w = r w + shift w, and shift w is a constant.

The one-kernel denoise loop (csrc/ops/denoise_loop.cuh) multiplies rows that are scaled but neither divided by their root mean
square nor shifted, and adds this table afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def shift_products(t: Any, styles: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(shifts fp32 [steps, layers, qkv + 2 mlp], out_b fp32 [steps, A]) of the loaded weights, as they were rounded.

    t: tensors under the names of the weight spec. styles: float32 [steps, 2 layers + 1, 3, D] (models/pi05/styles.py).
    out_b: the bias of `action_out` with the final norm's shift in it.
    """
    shift = torch.from_numpy(np.ascontiguousarray(styles[:, :, 1])).to(t.action_out_w.device)
    layers = range(len(t.dec_qkv_w))

    def product(norm: int, name: str, layer: int) -> torch.Tensor:
        y = shift[:, norm] @ getattr(t, f"{name}_w")[layer].float().T
        scales = getattr(t, f"{name}_scale", None)  # E4M3 weights alone have one
        return y if scales is None else y * scales[layer]

    rows = [torch.cat([product(2 * i, "dec_qkv", i), product(2 * i + 1, "dec_gate_up", i)], dim=1) for i in layers]
    return torch.stack(rows, dim=1), t.action_out_b + shift[:, -1] @ t.action_out_w.T
