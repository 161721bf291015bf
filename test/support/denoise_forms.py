"""Forms of the denoise loop (one kernel, joined calls) beside the separate ops and fp32, at the published widths on a GPU."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from flashrt_core.blocks.plan import BF16_STAGE, FP8_PER_STEP, FP32, Plan
from flashrt_core.frontends.calibrate import measure_scales
from flashrt_core.frontends.program import Program, Variant
from flashrt_core.models.pi05 import pipeline_hopper

from .checkpoints import random_tensors
from .machines import machine
from .programs import cosine, program_on, random_inputs, random_samples
from .sizes import FULL_WIDTH

EXACT = Plan(vision=FP32, encoder=FP32, decoder=FP32)
PLANS = {"bf16": pipeline_hopper.PLAN_WIDE, "fp8": Plan(vision=BF16_STAGE, encoder=BF16_STAGE, decoder=FP8_PER_STEP)}


@functools.cache
def weights() -> dict[str, torch.Tensor]:
    return random_tensors(FULL_WIDTH, 0)


def programs_of(change: dict[str, int], tokens: int) -> tuple[dict[str, Program], Any]:
    """fp32, BF16 and FP8 programs with these dims changed, and inputs with a prompt of so many tokens."""
    dims = dataclasses.replace(FULL_WIDTH, **change)
    made = {name: program_on(machine("hopper"), weights(), dims, pipeline_hopper, plan, name)
            for name, plan in {"fp32": EXACT, **PLANS}.items()}  # fmt: skip
    measure_scales(made["fp8"], random_samples(dims, 2, tokens), 99.9, lambda text: None)
    return made, random_inputs(dims, 1, tokens)


def actions(p: Program, inputs: Any, denoise: Callable[..., None] | None = None) -> np.ndarray:
    """An eager run. denoise: the plan's own form."""
    stream = p.machine.ctx.stream_handle(p.machine.stream)
    p.write(inputs.images, inputs.ids, inputs.noise)
    p.emit(Variant.FULL_U8, p.machine.ops, p.attn, stream, denoise)
    p.machine.sync()
    return p.output()


def check_against_the_ops(made: dict[str, Program], inputs: Any, precision: str, what: str) -> None:
    """The plan's form is no further from fp32 than the separate ops are (other order of sums), and next to them."""
    p = made[precision]
    exact, ops, form = actions(made["fp32"], inputs), actions(p, inputs, pipeline_hopper.denoise), actions(p, inputs)
    error = {name: np.linalg.norm(x - exact) / np.linalg.norm(exact) for name, x in (("ops", ops), ("form", form))}
    print(f"\n{what}, {precision}: cosine to fp32 {cosine(form, exact):.6f} (ops {cosine(ops, exact):.6f}), "
          f"to the ops {cosine(form, ops):.6f}; error {error['form']:.5f} (ops {error['ops']:.5f})")  # fmt: skip
    assert np.isfinite(form).all()
    assert error["form"] <= 1.3 * error["ops"] + 1e-4
    assert np.linalg.norm(form - ops) <= 2 * error["ops"] * np.linalg.norm(exact)


def check_prompt_lengths(p: Program) -> None:
    """The prompt's length is data: other lengths need no capture, and wrong ones are clamped."""
    p.capture()
    for length in (48, 3, 29):
        inputs = random_inputs(p.dims, length, length)
        ops = actions(p, inputs, pipeline_hopper.denoise)
        p.write(inputs.images, inputs.ids, inputs.noise)
        assert cosine(p.replay(Variant.FULL_U8), ops) > 0.9999, f"prompt of {length} tokens"
    for wrong in (-7, 1 << 20):  # read nothing outside the cache, wait for nothing that does not come
        p.machine.upload(p.buffers["prefix_len"], np.array([wrong], dtype=np.int32))
        p.machine.upload(p.buffers["actions"], inputs.noise)
        assert np.isfinite(p.replay(Variant.CACHED)).all()
