"""Pi0.5, PyTorch weights, host CPU."""

from __future__ import annotations

from ...hardware.host.machine import HostMachine
from ...models.pi05 import model, pipeline_host
from ..base import Frontend
from ._pi05_spec import build_spec
from .loading import load_torch_weights


class Pi05TorchFrontendHost(Frontend):
    """fp32 by default; use_fp8=True emulates static FP8 (E4M3 weights and activations, fp32 products)."""

    MODEL = model
    PIPELINE = pipeline_host
    MACHINE = HostMachine
    SPEC = staticmethod(build_spec)
    LOADER = staticmethod(load_torch_weights)
