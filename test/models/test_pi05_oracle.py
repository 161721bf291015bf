"""Pi0.5 on the host against an independent fp32 implementation, stage by stage and end to end."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.checkpoints import TINY, random_tensors
from support.oracle import OraclePi05
from support.programs import (
    as_float_images,
    calibrated_program,
    cosine,
    host_program,
    random_inputs,
    random_samples,
)  # fmt: skip
from support.sizes import DEMO, SIZES

from flashrt_core.frontends.program import Variant
from flashrt_core.hardware.host.machine import HostMachine
from flashrt_core.models.pi05 import pipeline_host
from flashrt_core.models.pi05.dims import Pi05Dims
from flashrt_core.types import U8

TOLERANCE = 1e-4
FP8_COSINE = {"demo": 0.9994, "full_width": 0.9998}  # nearest rounding of the weights: 0.9990 and 0.9997


@pytest.fixture(scope="module", autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def run_both(dims: Pi05Dims, seed: int = 0, prompt_len: int = 17):
    state = random_tensors(dims, seed)
    inputs = random_inputs(dims, seed + 1, prompt_len)
    want, trace = OraclePi05(state, dims).run(
        as_float_images(inputs.images), inputs.ids, torch.from_numpy(inputs.noise)
    )
    return state, inputs, want.numpy(), trace


def stages(program, inputs) -> dict[str, np.ndarray]:
    """Every stage of one eager run: vision tokens, K/V of each layer (valid rows), actions after each step."""
    d, out = program.dims, {}
    program.write(inputs.images, inputs.ids, inputs.noise)
    ops, args = program.machine.ops, (program.bufs[U8], program.weights, d, program.sites, program.plan)
    siglip = pipeline_host.siglip_forward

    def spy(*a, **k):
        siglip(*a, **k)
        out["vision"] = (
            program.buffers["enc.x"].array(np.float32, (d.prefix_rows, d.prefix.width))[: d.image_tokens].copy()
        )

    pipeline_host.siglip_forward = spy
    try:
        pipeline_host.encode(ops, *args, attn=program.attn)
    finally:
        pipeline_host.siglip_forward = siglip
    valid = d.image_tokens + len(inputs.ids)
    for i in range(d.prefix.num_layers):
        for name in "kv":
            cache = program.buffers[f"cache.{name}.{i}"].array(np.float32, (d.cache_rows, d.prefix.kv_dim))
            out[f"{name}.{i}"] = cache[:valid].copy()
    step = pipeline_host.denoise_step

    def spy_step(*a, **k):
        step(*a, **k)
        out[f"step.{len([n for n in out if n.startswith('step')])}"] = program.output()

    pipeline_host.denoise_step = spy_step
    try:
        pipeline_host.denoise(ops, *args, attn=program.attn)
    finally:
        pipeline_host.denoise_step = step
    return out


def half_split(k: np.ndarray, head_dim: int) -> np.ndarray:
    """Adjacent pairs (our layout) back to the published half-split order."""
    rows = k.reshape(k.shape[0], -1, head_dim // 2, 2)
    return rows.swapaxes(2, 3).reshape(k.shape)


@pytest.mark.parametrize("name", SIZES)
def test_fp32_matches_the_oracle_at_every_stage(name: str) -> None:
    dims = SIZES[name]
    state, inputs, want, trace = run_both(dims)
    got = stages(host_program(state, dims), inputs)
    assert np.abs(got["vision"] - trace.vision.numpy()).max() <= TOLERANCE
    for i in range(dims.prefix.num_layers):
        k = half_split(got[f"k.{i}"], dims.prefix.head_dim)
        assert np.abs(k - trace.keys[i].numpy()).max() <= TOLERANCE, f"K of layer {i}"
        assert np.abs(got[f"v.{i}"] - trace.values[i].numpy()).max() <= TOLERANCE, f"V of layer {i}"
    for s, ref in enumerate(trace.steps):
        assert np.abs(got[f"step.{s}"] - ref.numpy()).max() <= TOLERANCE, f"denoise step {s}"
    assert np.abs(got[f"step.{dims.num_steps - 1}"] - want).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["demo", "full_width"])
def test_fp8_emulation_stays_close_to_fp32(name: str) -> None:
    dims = SIZES[name]
    state, inputs, want, _ = run_both(dims)
    program = calibrated_program(
        HostMachine(), state, dims, pipeline_host, pipeline_host.PLAN_FP8, random_samples(dims, 4, 17)
    )
    program.capture()
    program.write(inputs.images, inputs.ids, inputs.noise)
    got = program.replay(Variant.FULL_U8)
    assert not np.array_equal(got, want), "FP8 must not be fp32 in disguise"
    assert cosine(got, want) >= FP8_COSINE[name]


@pytest.mark.parametrize(
    "change",
    [
        dict(num_views=1), dict(num_views=3), dict(num_steps=1), dict(num_steps=4), dict(pool=2), dict(horizon=3),
        dict(vision_layers_used=1), dict(prompt_capacity=18),
    ],
    ids=str,
)  # fmt: skip
def test_load_options_match_the_oracle(change: dict) -> None:
    dims = dataclasses.replace(TINY, **change)
    state, inputs, want, _ = run_both(dataclasses.replace(dims, vision_layers_used=0))
    if dims.vision_layers_used:
        cut = dataclasses.replace(dims, vision_layers_used=0, vision=dataclasses.replace(dims.vision, num_layers=1))
        kept = {k: v for k, v in state.items() if "encoder.layers.1." not in k}
        images = as_float_images(inputs.images)
        want = OraclePi05(kept, cut).run(images, inputs.ids, torch.from_numpy(inputs.noise))[0].numpy()
    program = host_program(state, dims)
    program.capture()
    program.write(inputs.images, inputs.ids, inputs.noise)
    assert np.abs(program.replay(Variant.FULL_U8) - want).max() <= TOLERANCE


def test_prompt_capacity_and_padding_do_not_reach_the_actions() -> None:
    state, inputs, want, _ = run_both(TINY, prompt_len=5)
    for capacity in (5, 6, 40):
        program = host_program(state, dataclasses.replace(TINY, prompt_capacity=capacity))
        program.capture()
        program.write(inputs.images, inputs.ids, inputs.noise)
        assert np.abs(program.replay(Variant.FULL_U8) - want).max() <= TOLERANCE


def test_captured_equals_eager_and_replays_are_bit_identical() -> None:
    state, inputs, _, _ = run_both(DEMO)
    program = host_program(state, DEMO)
    eager = stages(program, inputs)[f"step.{DEMO.num_steps - 1}"]
    program.capture()
    for _ in range(5):
        program.write(inputs.images, inputs.ids, inputs.noise)
        assert np.array_equal(program.replay(Variant.FULL_U8), eager)


def test_float_images_equal_uint8_images() -> None:
    state, inputs, want, _ = run_both(TINY)
    program = host_program(state, TINY)
    program.capture()
    floats = inputs.images.astype(np.float32) / 255 * 2 - 1
    program.write(floats, inputs.ids, inputs.noise)
    assert np.abs(program.replay(Variant.FULL_F32) - want).max() <= TOLERANCE


def test_cached_variant_keeps_the_prefix_and_denoises_new_noise() -> None:
    state, inputs, _, _ = run_both(TINY)
    program = host_program(state, TINY)
    program.capture()
    program.write(inputs.images, inputs.ids, inputs.noise)
    first = program.replay(Variant.FULL_U8)
    noise = random_inputs(TINY, 9, 3).noise
    program.write(np.zeros_like(inputs.images), inputs.ids, noise)  # images are not looked at
    cached = program.replay(Variant.CACHED)
    want = OraclePi05(state, TINY).run(as_float_images(inputs.images), inputs.ids, torch.from_numpy(noise))[0].numpy()
    assert np.abs(cached - want).max() <= TOLERANCE and not np.allclose(cached, first)
