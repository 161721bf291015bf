"""The two clocks of a benchmark: replay by CUDA events, and the wall clock of a whole `predict`, each after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 of milliseconds, to 0.1 us."""
    return {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (50, 95, 99)}


def replay_ms(program: Any, variant: int, count: int, warmup: int) -> list[float]:
    """Each replay between two events on its stream: the device's own clock, nothing of the host in it."""
    ctx, graph, stream = program.machine.ctx, program.graph, program.machine.stream
    for _ in range(warmup):
        graph.replay(variant, stream)
    program.machine.sync()
    out = []
    begin, end = ctx.event(), ctx.event()
    for _ in range(count):
        begin.record(stream)
        graph.replay(variant, stream)
        end.record(stream)
        out.append(end.ms_since(begin))
    return out


def wall_ms(call: Callable[[int], Any], count: int, warmup: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Wall clock of `call(i)`, one after the other."""
    for i in range(warmup):
        call(i)
    out = []
    for i in range(count):
        start = clock()
        call(warmup + i)
        out.append(1000 * (clock() - start))
    return out


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
