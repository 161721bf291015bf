"""Pi0.5, PyTorch weights, SM 11.0 (Jetson AGX Thor)."""

from __future__ import annotations

from ...hardware.rtx.machine import ThorMachine
from ...models.pi05 import model, pipeline_thor
from ..base import Frontend
from ._pi05_spec import build_spec
from .loading import load_torch_weights


class Pi05TorchFrontendThor(Frontend):
    """Static FP8 by default, use_fp8=False for BF16. Compiled, not run."""

    MODEL = model
    PIPELINE = pipeline_thor
    MACHINE = ThorMachine
    SPEC = staticmethod(build_spec)
    LOADER = staticmethod(load_torch_weights)
