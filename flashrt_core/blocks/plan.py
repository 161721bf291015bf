"""Precision of each stage of a pipeline, as data: what a GEMM reads, what the residual stream is kept in."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from ..types import BF16, E4M3, F32, DType


@dataclass(frozen=True)
class Precision:
    """act: dtype of GEMM inputs and weights. wide: dtype of the residual stream, Q/K/V and everything not quantised.

    per_step: activation scales are calibrated per denoise step (expert only). heads_wide: attention's output and the weight that
    reads it stay at `wide` (vision only): all tokens' outputs there are much alike, so what rounding takes from one it takes from
    all, and it does not average out.
    """

    name: str
    act: DType
    wide: DType
    per_step: bool = False
    heads_wide: bool = False

    @property
    def heads(self) -> DType:
        """dtype of the attention's output and of the weight that reads it."""
        return self.wide if self.heads_wide else self.act

    @property
    def quantised(self) -> bool:
        return self.act == E4M3


FP32 = Precision("fp32", F32, F32)
BF16_STAGE = Precision("bf16", BF16, BF16)
FP8_STATIC = Precision("fp8_static", E4M3, BF16)
FP8_VISION = Precision("fp8_static", E4M3, BF16, heads_wide=True)
FP8_PER_STEP = Precision("fp8_per_step", E4M3, BF16, per_step=True)
FP8_STATIC_WIDE32 = Precision("fp8_static", E4M3, F32)
FP8_VISION_WIDE32 = Precision("fp8_static", E4M3, F32, heads_wide=True)
FP8_PER_STEP_WIDE32 = Precision("fp8_per_step", E4M3, F32, per_step=True)


@dataclass(frozen=True)
class Plan:
    """Precision per stage. Embedding and patch embedding stay at `wide`, the action projections at fp32."""

    vision: Precision
    encoder: Precision
    decoder: Precision

    def __post_init__(self) -> None:
        if self.encoder.heads_wide or self.decoder.heads_wide:  # their attention writes where their norms do, in `act`
            raise ConfigError("Plan", expected="heads_wide in vision only", found="it in the encoder or the decoder")

    @property
    def quantised(self) -> bool:
        return self.vision.quantised or self.encoder.quantised or self.decoder.quantised

    @property
    def name(self) -> str:
        return "fp8" if self.quantised else self.vision.name
