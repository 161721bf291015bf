"""The Gemma prefix: one bidirectional pass over image and language tokens that leaves K and V of every layer in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..ops.table import Epilogue
from .linear import Linear, linear
from .plan import Precision


@dataclass(frozen=True)
class GemmaLayer:
    """RMSNorm weights are folded into `qkv` and `gate_up`. The last layer has only `qkv` = rows [K; V]."""

    qkv: Linear
    o: Linear | None = None
    gate_up: Linear | None = None
    down: Linear | None = None


@dataclass(frozen=True)
class GemmaBuffers:
    x: int  # [rows, D] wide, the residual stream; filled before the call
    act: int  # [rows, max(D, q_dim)] act: a norm's output, then the attention's
    qkv: int  # [rows, qkv_dim] wide
    q: int  # [rows, q_dim] wide
    hidden: int  # [rows, mlp] act
    rope: int  # [cache_rows, head_dim] fp32 (cos, sin) pairs
    k: Sequence[int]  # per layer [cache_rows, kv_dim] wide
    v: Sequence[int]
    cache_rows: int


@dataclass(frozen=True)
class GemmaSites:
    """layers[i] = (qkv, o, gate_up, down); the last layer has (qkv,) only."""

    layers: Sequence[tuple[int, ...]]


def gemma_prefill(
    ops: Any,
    b: GemmaBuffers,
    w: Sequence[GemmaLayer],
    d: Any,
    s: GemmaSites,
    p: Precision,
    *,
    attn: Any,
    rows: int,
    stream: int = 0,
) -> None:
    """x [rows, D] -> K/V caches rows 0..rows-1 of every layer. d: GemmaDims.

    Rows past the valid length are computed and never attended to (the attention's key count is data). Of the last layer
    only K and V reach the actions, so its queries, output projection and MLP are not run.
    """
    add = dict(res=b.x, res_dtype=p.wide, out_dtype=p.wide, stream=stream)
    last = len(w) - 1
    for i, (layer, site) in enumerate(zip(w, s.layers, strict=True)):
        ops.rms_norm(b.x, b.act, site[0], rows, d.width, d.rms_eps, p.wide, p.act, stream)
        linear(ops, b.act, layer.qkv, b.qkv, rows, Epilogue.NONE, x_scale=site[0], out_dtype=p.wide, stream=stream)
        heads = 0 if i == last else d.num_heads
        ops.qkv_rope(
            b.qkv, b.rope, 0, b.q, b.k[i], b.v[i],
            rows, heads, d.num_kv_heads, d.head_dim, b.cache_rows, p.wide, stream,
        )  # fmt: skip
        if i == last:
            break
        _, s_o, s_gu, s_down = site
        attn.run("encoder", i, rows, kv_seq=rows, out_scale=s_o, stream=stream)  # q, cache -> act
        linear(ops, b.act, layer.o, b.x, rows, Epilogue.RESIDUAL, x_scale=s_o, **add)
        ops.rms_norm(b.x, b.act, s_gu, rows, d.width, d.rms_eps, p.wide, p.act, stream)
        linear(
            ops, b.act, layer.gate_up, b.hidden, rows, Epilogue.GEGLU,
            x_scale=s_gu, out_scale=s_down, out_dtype=p.act, stream=stream,
        )  # fmt: skip
        linear(ops, b.hidden, layer.down, b.x, rows, Epilogue.RESIDUAL, x_scale=s_down, **add)
