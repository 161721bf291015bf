"""Pi0.5, PyTorch weights, SM 8.7 (Jetson AGX Orin)."""

from __future__ import annotations

from ...hardware.rtx.machine import OrinMachine
from ...models.pi05 import model, pipeline_rtx_sm87
from ..base import Frontend
from ._pi05_spec import build_spec
from .loading import load_torch_weights


class Pi05TorchFrontendRtxSm87(Frontend):
    """BF16; FP8 needs SM 8.9."""

    MODEL = model
    PIPELINE = pipeline_rtx_sm87
    MACHINE = OrinMachine
    SPEC = staticmethod(build_spec)
    LOADER = staticmethod(load_torch_weights)
