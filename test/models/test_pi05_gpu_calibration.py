"""Calibration on a Hopper GPU: a sample gives the same scales first time and later, and those of the host within rounding."""

from __future__ import annotations

import numpy as np
import pytest
from support.checkpoints import random_tensors
from support.machines import machine
from support.programs import host_program, program_on, random_inputs
from support.sizes import FULL_WIDTH

from flashrt_core.frontends.calibrate import measure_scales
from flashrt_core.models.pi05 import pipeline_hopper

pytestmark = pytest.mark.gpu


def test_scales_are_repeatable_and_those_of_the_host() -> None:
    """Full width, so that a GEMM takes longer than a launch: what is measured must have been written."""
    state, s = random_tensors(FULL_WIDTH, 0), random_inputs(FULL_WIDTH, 1, 17)
    sample = [(s.images, s.ids, s.noise)]
    gpu = program_on(machine("hopper"), state, FULL_WIDTH, pipeline_hopper, pipeline_hopper.PLAN_WIDE, "calibration")
    first, second = (measure_scales(gpu, sample, 99.9, lambda text: None).scales for _ in range(2))
    assert first == second
    host = measure_scales(host_program(state, FULL_WIDTH), sample, 99.9, lambda text: None).scales
    ratio = np.array([first[name] / host[name] for name in host])
    assert np.abs(ratio - 1).max() <= 0.05, dict(zip(host, ratio.tolist(), strict=True))
