"""Pi0.5, PyTorch weights, SM90 (H100, H200)."""

from __future__ import annotations

from ...hardware.hopper.machine import HopperMachine
from ...models.pi05 import model, pipeline_hopper
from ..base import Frontend
from ._pi05_spec import build_spec
from .loading import load_torch_weights


class Pi05TorchFrontendHopper(Frontend):
    """Static FP8 by default, use_fp8=False for BF16; one captured CUDA graph per kind of call."""

    MODEL = model
    PIPELINE = pipeline_hopper
    MACHINE = HopperMachine
    SPEC = staticmethod(build_spec)
    LOADER = staticmethod(load_torch_weights)
