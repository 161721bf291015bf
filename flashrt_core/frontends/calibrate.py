"""Measure a program that is to run in FP8: what its GEMMs read has a scale per site and, for the rounding of weights, a mean.

Samples run eagerly through the quantised pipeline itself. A site's scale is set between the moment its values are known and the
moment they are rounded (ops/measure.py), so everything behind it sees what it will see on the robot, and nothing but the
quantised weights has to be in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..core.quant.calibrator import CalibrationResult, Calibrator, check_saturation
from ..core.quant.e4m3 import scale_from_amax
from ..ops.measure import Output
from ..ops.table import SCALE_BYTES
from ..types import F32
from .program import Program, full_variant

Sample = tuple[Sequence[np.ndarray], list[int], np.ndarray]  # images, token ids, noise
Say = Callable[[str], None]


def measure_means(program: Program, samples: Sequence[Sample], say: Say) -> dict[str, np.ndarray]:
    """Mean over rows and samples of what each GEMM reads, fp32 [K], by weight: "encoder.3.down", one for all denoise steps.

    ObservationError when a value is not finite.
    """
    machine = program.machine
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, int] = {}
    widest = max(row.shape[-1] for row in program.rows.rows.values())
    column = machine.ctx.buffer("calibration.columns", F32.nbytes * widest)

    def add(site: str, output: Output) -> None:
        weight = program.model.weight_site(site)
        machine.upload(column, np.zeros(output.cols, np.float32))
        machine.ops.column_sum(output.ptr, column.dptr(), output.rows, output.cols, output.dtype, output.stream)
        total = machine.download(column, F32, (output.cols,))
        sums[weight] = sums.get(weight, 0.0) + total.astype(np.float64)
        rows[weight] = rows.get(weight, 0) + output.rows

    for i, sample in enumerate(samples):
        say(f"calibrating: means of observation {i + 1} of {len(samples)}")
        _observe(program, sample, Calibrator(), add)
    return {weight: (total / rows[weight]).astype(np.float32) for weight, total in sums.items()}


def measure_scales(program: Program, samples: Sequence[Sample], percentile: float, say: Say) -> CalibrationResult:
    """Scales of all sites; leaves them set. ConfigError (F43) when more than 1 % of a site's values would saturate."""
    calibrator = Calibrator()
    for i, sample in enumerate(samples):
        say(f"calibrating: observation {i + 1} of {len(samples)}")
        _observe(program, sample, calibrator)
    result = calibrator.result(percentile)
    program.set_scales(result.scales)
    clipped, seen = _count_clipped(program, samples)
    check_saturation(dict(zip(program.site_names, (clipped / seen).tolist(), strict=True)))
    return result


def _observe(
    program: Program, sample: Sample, calibrator: Calibrator, also: Callable[[str, Output], None] | None = None
) -> None:
    """Run one sample, each site scaled by its own largest value. also(site, output): what else is to be measured."""
    machine, names = program.machine, program.site_names
    result = machine.ctx.buffer("calibration.result", SCALE_BYTES)
    amax = np.zeros(len(names), np.float32)

    def measure(site: int, output: Output) -> None:
        machine.upload(result, np.zeros(1, np.float32))
        machine.ops.amax(output.ptr, result.dptr(), output.rows * output.cols, output.dtype, output.stream)
        amax[site] = machine.download(result, F32, (1,))[0]
        calibrator.observe(names[site], float(amax[site]))
        program.put_scales(scale_from_amax(amax))
        if also:
            also(names[site], output)

    _run(program, sample, measure)
    calibrator.end_sample()


def _count_clipped(program: Program, samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """(values that the scales clip, values), both per site."""
    machine, shape = program.machine, (len(program.site_names), SCALE_BYTES // 4)  # laid out as the scales are
    counts = machine.ctx.buffer("calibration.clipped", F32.nbytes * shape[0] * shape[1])
    clipped, seen = np.zeros(shape[0]), np.zeros(shape[0])

    def measure(site: int, output: Output) -> None:
        n, into = output.rows * output.cols, counts.dptr() + SCALE_BYTES * site
        seen[site] += n
        machine.ops.count_saturated(output.ptr, output.slot, into, n, output.dtype, output.stream)

    for sample in samples:
        machine.upload(counts, np.zeros(shape, np.float32))
        _run(program, sample, measure)
        clipped += machine.download(counts, F32, shape)[:, 0]
    return clipped, seen


def _run(program: Program, sample: Sample, measure: Callable[[int, Output], None]) -> None:
    """Run one sample. measure(number of the site, the rows of its output that reach the actions)."""
    images, ids, noise = sample

    def used(output: Output) -> None:
        site = program.site_at(output.slot)
        rows = program.model.used_rows(program.site_names[site], output.rows, program.dims, len(ids))
        measure(site, replace(output, rows=rows))

    program.write(images, ids, noise)
    program.run_measured(full_variant(images), used)
