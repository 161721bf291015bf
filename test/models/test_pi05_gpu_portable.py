"""The portable kernels (mma.sync, no SM90 instruction) on a Hopper GPU that acts as SM 8.9 and 8.7: same oracle, same bars."""

from __future__ import annotations

import numpy as np
import pytest
from support.machines import machine
from support.programs import calibrated_program, cosine, program_on, random_samples
from support.sizes import SIZES
from test_pi05_gpu import BF16_COSINE, EXACT, FP8_COSINE, reference, run

from flashrt_core.hardware.rtx.machine import OrinMachine, Sm89Machine
from flashrt_core.models.pi05 import pipeline_rtx_sm89 as pipeline
from flashrt_core.ops.table import Epilogue
from flashrt_core.types import BF16, E4M3

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def sm89():
    yield Sm89Machine()
    machine("hopper").ops.kernels.act_as(0)


@pytest.mark.parametrize("name", ["tiny", "full_width"])
def test_fp32_is_the_oracle(sm89, name: str) -> None:
    dims, state, inputs, want = reference(name)
    got = run(program_on(sm89, state, dims, pipeline, EXACT, "fp32"), inputs)
    assert np.abs(got - want).max() <= 2e-4


@pytest.mark.parametrize("name", SIZES)
def test_bf16_against_the_oracle(sm89, name: str) -> None:
    dims, state, inputs, want = reference(name)
    got = run(program_on(sm89, state, dims, pipeline, pipeline.PLAN_WIDE, "bf16"), inputs)
    print(f"\nportable bf16 {name}: cosine {cosine(got, want):.6f}")
    assert cosine(got, want) >= BF16_COSINE


@pytest.mark.parametrize("name", FP8_COSINE)
def test_fp8_against_the_oracle(sm89, name: str) -> None:
    dims, state, inputs, want = reference(name)
    got = run(calibrated_program(sm89, state, dims, pipeline, pipeline.PLAN_FP8, random_samples(dims, 4, 17)), inputs)
    print(f"\nportable fp8 {name}: cosine {cosine(got, want):.6f}")
    assert cosine(got, want) >= FP8_COSINE[name]


def test_bf16_as_orin_uses_no_fp8_route() -> None:
    dims, state, inputs, want = reference("tiny")
    try:
        orin = OrinMachine()
        got = run(program_on(orin, state, dims, pipeline, pipeline.PLAN_WIDE, "orin"), inputs)
        assert cosine(got, want) >= BF16_COSINE
        route = orin.ops.kernels.gemm_route(10, 1024, 1024, Epilogue.NONE, E4M3, BF16, BF16)
        assert "few rows" not in route, "few-row FP8 needs SM 8.9"
    finally:
        machine("hopper").ops.kernels.act_as(0)


def test_a_gpu_does_not_act_as_a_newer_one() -> None:
    from flashrt_core.errors import OpError

    kernels = machine("hopper").ops.kernels
    with pytest.raises(OpError, match="act_as"):
        kernels.act_as(120)
