"""Pi0.5 on SM 8.7 (Jetson AGX Orin): the portable pipeline in BF16. INT8 is not built, FP8 units there are none."""

from __future__ import annotations

from .pipeline_rtx_sm89 import PLAN_WIDE, denoise, encode, plan_denoise

__all__ = ["FP8_BY_DEFAULT", "PLAN_FP8", "PLAN_WIDE", "denoise", "encode", "plan_denoise"]

FP8_BY_DEFAULT = False
PLAN_FP8 = None
