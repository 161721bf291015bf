"""The action expert's whole denoise loop as one kernel: whether it takes a model, and the call from a block's pointers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ConfigError
from ...ops.table import SCALE_BYTES
from ...types import DType


def fits(ops: Any, d: Any, p: Any, *, rows: int, layers: int, action_dim: int, cache_rows: int) -> bool:
    """Whether the kernel takes these sizes (d: GemmaDims) and this precision (blocks/plan.py) on the current GPU."""
    sizes = (rows, layers, d.width, d.mlp_dim, d.num_heads, d.num_kv_heads, d.head_dim, action_dim, cache_rows)
    return bool(ops.kernels.denoise_loop_fits(*sizes, int(p.act)))


def denoise_loop(
    ops: Any, b: Any, actions: int, w: Any, d: Any, sites: Any, p: Any, styles: Any, *, shifts: int, out_b: int, rows: int,
    stream: int = 0,
) -> None:  # fmt: skip
    """actions [rows, A] fp32: noise -> normalised actions, over all steps.

    b, w, d, p as in `blocks.denoise.denoise_step`; sites and styles: those of every step. shifts, out_b: fp32
    [steps, layers, qkv_dim + 2 mlp] and [steps, A], the norms' shifts times the next weights, in out_b with the bias (the kernel
    reads no shift from the styles). In FP8 the norms' outputs stay FP16: the scales of their sites are not used. ConfigError when
    scales or styles are not one array each.
    """
    steps, layers, row = len(styles), len(w.layers), 3 * d.width * 4
    scales, first = sites[0].layers[0][0], styles[0].layers[0][0]
    _in_order("scales", [s for site in sites for layer in site.layers for s in layer], SCALE_BYTES)
    _in_order("styles", [s for step in styles for s in (*(n for pair in step.layers for n in pair), step.final)], row)
    table = np.array(
        [
            [getattr(getattr(layer, name), what) for what in ("w", "scale") for name in ("qkv", "o", "gate_up", "down")] + [k, v]
            for layer, k, v in zip(w.layers, b.k, b.v, strict=True)
        ],
        dtype=np.uint64,
    )
    ops.denoise_loop(
        layers=table, in_w=w.action_in.w, in_b=w.action_in.bias, out_w=w.action_out.w, out_b=out_b,
        styles=first, shifts=shifts, scales=scales if p.quantised else 0, rope=b.rope, prefix_len=b.prefix_len, actions=actions,
        M=rows, L=layers, steps=steps, D=d.width, mlp=d.mlp_dim, H=d.num_heads, KVH=d.num_kv_heads, HD=d.head_dim,
        A=w.action_in.k, cache_rows=b.cache_rows, eps=d.rms_eps, act_dtype=int(p.act), stream=stream,
    )  # fmt: skip


def cost(v: dict[str, Any]) -> tuple[int, int]:
    """(bytes, FLOPs) of a call: every step reads all weights, and K and V of the cache, once."""
    weights = v["L"] * v["D"] * ((2 * v["H"] + 2 * v["KVH"]) * v["HD"] + 3 * v["mlp"])
    cache = v["L"] * 2 * v["cache_rows"] * v["KVH"] * v["HD"]
    attention = 4 * v["L"] * v["M"] * v["cache_rows"] * v["H"] * v["HD"]
    return v["steps"] * (weights * DType(v["act_dtype"]).nbytes + cache * 2), v["steps"] * (2 * v["M"] * weights + attention)


def _in_order(name: str, pointers: list[int], step: int) -> None:
    for i, p in enumerate(pointers):
        if p != pointers[0] + i * step:
            raise ConfigError(f"denoise_loop {name}", expected=f"one array, {step} bytes apart", found=f"entry {i} elsewhere")
