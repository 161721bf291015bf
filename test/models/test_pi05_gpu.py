"""Pi0.5 on a Hopper GPU against the independent fp32 oracle, and the promises of a captured graph."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from support.checkpoints import TINY, random_tensors
from support.machines import machine
from support.oracle import OraclePi05
from support.programs import as_float_images, calibrated_program, cosine, program_on, random_inputs, random_samples
from support.sizes import SIZES

from flashrt_core.blocks.plan import FP32, Plan
from flashrt_core.frontends.program import Variant
from flashrt_core.models.pi05 import pipeline_hopper

pytestmark = pytest.mark.gpu
EXACT = Plan(vision=FP32, encoder=FP32, decoder=FP32)  # the same calls with nothing rounded: checks the plumbing
BF16_COSINE = 0.9999
FP8_COSINE = {"demo": 0.9995, "full_width": 0.9998}  # narrow random layers average less of the rounding away


@functools.cache
def reference(name: str):
    dims = SIZES[name]
    state, inputs = random_tensors(dims, 0), random_inputs(dims, 1, 17)
    images, noise = as_float_images(inputs.images), torch.from_numpy(inputs.noise)
    return dims, state, inputs, OraclePi05(state, dims).run(images, inputs.ids, noise)[0].numpy()


def program(state, dims, plan):
    return program_on(machine("hopper"), state, dims, pipeline_hopper, plan, plan.name)


def fp8_program(state, dims):
    plan, samples = pipeline_hopper.PLAN_FP8, random_samples(dims, 4, 17)
    return calibrated_program(machine("hopper"), state, dims, pipeline_hopper, plan, samples)


def run(p, inputs, variant: Variant = Variant.FULL_U8) -> np.ndarray:
    p.capture()
    p.write(inputs.images, inputs.ids, inputs.noise)
    return p.replay(variant)


@pytest.mark.parametrize("name", SIZES)
def test_fp32_on_the_gpu_is_the_oracle(name: str) -> None:
    dims, state, inputs, want = reference(name)
    got = run(program(state, dims, EXACT), inputs)
    print(f"\nfp32 {name}: max abs {np.abs(got - want).max():.2e}")
    assert np.abs(got - want).max() <= 2e-4


@pytest.mark.parametrize("name", SIZES)
def test_bf16_against_the_oracle(name: str) -> None:
    dims, state, inputs, want = reference(name)
    got = run(program(state, dims, pipeline_hopper.PLAN_WIDE), inputs)
    print(f"\nbf16 {name}: cosine {cosine(got, want):.6f}, max abs {np.abs(got - want).max():.4f}")
    assert cosine(got, want) >= BF16_COSINE


@pytest.mark.parametrize("name", FP8_COSINE)
def test_fp8_against_the_oracle(name: str) -> None:
    dims, state, inputs, want = reference(name)
    got = run(fp8_program(state, dims), inputs)
    print(f"\nfp8 {name}: cosine {cosine(got, want):.6f}, max abs {np.abs(got - want).max():.4f}")
    assert cosine(got, want) >= FP8_COSINE[name]


@pytest.mark.parametrize(
    "change",
    [
        dict(num_views=1), dict(num_views=3), dict(num_steps=1), dict(pool=2), dict(horizon=3), dict(prompt_capacity=18),
    ],
    ids=str,
)  # fmt: skip
def test_load_options_match_the_oracle(change: dict) -> None:
    dims = dataclasses.replace(TINY, **change)
    state, inputs = random_tensors(dims, 0), random_inputs(dims, 1, 17)
    images, noise = as_float_images(inputs.images), torch.from_numpy(inputs.noise)
    want = OraclePi05(state, dims).run(images, inputs.ids, noise)[0].numpy()
    assert np.abs(run(program(state, dims, EXACT), inputs) - want).max() <= 1e-4


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize(("name", "replays"), [("demo", 1000), ("full_width", 300)])
def test_captured_is_eager_and_a_thousand_replays_are_equal(name: str, replays: int, precision: str) -> None:
    """One input: eager and captured bit for bit, then replays of the graph, each with its inputs written again. The kernels for
    Gemma's and SigLIP's own head sizes run at full width alone."""
    dims, state, inputs, _ = reference(name)
    p = fp8_program(state, dims) if precision == "fp8" else program(state, dims, pipeline_hopper.PLAN_WIDE)
    p.capture()
    stream = p.machine.ctx.stream_handle(p.machine.stream)
    p.write(inputs.images, inputs.ids, inputs.noise)
    p.emit(Variant.FULL_U8, p.machine.ops, p.attn, stream)
    eager = p.output()
    assert np.isfinite(eager).all() and np.abs(eager).max() > 0
    free = p.machine.ctx.runtime.free_bytes()
    for i in range(replays):
        p.write(inputs.images, inputs.ids, inputs.noise)
        assert np.array_equal(p.replay(Variant.FULL_U8), eager), f"replay {i} differs"
    assert p.machine.ctx.runtime.free_bytes() == free, "nothing is allocated after capture"


def test_prompt_length_is_data_and_padding_is_not_seen() -> None:
    """One captured graph serves every prompt length; what is left of a longer prompt changes nothing."""
    dims, state, _, _ = reference("tiny")
    p = program(state, dims, EXACT)
    p.capture()
    for length in (64, 5, 1, 33):
        inputs = random_inputs(dims, length, length)
        p.write(inputs.images, inputs.ids, inputs.noise)
        got = p.replay(Variant.FULL_U8)
        images, noise = as_float_images(inputs.images), torch.from_numpy(inputs.noise)
        want = OraclePi05(state, dims).run(images, inputs.ids, noise)[0].numpy()
        assert np.abs(got - want).max() <= 1e-4, f"prompt of {length} tokens"


def test_cached_variant_and_float_images() -> None:
    dims, state, inputs, want = reference("tiny")
    p = program(state, dims, EXACT)
    p.capture()
    floats = inputs.images.astype(np.float32) / 255 * 2 - 1
    p.write(floats, inputs.ids, inputs.noise)
    assert np.abs(p.replay(Variant.FULL_F32) - want).max() <= 1e-4
    p.write(np.zeros_like(inputs.images), inputs.ids, inputs.noise)  # images are not looked at
    assert np.abs(p.replay(Variant.CACHED) - want).max() <= 1e-4
