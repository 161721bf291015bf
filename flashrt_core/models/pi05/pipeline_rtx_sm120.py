"""Pi0.5 on SM 12.0 (RTX 5090 class): the portable pipeline. NVFP4 is not built."""

from __future__ import annotations

from .pipeline_rtx_sm89 import FP8_BY_DEFAULT, PLAN_FP8, PLAN_WIDE, denoise, encode, plan_denoise

__all__ = ["FP8_BY_DEFAULT", "PLAN_FP8", "PLAN_WIDE", "denoise", "encode", "plan_denoise"]
