"""Pi0.5 on the portable kernels: BF16, or static FP8 with the decoder's scales per denoise step. Nothing that needs SM90."""

from __future__ import annotations

from ...blocks.plan import BF16_STAGE, FP8_PER_STEP, FP8_STATIC, FP8_VISION, Plan
from .pipeline_host import denoise, encode, plan_denoise

__all__ = ["FP8_BY_DEFAULT", "PLAN_FP8", "PLAN_WIDE", "denoise", "encode", "plan_denoise"]

FP8_BY_DEFAULT = True
PLAN_WIDE = Plan(vision=BF16_STAGE, encoder=BF16_STAGE, decoder=BF16_STAGE)
PLAN_FP8 = Plan(vision=FP8_VISION, encoder=FP8_STATIC, decoder=FP8_PER_STEP)
