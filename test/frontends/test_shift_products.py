"""The table that the one-kernel denoise loop adds: a product of shifted rows is that of the rows without shift, plus the table."""

from __future__ import annotations

import numpy as np
import pytest
from support.checkpoints import random_tensors
from support.programs import program_on
from support.sizes import DEMO

from flashrt_core.hardware.host.machine import HostMachine
from flashrt_core.models.pi05 import pipeline_host


def weight(t, name: str, layer: int) -> np.ndarray:
    """[N, K] float64, as the kernels read it: E4M3 values times their scale."""
    w = getattr(t, f"{name}_w")[layer].float().double().numpy()
    return w * getattr(t, f"{name}_scale")[layer].item() if hasattr(t, f"{name}_scale") else w


@pytest.mark.parametrize("plan", [pipeline_host.PLAN_WIDE, pipeline_host.PLAN_FP8], ids=["wide", "fp8"])
def test_norm_and_product_split_at_the_shift(plan) -> None:
    t = program_on(HostMachine(), random_tensors(DEMO, 0), DEMO, pipeline_host, plan).tensors
    styles, layers = t.styles.double().numpy(), DEMO.expert.num_layers
    rng = np.random.default_rng(3)
    h = rng.standard_normal((DEMO.horizon, DEMO.expert.width))
    r = h / np.sqrt((h * h).mean(axis=1, keepdims=True) + DEMO.expert.rms_eps)
    shifts = t.shifts.double().numpy()
    assert shifts.shape == (DEMO.num_steps, layers, DEMO.expert.qkv_dim + 2 * DEMO.expert.mlp_dim)
    assert np.abs(shifts).max() > 0.01, "random styles shift"
    for step in (0, DEMO.num_steps - 1):
        for layer in range(layers):
            at = 0
            for norm, name in ((2 * layer, "dec_qkv"), (2 * layer + 1, "dec_gate_up")):
                scale, shift, _ = styles[step, norm]
                w = weight(t, name, layer)
                whole, split = (r * (1 + scale) + shift) @ w.T, (r * (1 + scale)) @ w.T
                split += shifts[step, layer, at : at + len(w)]
                np.testing.assert_allclose(split, whole, rtol=0, atol=2e-5 * np.abs(whole).max())
                at += len(w)
        scale, shift, _ = styles[step, -1]
        w, b = t.action_out_w.double().numpy(), t.action_out_b.double().numpy()
        whole = (r * (1 + scale) + shift) @ w.T + b
        got = (r * (1 + scale)) @ w.T + t.step_out_b[step].double().numpy()
        np.testing.assert_allclose(got, whole, rtol=0, atol=2e-5 * np.abs(whole).max())
