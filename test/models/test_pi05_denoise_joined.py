"""The denoise loop with five calls a layer (17 to 64 actions) against the same loop of separate ops, fp32 and the oracle."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.denoise_forms import PLANS, actions, check_against_the_ops, check_prompt_lengths, programs_of, weights
from support.launch_list import Recorder
from support.machines import machine
from support.oracle import OraclePi05
from support.programs import as_float_images, calibrated_program, cosine, program_on, random_inputs, random_samples
from support.sizes import FULL_WIDTH

from flashrt_core.blocks.adarms import ExpertBuffers, ExpertLayer, ExpertSites
from flashrt_core.blocks.denoise import DenoiseWeights, StepStyles, denoise_joined
from flashrt_core.blocks.linear import Linear
from flashrt_core.blocks.plan import FP8_PER_STEP
from flashrt_core.frontends.program import Program, Variant
from flashrt_core.hardware.slot_attention import SlotAttentionBackend
from flashrt_core.models.pi05 import pipeline_hopper
from flashrt_core.types import BF16, E4M3, F32

CASES = {  # change of the dims, prompt tokens
    "50 actions": (dict(horizon=50), 48),
    "17 actions, 1 token": (dict(horizon=17, num_steps=1), 1),
    "64 actions, 3 views, long prompt": (dict(horizon=64, num_views=3, prompt_capacity=192, num_steps=2), 190),
}
COSINE = {"bf16": 0.9999, "fp8": 0.9996}  # to the oracle, as for 10 actions


@functools.cache
def programs(case: str) -> tuple[dict[str, Program], object]:
    """fp32, BF16 and FP8 programs of one case."""
    return programs_of(*CASES[case])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PLANS)
@pytest.mark.parametrize("case", CASES)
def test_joined_calls_are_the_loop_of_ops(case: str, precision: str) -> None:
    made, inputs = programs(case)
    assert made[precision].denoise is pipeline_hopper.denoise_joined
    check_against_the_ops(made, inputs, precision, case)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", PLANS)
def test_replays_are_equal(precision: str) -> None:
    made, inputs = programs("50 actions")
    p = made[precision]
    want = actions(p, inputs)
    p.capture()
    for i in range(1000):
        p.write(inputs.images, inputs.ids, inputs.noise)
        assert np.array_equal(p.replay(Variant.CACHED if i else Variant.FULL_U8), want), f"replay {i} differs"
    d = p.dims
    assert p.graph.captured(Variant.CACHED).nodes <= d.num_steps * (5 * d.expert.num_layers + 1) + 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", COSINE)
def test_fifty_actions_against_the_oracle(precision: str) -> None:
    dims = dataclasses.replace(FULL_WIDTH, horizon=50)
    inputs = random_inputs(dims, 1, 17)
    want = OraclePi05(weights(), dims).run(as_float_images(inputs.images), inputs.ids, torch.from_numpy(inputs.noise))[0].numpy()
    if precision == "fp8":
        samples = random_samples(dims, 4, 17)
        p = calibrated_program(machine("hopper"), weights(), dims, pipeline_hopper, pipeline_hopper.PLAN_FP8, samples)
    else:
        p = program_on(machine("hopper"), weights(), dims, pipeline_hopper, pipeline_hopper.PLAN_WIDE, "bf16")
    got = actions(p, inputs)
    print(f"\n50 actions, {precision}: cosine {cosine(got, want):.6f}")
    assert p.denoise is pipeline_hopper.denoise_joined and cosine(got, want) >= COSINE[precision]


@pytest.mark.gpu
def test_prompt_length_is_data() -> None:
    check_prompt_lengths(programs("50 actions")[0]["bf16"])


def test_five_calls_a_layer() -> None:
    """The calls and their arguments, which are checked, over addresses that hold nothing."""
    d, rows, layers, ops = FULL_WIDTH.expert, 50, 3, Recorder()
    lin = {name: Linear(0x1000, n, k, E4M3, 0, 0x1000)
           for name, n, k in (("qkv", 2560, 1024), ("o", 1024, 2048), ("gate_up", 4096, 1024), ("down", 1024, 4096))}  # fmt: skip
    b = ExpertBuffers(0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000, [0x8000] * layers, [0x9000] * layers, 610, 0xA000)
    kv = [(0x8000, 0x9000)] * layers
    slot = dict(q=b.q, kv=kv, out=b.act, batch=1, q_stride=2048, kv_stride=256, kv_len=b.prefix_len, kv_extra=rows,
                precision=FP8_PER_STEP)  # fmt: skip
    spec = SimpleNamespace(num_q_heads=8, num_kv_heads=1, head_dim=256)
    attn = SlotAttentionBackend.__new__(SlotAttentionBackend)
    attn._ops, attn.slots, attn.check_run = ops, {"decoder": slot}, lambda site, layer, q_seq, kv_seq: (spec, kv_seq)
    w = DenoiseWeights(Linear(0xB000, 1024, 32, F32, 0xB100), [ExpertLayer(**lin)] * layers, Linear(0xB200, 32, 1024, F32, 0xB300))
    sites, styles = ExpertSites([(0x10, 0x20, 0x30, 0x40)] * layers), StepStyles([(0x100, 0x200)] * layers, 0x300)
    denoise_joined(ops, b, 0xC000, 0xD000, w, d, [sites] * 2, FP8_PER_STEP, [styles] * 2, attn=attn, rows=rows)
    layer = ["gemm_qkv_rope", "attention", "gemm_gate_norm", "gemm", "gemm_gate_norm"]
    assert [name for name, _ in ops.launches] == ["action_step", *[*layer * layers, "action_step"] * 2]
    between = [(v["leave"], v["enter"]) for name, v in ops.launches if name == "action_step"]
    assert between == [(0, 1), (1, 1), (1, 0)]
    ends = [v for name, v in ops.launches if name == "gemm_gate_norm"]
    assert [(v["style"], v["gate"], v["normed"], v["normed_dtype"], v["out_scale"]) for v in ends[-3:]] == [
        (0x100, 0x200 + 8192, b.qkv, E4M3, 0x10), (0x200, 0x100 + 8192, b.qkv, E4M3, 0x30),
        (0x300, 0x200 + 8192, 0xD000, F32, 0)]  # fmt: skip
    assert all(v["out"] == v["res"] == b.h for v in ends) and FP8_PER_STEP.wide == BF16
