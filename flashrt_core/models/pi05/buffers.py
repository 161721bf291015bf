"""Buffers and attention sites of Pi0.5: every size from `dims`, every dtype from the plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...blocks.adarms import ExpertBuffers
from ...blocks.gemma import GemmaBuffers
from ...blocks.plan import Plan
from ...blocks.siglip import SiglipBuffers
from ...core.buffer_plan import BufferPlan
from ...hardware.backend import AttentionSpec
from ...types import F32, I32, U8, DType
from .dims import Pi05Dims


def patch_cols(dims: Pi05Dims) -> int:
    """Columns of a patch row: 3 * patch^2 rounded up to 16 (588 -> 592), as GEMM operands must be."""
    return -(-dims.vision.patch_dim // 16) * 16


def hidden_cols(dims: Pi05Dims) -> int:
    """Columns of the vision tower's hidden rows: mlp_dim rounded up to 128 (4304 -> 4352) with units of zero weight and bias.
    A row of 4304 bytes starts inside a cache line, and reading it costs a GPU twice the requests."""
    return -(-dims.vision.mlp_dim // 128) * 128


IMAGES = {U8: "images.u8", F32: "images.f32"}  # one input buffer per image dtype


def buffer_plan(dims: Pi05Dims, plan: Plan) -> BufferPlan:
    """All activations of one forward. Inputs: images, ids, prefix_len, and noise in `actions`. Output: `actions`."""
    b, v, p, e = BufferPlan(), dims.vision, dims.prefix, dims.expert
    vis, enc, dec = plan.vision, plan.encoder, plan.decoder
    patches, rows, chunk = dims.num_views * v.tokens, dims.prefix_rows, dims.horizon
    for dtype, name in IMAGES.items():
        b.add(name, dtype, dims.num_views, v.image_size, v.image_size, 3)
    b.add("ids", I32, dims.prompt_capacity)
    b.add("prefix_len", I32, 1)
    b.add("actions", F32, chunk, dims.action_dim)
    b.add("vis.patches", vis.wide, patches, patch_cols(dims))
    b.add("vis.x", vis.wide, patches, v.width)
    b.add("vis.act", vis.act, patches, v.width)
    b.add("vis.heads", vis.heads, patches, v.width)
    b.add("vis.qkv", vis.wide, patches, 3 * v.width)
    b.add("vis.hidden", vis.act, patches, hidden_cols(dims))
    b.add("vis.pooled", vis.wide, patches, v.width)
    b.add("enc.x", enc.wide, rows, p.width)
    b.add("enc.act", enc.act, rows, max(p.width, p.q_dim))
    b.add("enc.qkv", enc.wide, rows, p.qkv_dim)
    b.add("enc.q", enc.wide, rows, p.q_dim)
    b.add("enc.hidden", enc.act, rows, p.mlp_dim)
    b.add("rope", F32, dims.cache_rows, p.head_dim)
    for i in range(p.num_layers):
        b.add(f"cache.k.{i}", enc.wide, dims.cache_rows, p.kv_dim)
        b.add(f"cache.v.{i}", enc.wide, dims.cache_rows, p.kv_dim)
    b.add("dec.h", dec.wide, chunk, e.width)
    b.add("dec.act", dec.act, chunk, max(e.width, e.q_dim))
    b.add("dec.qkv", dec.wide, chunk, e.qkv_dim)
    b.add("dec.q", dec.wide, chunk, e.q_dim)
    b.add("dec.hidden", dec.act, chunk, e.mlp_dim)
    b.add("dec.final", F32, chunk, e.width)  # the action projections are fp32 in every plan
    return b


@dataclass(frozen=True)
class Pi05Buffers:
    """Pointers in the shape the blocks take them."""

    vis: SiglipBuffers
    enc: GemmaBuffers
    dec: ExpertBuffers
    ids: int
    prefix_len: int
    actions: int
    final: int
    image_dtype: DType


def buffers_at(dims: Pi05Dims, at: dict[str, int], image_dtype: DType) -> Pi05Buffers:
    """`at`: buffer name -> pointer."""
    cache = dict(
        rope=at["rope"],
        k=[at[f"cache.k.{i}"] for i in range(dims.prefix.num_layers)],
        v=[at[f"cache.v.{i}"] for i in range(dims.prefix.num_layers)],
        cache_rows=dims.cache_rows,
    )
    return Pi05Buffers(
        vis=SiglipBuffers(
            at[IMAGES[image_dtype]],
            at["vis.patches"],
            at["vis.x"],
            at["vis.act"],
            at["vis.heads"],
            at["vis.qkv"],
            at["vis.hidden"],
            at["vis.pooled"],
        ),
        enc=GemmaBuffers(at["enc.x"], at["enc.act"], at["enc.qkv"], at["enc.q"], at["enc.hidden"], **cache),
        dec=ExpertBuffers(
            at["dec.h"],
            at["dec.act"],
            at["dec.qkv"],
            at["dec.q"],
            at["dec.hidden"],
            prefix_len=at["prefix_len"],
            **cache,
        ),
        ids=at["ids"],
        prefix_len=at["prefix_len"],
        actions=at["actions"],
        final=at["dec.final"],
        image_dtype=image_dtype,
    )


def attention_spec(dims: Pi05Dims) -> AttentionSpec:
    """Sites: vision (one batch row per view), encoder (valid prefix), decoder (valid prefix + all action rows)."""
    v, p, e = dims.vision, dims.prefix, dims.expert
    spec = AttentionSpec()
    spec.add_site(
        "vision", num_layers=v.num_layers, num_q_heads=v.num_heads, num_kv_heads=v.num_heads, head_dim=v.head_dim,
        max_q_seq=v.tokens,
    )  # fmt: skip
    spec.add_site(
        "encoder", num_layers=p.num_layers, num_q_heads=p.num_heads, num_kv_heads=p.num_kv_heads, head_dim=p.head_dim,
        max_q_seq=dims.prefix_rows,
    )  # fmt: skip
    spec.add_site(
        "decoder", num_layers=e.num_layers, num_q_heads=e.num_heads, num_kv_heads=e.num_kv_heads, head_dim=e.head_dim,
        max_q_seq=dims.horizon, max_kv_seq=dims.cache_rows,
    )  # fmt: skip
    return spec


def attention_slots(dims: Pi05Dims, at: dict[str, int], plan: Plan) -> dict[str, Any]:
    """Per site: slot pointers per layer, strides in elements, batch, dtypes and where the valid key count comes from."""
    v, p, e = dims.vision, dims.prefix, dims.expert
    wide = plan.vision.wide.nbytes * v.width
    qkv = at["vis.qkv"]
    layers = range(p.num_layers)
    caches = [(at[f"cache.k.{i}"], at[f"cache.v.{i}"]) for i in layers]
    return {
        "vision": dict(
            q=qkv, kv=[(qkv + wide, qkv + 2 * wide)] * v.num_layers, out=at["vis.heads"], batch=dims.num_views,
            q_stride=3 * v.width, kv_stride=3 * v.width, kv_len=0, kv_extra=0, precision=plan.vision,
        ),
        "encoder": dict(
            q=at["enc.q"], kv=caches, out=at["enc.act"], batch=1, q_stride=p.q_dim, kv_stride=p.kv_dim,
            kv_len=at["prefix_len"], kv_extra=0, precision=plan.encoder,
        ),
        "decoder": dict(
            q=at["dec.q"], kv=caches, out=at["dec.act"], batch=1, q_stride=e.q_dim, kv_stride=e.kv_dim,
            kv_len=at["prefix_len"], kv_extra=dims.horizon, precision=plan.decoder,
        ),
    }  # fmt: skip
