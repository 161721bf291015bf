"""Pi0.5, PyTorch weights, SM 12.0 (RTX 5090 class)."""

from __future__ import annotations

from ...hardware.rtx.machine import Sm120Machine
from ...models.pi05 import model, pipeline_rtx_sm120
from ..base import Frontend
from ._pi05_spec import build_spec
from .loading import load_torch_weights


class Pi05TorchFrontendRtxSm120(Frontend):
    """Static FP8 by default, use_fp8=False for BF16. Compiled, not run."""

    MODEL = model
    PIPELINE = pipeline_rtx_sm120
    MACHINE = Sm120Machine
    SPEC = staticmethod(build_spec)
    LOADER = staticmethod(load_torch_weights)
