"""The action expert: a Gemma stack whose norms are modulated by the denoise time (adaRMS), attending to prefix and suffix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..ops.table import Epilogue
from ..types import DType
from .linear import Linear, linear
from .plan import Precision


@dataclass(frozen=True)
class ExpertLayer:
    qkv: Linear
    o: Linear
    gate_up: Linear
    down: Linear


@dataclass(frozen=True)
class ExpertBuffers:
    h: int  # [rows, D] wide, the residual stream
    act: int  # [rows, max(D, q_dim)] act
    qkv: int  # [rows, qkv_dim] wide
    q: int  # [rows, q_dim] wide
    hidden: int  # [rows, mlp] act
    rope: int
    k: Sequence[int]  # the prefix's caches: suffix rows go behind the valid prefix rows
    v: Sequence[int]
    cache_rows: int
    prefix_len: int  # i32[1]: valid prefix rows = position of the first action token


@dataclass(frozen=True)
class ExpertSites:
    layers: Sequence[tuple[int, int, int, int]]  # (qkv, o, gate_up, down)


def expert_forward(
    ops: Any,
    b: ExpertBuffers,
    w: Sequence[ExpertLayer],
    d: Any,
    s: ExpertSites,
    p: Precision,
    styles: Sequence[tuple[int, int]],
    *,
    attn: Any,
    rows: int,
    stream: int = 0,
) -> None:
    """h [rows, D] through all layers, in place. styles[i] = pointers to [3, D] of the attention and of the MLP norm:
    (scale, shift, gate); y = rms(h) * (1 + scale) + shift, h += gate * branch(y)."""
    gate_offset = 2 * d.width * 4  # the gate is the third fp32 row of a style

    def close(x: int, lin: Linear, x_scale: int, style: int) -> None:
        linear(
            ops, x, lin, b.h, rows, Epilogue.GATE_RESIDUAL, x_scale=x_scale, gate=style + gate_offset,
            res=b.h, res_dtype=p.wide, out_dtype=p.wide, stream=stream,
        )  # fmt: skip

    for i, (layer, (s_qkv, s_o, s_gu, s_down), (style_a, style_m)) in enumerate(zip(w, s.layers, styles, strict=True)):
        ops.ada_rms_norm(b.h, style_a, b.act, s_qkv, rows, d.width, d.rms_eps, p.wide, p.act, stream)
        linear(ops, b.act, layer.qkv, b.qkv, rows, Epilogue.NONE, x_scale=s_qkv, out_dtype=p.wide, stream=stream)
        ops.qkv_rope(
            b.qkv, b.rope, b.prefix_len, b.q, b.k[i], b.v[i],
            rows, d.num_heads, d.num_kv_heads, d.head_dim, b.cache_rows, p.wide, stream,
        )  # fmt: skip
        attn.run("decoder", i, rows, kv_seq=b.cache_rows, out_scale=s_o, stream=stream)
        close(b.act, layer.o, s_o, style_a)
        ops.ada_rms_norm(b.h, style_m, b.act, s_gu, rows, d.width, d.rms_eps, p.wide, p.act, stream)
        linear(
            ops, b.act, layer.gate_up, b.hidden, rows, Epilogue.GEGLU,
            x_scale=s_gu, out_scale=s_down, out_dtype=p.act, stream=stream,
        )  # fmt: skip
        close(b.hidden, layer.down, s_down, style_m)


def expert_forward_joined(
    ops: Any,
    b: ExpertBuffers,
    w: Sequence[ExpertLayer],
    d: Any,
    s: ExpertSites,
    p: Precision,
    styles: Sequence[tuple[int, int]],
    final_style: int,
    final: int,
    final_dtype: DType,
    *,
    attn: Any,
    rows: int,
    stream: int = 0,
) -> None:
    """`expert_forward` and the norm behind it (final [rows, D]) in five calls a layer: each norm is part of the call that ends the
    branch before it, RoPE of the product that it turns. For up to 64 rows with `p.wide` BF16. `b.qkv` holds what a norm writes,
    at first what the attention's norm of the first layer made of h."""
    gate_offset, norms = 2 * d.width * 4, b.qkv

    def close(x: int, lin: Linear, x_scale: int, style: int, next_style: int, out: int, out_scale: int, dtype: DType) -> None:
        ops.gemm_gate_norm(
            a=x, w=lin.w, res=b.h, gate=style + gate_offset, out=b.h, style=next_style, normed=out,
            a_scale=x_scale if p.quantised else 0, w_scale=lin.scale, out_scale=out_scale,
            M=rows, N=lin.n, K=lin.k, eps=d.rms_eps, a_dtype=p.act, normed_dtype=dtype, stream=stream,
        )  # fmt: skip

    for i, (layer, (s_qkv, s_o, s_gu, s_down), (style_a, style_m)) in enumerate(zip(w, s.layers, styles, strict=True)):
        ops.gemm_qkv_rope(
            a=norms, w=layer.qkv.w, rope=b.rope, pos0=b.prefix_len, q=b.q, k=b.k[i], v=b.v[i],
            a_scale=s_qkv if p.quantised else 0, w_scale=layer.qkv.scale, M=rows, K=layer.qkv.k,
            H=d.num_heads, KVH=d.num_kv_heads, HD=d.head_dim, rows=b.cache_rows, a_dtype=p.act, stream=stream,
        )  # fmt: skip
        attn.run("decoder", i, rows, kv_seq=b.cache_rows, out_scale=s_o, stream=stream)
        close(b.act, layer.o, s_o, style_a, style_m, norms, s_gu, p.act)
        linear(
            ops, norms, layer.gate_up, b.hidden, rows, Epilogue.GEGLU,
            x_scale=s_gu, out_scale=s_down, out_dtype=p.act, stream=stream,
        )  # fmt: skip
        if i + 1 < len(w):
            close(b.hidden, layer.down, s_down, style_m, styles[i + 1][0], norms, s.layers[i + 1][0], p.act)
        else:
            close(b.hidden, layer.down, s_down, style_m, final_style, final, 0, final_dtype)
