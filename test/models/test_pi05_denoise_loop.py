"""The denoise loop as one kernel against the same loop of separate ops and against fp32, at the published widths."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from support.denoise_forms import EXACT, PLANS, actions, check_against_the_ops, check_prompt_lengths, programs_of
from support.machines import machine
from support.sizes import DEMO, FULL_WIDTH

from flashrt_core.errors import OpError
from flashrt_core.frontends.program import Program, Variant
from flashrt_core.models.pi05 import pipeline_hopper
from flashrt_core.types import U8

pytestmark = pytest.mark.gpu
CASES = {  # change of the dims, prompt tokens
    "10 actions": ({}, 48),
    "1 action, 1 token": (dict(horizon=1), 1),
    "9 actions": (dict(horizon=9, num_steps=1), 20),
    "16 actions, 1 view": (dict(horizon=16, num_views=1, num_steps=2), 48),
    "3 views, long prompt": (dict(num_views=3, prompt_capacity=200, num_steps=2), 200),
}


@functools.cache
def programs(case: str) -> tuple[dict[str, Program], object]:
    """fp32, BF16 and FP8 programs of one case."""
    return programs_of(*CASES[case])


@pytest.mark.parametrize("precision", PLANS)
@pytest.mark.parametrize("case", CASES)
def test_one_kernel_is_the_loop_of_ops(case: str, precision: str) -> None:
    made, inputs = programs(case)
    assert made[precision].denoise is pipeline_hopper.denoise_at_once
    check_against_the_ops(made, inputs, precision, case)


@pytest.mark.parametrize("precision", PLANS)
def test_a_thousand_replays_are_equal(precision: str) -> None:
    made, inputs = programs("10 actions")
    p = made[precision]
    want = actions(p, inputs)
    p.capture()
    p.write(inputs.images, inputs.ids, inputs.noise)
    assert np.array_equal(p.replay(Variant.FULL_U8), want), "captured is eager"
    for i in range(1000):
        p.write(inputs.images, inputs.ids, inputs.noise)
        assert np.array_equal(p.replay(Variant.CACHED), want), f"replay {i} differs"
    assert p.graph.captured(Variant.CACHED).nodes <= 2


def test_prefix_length_is_data_and_is_clamped() -> None:
    check_prompt_lengths(programs("10 actions")[0]["bf16"])


def test_not_a_number_passes_through() -> None:
    """NaN is also what an empty word of the exchange is: values that are NaN must not stop the kernel."""
    made, inputs = programs("10 actions")
    for precision in PLANS:
        noise = inputs.noise.copy()
        noise[3, 5] = np.float32(np.nan)
        noise.view(np.uint32)[4, 6] = 0xFFFFFFFF
        p = made[precision]
        p.write(inputs.images, inputs.ids, noise)
        p.emit(Variant.CACHED, p.machine.ops, p.attn, p.machine.ctx.stream_handle(p.machine.stream))
        p.machine.sync()
        assert np.isnan(p.output()).any()


def test_other_sizes_keep_the_ops() -> None:
    for dims in (DEMO, dataclasses.replace(FULL_WIDTH, horizon=65)):
        assert pipeline_hopper.plan_denoise(machine("hopper"), dims, pipeline_hopper.PLAN_FP8) is pipeline_hopper.denoise
    assert pipeline_hopper.plan_denoise(machine("hopper"), FULL_WIDTH, EXACT) is pipeline_hopper.denoise


@pytest.mark.parametrize(
    ("arg", "change"),
    [("M", dict(M=17)), ("D", dict(D=2048)), ("L", dict(L=25)), ("cache_rows", dict(cache_rows=1025)), ("in_w", dict(in_w=0)),
     ("scales", dict(scales=0)), ("shifts", dict(shifts=0)), ("actions", dict(actions=20)),
     ("layers", dict(layers=np.zeros((2, 10), np.uint64))),
     ("act_dtype", dict(act_dtype=0))],
)  # fmt: skip
def test_the_library_checks_its_arguments(arg: str, change: dict) -> None:
    made, _ = programs("10 actions")
    p, seen = made["fp8"], {}

    class Spy:
        denoise_loop = staticmethod(lambda **values: seen.update(values))

    pipeline_hopper.denoise_at_once(Spy, p.bufs[U8], p.weights, p.dims, p.sites, p.plan, attn=p.attn)
    with pytest.raises(OpError) as e:
        p.machine.ops.denoise_loop(**{**seen, **change})
    assert e.value.op == "denoise_loop" and e.value.arg == arg
