"""Calibration of a real program: what is measured, that it covers every site, and that clipping scales are refused."""

from __future__ import annotations

import numpy as np
import pytest
from support.checkpoints import TINY, random_tensors
from support.programs import host_program, random_inputs

from flashrt_core.errors import ConfigError
from flashrt_core.frontends.calibrate import measure_scales
from flashrt_core.frontends.program import Variant


def samples(n: int) -> list:
    return [(s.images, s.ids, s.noise) for s in (random_inputs(TINY, i, 11) for i in range(n))]


@pytest.fixture(scope="module")
def program():
    return host_program(random_tensors(TINY, 0), TINY)


def test_scales_are_the_largest_magnitudes_of_the_real_activations(program) -> None:
    one = samples(1)
    scales = measure_scales(program, one, 99.9, lambda text: None).scales
    assert list(scales) == list(program.site_names) and all(s > 0 for s in scales.values())
    program.write(*one[0])
    program.emit(Variant.FULL_U8, program.machine.ops, program.attn, 0)
    last = program.buffers["dec.hidden"].array(np.float32, (TINY.horizon, TINY.expert.mlp_dim))  # still there afterwards
    assert np.isclose(scales["decoder.step9.1.down"], np.abs(last).max() / 448, rtol=1e-6)


def test_decoder_sites_differ_per_step(program) -> None:
    scales = measure_scales(program, samples(2), 99.9, lambda text: None).scales
    assert len({scales[f"decoder.step{k}.0.qkv"] for k in range(TINY.num_steps)}) == TINY.num_steps


def test_F43_scales_that_clip_are_refused_by_site(program) -> None:
    quiet, loud = samples(2)
    loud = (loud[0], loud[1], loud[2] * 40)  # the smallest amax of the two cannot hold the loud sample
    with pytest.raises(ConfigError, match=r"FP8 scale of site decoder\.step\d.*saturated"):
        measure_scales(program, [quiet, loud], 0.0, lambda text: None)


def test_a_broken_weight_is_found_at_its_site() -> None:
    tensors = random_tensors(TINY, 0)
    name = "paligemma_with_expert.paligemma.model.language_model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name] * 3e38
    with pytest.raises(ValueError, match=r"amax of site encoder\.0\.down|amax of site encoder\.1\.qkv"):
        measure_scales(host_program(tensors, TINY), samples(1), 99.9, lambda text: None)


def test_what_measures_is_launched_on_the_stream_of_what_is_measured() -> None:
    """Otherwise a GPU reads an output before its op has written it."""
    from support.launch_list import Recorded

    from flashrt_core.models.pi05 import pipeline_hopper
    from flashrt_core.ops.measure import MeasuringOps

    recorded = Recorded(pipeline_hopper, pipeline_hopper.PLAN_WIDE)
    recorder, program, stream = recorded.machine.ops, recorded.program, 77
    recorder.launches.clear()

    def measure(ops, out: int, n: int, dtype: int, slot: int, at: int) -> None:
        ops.amax(out, slot, n, dtype, at)

    ops = MeasuringOps(recorder, measure)
    program.emit(Variant.FULL_U8, ops, recorded.machine.with_ops(program.attn, ops), stream)
    names = [name for name, _ in recorder.launches]
    assert names.count("amax") == len(program.site_names)
    assert {values["stream"] for _, values in recorder.launches} == {stream}
