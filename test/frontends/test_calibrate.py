"""Calibration of a real program: what is measured, that it covers every site, and that clipping scales are refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.checkpoints import TINY, random_tensors
from support.launch_list import Recorded
from support.programs import calibrated_program, cosine, host_program, random_inputs, random_samples
from support.sizes import DEMO

from flashrt_core.errors import ConfigError
from flashrt_core.frontends.calibrate import measure_means, measure_scales
from flashrt_core.frontends.program import Variant
from flashrt_core.hardware.host.machine import HostMachine
from flashrt_core.hardware.host.ops import tensor_at
from flashrt_core.models.pi05 import pipeline_hopper, pipeline_host
from flashrt_core.models.pi05.sites import weight_site
from flashrt_core.ops.measure import MeasuringOps, Output
from flashrt_core.types import BF16


def samples(n: int) -> list:
    return random_samples(TINY, n, 11, seed=0)


@pytest.fixture(scope="module", params=["fp32", "fp8"])
def program(request):
    plan = pipeline_host.PLAN_WIDE if request.param == "fp32" else pipeline_host.PLAN_FP8
    return host_program(random_tensors(TINY, 0), TINY, plan)


def inputs_of_gemms(program, sample) -> dict[str, np.ndarray]:
    """What each site's producer computes, before it is rounded, by site; the scales must be set."""
    seen = {}

    def keep(output) -> None:
        site = program.site_names[program.site_at(output.slot)]
        read = tensor_at(output.ptr, (output.rows, output.cols), output.dtype)
        valid = program.valid_prefix() if site.startswith("encoder.") else output.rows
        seen[site] = read[:valid].float().numpy().copy()

    program.write(*sample)
    program.run_measured(Variant.FULL_U8, keep)
    return seen


def test_scales_are_the_largest_magnitudes_of_the_real_activations(program) -> None:
    one = samples(1)
    scales = measure_scales(program, one, 99.9, lambda text: None).scales
    assert list(scales) == list(program.site_names) and all(s > 0 for s in scales.values())
    seen = inputs_of_gemms(program, one[0])  # with these scales it computes what it computed while they were measured
    assert set(seen) == set(scales)
    for site, x in seen.items():
        assert np.isclose(scales[site], np.abs(x).max() / 448, rtol=1e-6), site


def test_the_measured_run_is_the_captured_one(program) -> None:
    one = samples(1)
    measure_scales(program, one, 99.9, lambda text: None)
    measured = program.output().copy()
    program.capture()
    program.write(*one[0])
    assert np.array_equal(program.replay(Variant.FULL_U8), measured)


def test_means_are_those_of_what_the_gemms_read(program) -> None:
    two = samples(2)
    means = measure_means(program, two, lambda text: None)
    assert set(means) == {weight_site(site) for site in program.site_names}
    want: dict[str, list] = {}
    for sample in two:
        measure_scales(program, [sample], 99.9, lambda text: None)  # as each sample is measured: with scales of its own
        for site, x in inputs_of_gemms(program, sample).items():
            want.setdefault(weight_site(site), []).append(x)
    for weight, parts in want.items():
        mean = np.concatenate(parts).mean(0, dtype=np.float64)
        assert means[weight].dtype == np.float32 and np.allclose(means[weight], mean, rtol=1e-4, atol=1e-5), weight
    assert len(want["decoder.0.qkv"]) == 2 * TINY.num_steps


def test_rounding_that_keeps_the_means_is_closer_to_fp32() -> None:
    """The demo's size: nearest rounding leaves three times the error."""
    state, inputs = random_tensors(DEMO, 0), random_inputs(DEMO, 1, 17)
    exact = captured(host_program(state, DEMO), inputs)
    nearest = host_program(state, DEMO, pipeline_host.PLAN_FP8)
    measure_scales(nearest, random_samples(DEMO, 2, 17), 99.9, lambda text: None)
    plan, few = pipeline_host.PLAN_FP8, random_samples(DEMO, 2, 17)
    keeping = calibrated_program(HostMachine(), state, DEMO, pipeline_host, plan, few)
    error = {name: 1 - cosine(captured(p, inputs), exact) for name, p in (("nearest", nearest), ("keeping", keeping))}
    assert error["keeping"] <= 0.6 * error["nearest"], error


def captured(program, inputs) -> np.ndarray:
    program.capture()
    program.write(inputs.images, inputs.ids, inputs.noise)
    return program.replay(Variant.FULL_U8)


def test_rows_behind_the_prompt_are_not_measured() -> None:
    """A prompt of 11 tokens gives the same scales and means whatever room there is for longer ones."""
    state, one = random_tensors(TINY, 0), samples(1)
    found = []
    for capacity in (11, 40):
        p = host_program(state, dataclasses.replace(TINY, prompt_capacity=capacity), pipeline_host.PLAN_FP8)
        means = measure_means(p, one, lambda text: None)
        found.append((measure_scales(p, one, 99.9, lambda text: None).scales, means))
    (scales, means), (more_scales, more_means) = found
    assert all(np.isclose(more_scales[site], scale, rtol=1e-5) for site, scale in scales.items())
    assert all(np.allclose(more_means[w], mean, rtol=1e-3, atol=1e-5) for w, mean in means.items())


def test_decoder_sites_differ_per_step(program) -> None:
    scales = measure_scales(program, samples(2), 99.9, lambda text: None).scales
    assert len({scales[f"decoder.step{k}.0.qkv"] for k in range(TINY.num_steps)}) == TINY.num_steps


def test_F43_scales_that_clip_are_refused_by_site(program) -> None:
    quiet, loud = samples(2)
    loud = (loud[0], loud[1], loud[2] * 40)  # the smallest amax of the two cannot hold the loud sample
    with pytest.raises(ConfigError, match=r"FP8 scale of site decoder\.step\d.*saturated"):
        measure_scales(program, [quiet, loud], 0.0, lambda text: None)


@pytest.mark.parametrize("plan", [pipeline_host.PLAN_WIDE, pipeline_host.PLAN_FP8], ids=lambda plan: plan.name)
def test_a_broken_weight_is_found_at_its_site(plan) -> None:
    tensors = random_tensors(TINY, 0)
    name = "paligemma_with_expert.paligemma.model.language_model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name] * 1e38
    for measure in (measure_means, lambda program, few, say: measure_scales(program, few, 99.9, say)):
        with pytest.raises(ValueError, match=r"amax of site encoder\.0\.down|amax of site encoder\.1\.qkv"):
            measure(host_program(tensors, TINY, plan), samples(1), lambda text: None)


@pytest.mark.parametrize("plan", [pipeline_hopper.PLAN_WIDE, pipeline_hopper.PLAN_FP8], ids=lambda plan: plan.name)
def test_what_measures_is_launched_on_the_stream_of_what_is_measured(plan) -> None:
    """Otherwise a GPU reads an output before its op has written it."""
    recorded = Recorded(pipeline_hopper, plan)
    recorder, program, stream = recorded.machine.ops, recorded.program, 77
    recorder.launches.clear()
    scratch = np.zeros(1 << 20, np.uint8)

    def measure(output: Output) -> None:
        recorder.amax(output.ptr, output.slot, output.rows * output.cols, output.dtype, output.stream)

    ops = MeasuringOps(recorder, measure, BF16, scratch.ctypes.data // 64 * 64 + 64)
    program.emit(Variant.FULL_U8, ops, recorded.machine.with_ops(program.attn, ops), stream)
    names = [name for name, _ in recorder.launches]
    assert names.count("amax") == len(program.site_names)
    assert {values["stream"] for _, values in recorder.launches} == {stream}
