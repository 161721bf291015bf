"""Calibration on a Hopper GPU: a sample gives the same scales first time and later, and those of the host within rounding."""

from __future__ import annotations

import numpy as np
import pytest
from support.checkpoints import random_tensors
from support.machines import machine
from support.programs import host_program, program_on, random_samples
from support.sizes import FULL_WIDTH

from flashrt_core.frontends.calibrate import measure_means, measure_scales
from flashrt_core.models.pi05 import pipeline_hopper, pipeline_host

pytestmark = pytest.mark.gpu


def test_scales_are_repeatable_and_those_of_the_host() -> None:
    """Full width, so that a GEMM takes longer than a launch: what is measured must have been written."""
    state, sample = random_tensors(FULL_WIDTH, 0), random_samples(FULL_WIDTH, 1, 17, seed=1)
    gpu = program_on(machine("hopper"), state, FULL_WIDTH, pipeline_hopper, pipeline_hopper.PLAN_FP8, "calibration")
    cpu = host_program(state, FULL_WIDTH, pipeline_host.PLAN_FP8)
    first, second = (measure_scales(gpu, sample, 99.9, lambda text: None).scales for _ in range(2))
    assert first == second
    host = measure_scales(cpu, sample, 99.9, lambda text: None).scales
    ratio = np.array([first[name] / host[name] for name in host])
    assert np.abs(ratio - 1).max() <= 0.05, dict(zip(host, ratio.tolist(), strict=True))
    got, want = (measure_means(program, sample, lambda text: None) for program in (gpu, cpu))
    assert list(got) == list(want)
    for name, mean in want.items():
        assert np.linalg.norm(got[name] - mean) <= 0.05 * np.linalg.norm(mean), name
