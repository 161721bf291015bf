"""Pi0.5, PyTorch weights, SM 8.9 (RTX 4090 class)."""

from __future__ import annotations

from ...hardware.rtx.machine import Sm89Machine
from ...models.pi05 import model, pipeline_rtx_sm89
from ..base import Frontend
from ._pi05_spec import build_spec
from .loading import load_torch_weights


class Pi05TorchFrontendRtxSm89(Frontend):
    """Static FP8 by default, use_fp8=False for BF16."""

    MODEL = model
    PIPELINE = pipeline_rtx_sm89
    MACHINE = Sm89Machine
    SPEC = staticmethod(build_spec)
    LOADER = staticmethod(load_torch_weights)
