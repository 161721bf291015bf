"""The SigLIP vision tower: images to prefix tokens (patch embedding, pre-LN encoder, optional pooling, projector)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..ops.table import Epilogue
from ..types import DType
from .linear import Linear, linear
from .plan import Precision


@dataclass(frozen=True)
class SiglipLayer:
    ln1_w: int
    ln1_b: int
    qkv: Linear  # rows [Q; K; V], each `width`
    o: Linear
    ln2_w: int
    ln2_b: int
    fc1: Linear
    fc2: Linear


@dataclass(frozen=True)
class SiglipWeights:
    """`patch` reads columns (channel, y, x) padded to a multiple of 16. `positions` is tiled to [views * tokens, width]."""

    patch: Linear
    positions: int
    layers: Sequence[SiglipLayer]
    post_w: int
    post_b: int
    proj: Linear


@dataclass(frozen=True)
class SiglipBuffers:
    images: int  # [V, S, S, 3] u8 or f32
    patches: int  # [V*T, K] wide
    x: int  # [V*T, D] wide, the residual stream
    act: int  # [V*T, D] act: a norm's output
    heads: int  # [V*T, D] heads: the attention's output
    qkv: int  # [V*T, 3D] wide
    hidden: int  # [V*T, mlp] act
    pooled: int  # [V*T, D] wide: post-norm tokens before pooling


@dataclass(frozen=True)
class SiglipSites:
    """Pointers to the activation scale of each GEMM input: layers[i] = (qkv, o, fc1, fc2)."""

    layers: Sequence[tuple[int, int, int, int]]
    proj: int


def siglip_forward(
    ops: Any,
    b: SiglipBuffers,
    w: SiglipWeights,
    d: Any,
    s: SiglipSites,
    p: Precision,
    *,
    attn: Any,
    views: int,
    pool: int,
    image_dtype: DType,
    out: int,
    stream: int = 0,
) -> None:
    """Writes `views * tokens / pool^2` rows of the projector's width at `out` (dtype `p.wide`).

    d: VisionDims. Pooling averages pool x pool windows of the post-norm tokens; the projector is affine, so pooling
    before it equals pooling after it and costs pool^2 less.
    """
    M, D = views * d.tokens, d.width
    wide = dict(out_dtype=p.wide, stream=stream)
    add = dict(res_dtype=p.wide, **wide)
    ops.patchify(b.images, b.patches, views, d.image_size, d.patch_size, w.patch.k, image_dtype, p.wide, stream)
    linear(ops, b.patches, w.patch, b.x, M, Epilogue.BIAS_RESIDUAL, res=w.positions, **add)
    for i, (layer, (s_qkv, s_o, s_fc1, s_fc2)) in enumerate(zip(w.layers, s.layers, strict=True)):
        ops.layer_norm(b.x, layer.ln1_w, layer.ln1_b, b.act, s_qkv, M, D, d.ln_eps, p.wide, p.act, stream)
        linear(ops, b.act, layer.qkv, b.qkv, M, Epilogue.BIAS, x_scale=s_qkv, **wide)
        attn.run("vision", i, d.tokens, out_scale=s_o, stream=stream)  # qkv -> heads
        linear(ops, b.heads, layer.o, b.x, M, Epilogue.BIAS_RESIDUAL, x_scale=s_o, res=b.x, **add)
        ops.layer_norm(b.x, layer.ln2_w, layer.ln2_b, b.act, s_fc1, M, D, d.ln_eps, p.wide, p.act, stream)
        linear(
            ops, b.act, layer.fc1, b.hidden, M, Epilogue.BIAS_GELU,
            x_scale=s_fc1, out_scale=s_fc2, out_dtype=p.act, stream=stream,
        )  # fmt: skip
        linear(ops, b.hidden, layer.fc2, b.x, M, Epilogue.BIAS_RESIDUAL, x_scale=s_fc2, res=b.x, **add)
    if pool == 1:
        ops.layer_norm(b.x, w.post_w, w.post_b, b.act, s.proj, M, D, d.ln_eps, p.wide, p.act, stream)
    else:
        ops.layer_norm(b.x, w.post_w, w.post_b, b.pooled, 0, M, D, d.ln_eps, p.wide, p.wide, stream)
        ops.avg_pool(b.pooled, b.act, s.proj, views, d.grid, D, pool, p.wide, p.act, stream)
    linear(ops, b.act, w.proj, out, M // pool**2, Epilogue.BIAS, x_scale=s.proj, **wide)
