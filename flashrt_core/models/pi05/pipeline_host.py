"""Pi0.5 on the host: the order of calls. FP8 means E4M3 activations and weights with fp32 everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...blocks.denoise import denoise_step
from ...blocks.gemma import gemma_prefill
from ...blocks.plan import FP8_PER_STEP_WIDE32, FP8_STATIC_WIDE32, FP8_VISION_WIDE32, FP32, Plan
from ...blocks.siglip import siglip_forward
from .buffers import Pi05Buffers
from .dims import Pi05Dims
from .sites import Pi05Sites
from .weights import Pi05Weights

FP8_BY_DEFAULT = False  # a CPU has no FP8 units: emulation is for studying precision
PLAN_WIDE = Plan(vision=FP32, encoder=FP32, decoder=FP32)
PLAN_FP8 = Plan(vision=FP8_VISION_WIDE32, encoder=FP8_STATIC_WIDE32, decoder=FP8_PER_STEP_WIDE32)


def encode(
    ops: Any, b: Pi05Buffers, w: Pi05Weights, dims: Pi05Dims, s: Pi05Sites, plan: Plan, *, attn: Any, stream: int = 0
) -> None:
    """Images and token ids -> K/V of the prefix."""
    siglip_forward(
        ops, b.vis, w.vis, dims.vision, s.vis, plan.vision,
        attn=attn, views=dims.num_views, pool=dims.pool, image_dtype=b.image_dtype, out=b.enc.x, stream=stream,
    )  # fmt: skip
    language = b.enc.x + dims.image_tokens * dims.prefix.width * plan.encoder.wide.nbytes
    ops.embed_tokens(
        w.embedding, b.ids, language, dims.prompt_capacity, dims.prefix.width, dims.vocab_size,
        dims.prefix.width**0.5, w.embedding_dtype, plan.encoder.wide, stream,
    )  # fmt: skip
    gemma_prefill(ops, b.enc, w.enc, dims.prefix, s.enc, plan.encoder, attn=attn, rows=dims.prefix_rows, stream=stream)


def denoise(
    ops: Any, b: Pi05Buffers, w: Pi05Weights, dims: Pi05Dims, s: Pi05Sites, plan: Plan, *, attn: Any, stream: int = 0
) -> None:
    """Noise in `actions` -> normalised action chunk in `actions`, against the prefix K/V that `encode` left."""
    for step in range(dims.num_steps):
        denoise_step(
            ops, b.dec, b.actions, b.final, w.dec, dims.expert, s.dec[step], plan.decoder, w.styles[step],
            attn=attn, rows=dims.horizon, stream=stream,
        )  # fmt: skip


def plan_denoise(machine: Any, dims: Pi05Dims, plan: Plan) -> Callable[..., None]:
    """The `denoise` that runs and is captured for these sizes; calibration always runs `denoise`, which shows every site."""
    return denoise
