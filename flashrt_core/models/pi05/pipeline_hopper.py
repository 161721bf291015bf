"""Pi0.5 on SM90: BF16, or static FP8 with the decoder's scales per denoise step. The action projections stay in fp32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...blocks import denoise as blocks
from ...blocks.plan import BF16_STAGE, FP8_PER_STEP, FP8_STATIC, FP8_VISION, Plan
from ...hardware.hopper import denoise_loop as loop
from ...types import BF16
from .buffers import Pi05Buffers
from .dims import Pi05Dims
from .pipeline_host import denoise, encode
from .sites import Pi05Sites
from .weights import Pi05Weights

__all__ = ["FP8_BY_DEFAULT", "PLAN_FP8", "PLAN_WIDE", "denoise", "denoise_at_once", "denoise_joined", "encode", "plan_denoise"]

FP8_BY_DEFAULT = True
PLAN_WIDE = Plan(vision=BF16_STAGE, encoder=BF16_STAGE, decoder=BF16_STAGE)
PLAN_FP8 = Plan(vision=FP8_VISION, encoder=FP8_STATIC, decoder=FP8_PER_STEP)


def denoise_at_once(
    ops: Any, b: Pi05Buffers, w: Pi05Weights, dims: Pi05Dims, s: Pi05Sites, plan: Plan, *, attn: Any, stream: int = 0
) -> None:
    """`denoise` as one kernel over all steps. The action rows' K and V do not reach the cache; nothing reads them there."""
    loop.denoise_loop(
        ops, b.dec, b.actions, w.dec, dims.expert, s.dec, plan.decoder, w.styles, shifts=w.shifts, out_b=w.step_out_b,
        rows=dims.horizon, stream=stream,
    )  # fmt: skip


def denoise_joined(
    ops: Any, b: Pi05Buffers, w: Pi05Weights, dims: Pi05Dims, s: Pi05Sites, plan: Plan, *, attn: Any, stream: int = 0
) -> None:
    """`denoise` with five calls a layer instead of eight, and one between steps."""
    blocks.denoise_joined(
        ops, b.dec, b.actions, b.final, w.dec, dims.expert, s.dec, plan.decoder, w.styles,
        attn=attn, rows=dims.horizon, stream=stream,
    )  # fmt: skip


def plan_denoise(machine: Any, dims: Pi05Dims, plan: Plan) -> Callable[..., None]:
    """One kernel for the published sizes and up to 16 actions, five a layer for 17 to 64 actions, else the ops one by one."""
    e, p = dims.expert, plan.decoder
    fits = loop.fits(
        machine.ops, e, p, rows=dims.horizon, layers=e.num_layers, action_dim=dims.action_dim, cache_rows=dims.cache_rows
    )
    if fits:
        return denoise_at_once
    sizes = (dims.horizon, e.width, e.mlp_dim, e.num_heads, e.num_kv_heads, e.head_dim, dims.action_dim)
    return denoise_joined if p.wide == BF16 and machine.ops.kernels.expert_rows_fit(*sizes, int(p.act)) else denoise
