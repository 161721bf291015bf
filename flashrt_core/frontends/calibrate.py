"""Measure the activation scales of a program: one eager pass per sample for the amax, one more for what the scales clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.quant.calibrator import CalibrationResult, Calibrator, check_saturation
from ..ops.table import SCALE_BYTES
from ..types import F32
from .program import Program, full_variant

Sample = tuple[Sequence[np.ndarray], list[int], np.ndarray]  # images, token ids, noise


def measure_scales(
    program: Program, samples: Sequence[Sample], percentile: float, say: Callable[[str], None]
) -> CalibrationResult:
    """program: unquantised. ConfigError (F43) when more than 1 % of a site's values would saturate."""
    calibrator = Calibrator()
    for i, sample in enumerate(samples):
        say(f"calibrating: observation {i + 1} of {len(samples)}")
        amax = _measure(program, sample, lambda ops, out, n, dtype, slot, into, at: ops.amax(out, into, n, dtype, at))[0]
        for name, value in zip(program.site_names, amax, strict=True):
            calibrator.observe(name, float(value))
        calibrator.end_sample()
    result = calibrator.result(percentile)
    program.set_scales(result.scales)
    clipped, seen = np.zeros(len(program.site_names)), np.zeros(len(program.site_names))
    for sample in samples:
        count, size = _measure(
            program, sample, lambda ops, out, n, dtype, slot, into, at: ops.count_saturated(out, slot, into, n, dtype, at)
        )
        clipped, seen = clipped + count, seen + size
    check_saturation(dict(zip(program.site_names, (clipped / seen).tolist(), strict=True)))
    return result


def _measure(program: Program, sample: Sample, call: Callable[..., None]) -> tuple[np.ndarray, np.ndarray]:
    """Run one sample; `call(ops, out, n, dtype, scale_ptr, result_ptr, stream)` per site. Returns (results, values seen), both
    per site."""
    machine, count = program.machine, len(program.site_names)
    shape = (count, SCALE_BYTES // 4)  # laid out as the scales are: a site's result is where its scale is
    results = machine.ctx.buffer("calibration.results", SCALE_BYTES * count)
    machine.upload(results, np.zeros(shape, dtype=np.float32))
    seen = np.zeros(count)
    base, into = program.scales.dptr(), results.dptr()

    def measure(ops: Any, out: int, n: int, dtype: int, slot: int, stream: int) -> None:
        seen[(slot - base) // SCALE_BYTES] += n
        call(ops, out, n, dtype, slot, into + slot - base, stream)

    images, ids, noise = sample
    program.write(images, ids, noise)
    program.run_measured(full_variant(images), measure)
    return machine.download(results, F32, shape)[:, 0], seen
