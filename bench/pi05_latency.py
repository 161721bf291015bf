"""Latency of full-size Pi0.5 with random weights on one GPU: graph replay by CUDA events, wall clock apart, per-op table.

    python bench/pi05_latency.py --out result.json            # 2 views, 10 steps, chunk 10, prompt capacity 48
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from op_table import op_rows, print_rows
from random_weights import RandomSource

from flashrt_core.blocks.plan import BF16_STAGE, FP8_PER_STEP, FP8_STATIC, FP32, Plan
from flashrt_core.frontends.calibrate import measure_scales
from flashrt_core.frontends.program import Program, Variant
from flashrt_core.frontends.torch._pi05_spec import build_spec
from flashrt_core.frontends.torch.loading import load_tensors
from flashrt_core.hardware.hopper.machine import HopperMachine
from flashrt_core.models.pi05 import model, pipeline_hopper
from flashrt_core.models.pi05.dims import Pi05Dims

PROMPT = 48
PLANS = {
    "fp32": Plan(vision=FP32, encoder=FP32, decoder=FP32),
    "bf16": pipeline_hopper.PLAN_WIDE,
    "fp8": pipeline_hopper.PLAN_FP8,
    # one stage in FP8, the others in BF16: where the error of "fp8" comes from
    "fp8_vision": Plan(vision=FP8_STATIC, encoder=BF16_STAGE, decoder=BF16_STAGE),
    "fp8_encoder": Plan(vision=BF16_STAGE, encoder=FP8_STATIC, decoder=BF16_STAGE),
    "fp8_decoder": Plan(vision=BF16_STAGE, encoder=BF16_STAGE, decoder=FP8_PER_STEP),
    # one stage in BF16, the others in FP8: what its error costs
    "bf16_vision": Plan(vision=BF16_STAGE, encoder=FP8_STATIC, decoder=FP8_PER_STEP),
    "bf16_encoder": Plan(vision=FP8_STATIC, encoder=BF16_STAGE, decoder=FP8_PER_STEP),
    "bf16_decoder": Plan(vision=FP8_STATIC, encoder=FP8_STATIC, decoder=BF16_STAGE),
}


def inputs(dims: Pi05Dims, seed: int) -> tuple[np.ndarray, list[int], np.ndarray]:
    rng, side = np.random.default_rng(seed), dims.vision.image_size
    images = rng.integers(0, 256, (dims.num_views, side, side, 3), dtype=np.uint8)
    ids = rng.integers(0, dims.vocab_size, min(PROMPT, dims.prompt_capacity)).tolist()
    return images, ids, rng.standard_normal((dims.horizon, dims.action_dim), dtype=np.float32)


def build(machine: HopperMachine, dims: Pi05Dims, precision: str, scales: dict[str, float] | None) -> Program:
    plan, source = PLANS[precision], RandomSource(dims)
    program = Program(precision, machine, model, pipeline_hopper, dims, plan)
    spec = build_spec(dims, plan, model.embedding_key(source))
    program.tensors, program.weight_scales = load_tensors(source, spec, model, dims, machine)
    program.weights = model.weights_at(program.tensors, dims, plan, machine.ptr, machine.ptr(program.tensors.styles))
    if scales:
        program.set_scales(scales)
    return program


def percentiles(values: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (50, 95, 99)}


def measure(program: Program, sample: tuple, replays: int) -> tuple[dict[str, float], dict[str, float]]:
    """(replay by events, wall clock of write + replay + download), milliseconds, after a warm-up."""
    ctx, graph = program.machine.ctx, program.graph
    program.write(*sample)
    for _ in range(30):
        graph.replay(Variant.FULL_U8)
    program.machine.sync()
    replay, wall = [], []
    for _ in range(replays):
        begin, end = ctx.event(), ctx.event()
        begin.record()
        graph.replay(Variant.FULL_U8)
        end.record()
        replay.append(end.ms_since(begin))
    for _ in range(replays):
        start = time.perf_counter()
        program.write(*sample)
        program.replay(Variant.FULL_U8)
        wall.append(1000 * (time.perf_counter() - start))
    return percentiles(replay), percentiles(wall)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def commit() -> str:
    try:
        return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "?"
    except OSError:
        return "?"


def gpu_line() -> str:
    fields = "name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--capacity", type=int, default=48)
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--autotune", type=int, default=3)
    parser.add_argument("--precisions", default="fp32,bf16,fp8")
    parser.add_argument("--no-ops", action="store_true", help="leave the per-op table out")
    args = parser.parse_args()
    dims = dataclasses.replace(
        Pi05Dims(), num_views=args.views, horizon=args.chunk, num_steps=args.steps, prompt_capacity=args.capacity
    )
    machine = HopperMachine()
    sample, chunks, rows, scales = inputs(dims, 1), {}, [], None
    tables = {}
    for precision in args.precisions.split(","):
        machine.autotune = args.autotune
        torch.cuda.empty_cache()
        start = time.perf_counter()
        program = build(machine, dims, precision, scales if PLANS[precision].quantised else None)
        machine.sync()
        loaded = time.perf_counter()
        if precision == "bf16":  # calibration is on BF16, as in a frontend
            scales = measure_scales(program, [inputs(dims, s) for s in (2, 3)], 99.9, lambda text: None).scales
        calibrated = time.perf_counter()
        program.capture()
        captured = time.perf_counter()
        program.write(*sample)
        chunks[precision] = program.replay(Variant.FULL_U8)
        if precision == "fp32":
            continue
        replay, wall = measure(program, sample, args.replays)
        graph = program.graph.captured(Variant.FULL_U8)
        weights = sum(t.numel() * t.element_size() for t in tensors_of(program.tensors))
        rows.append(
            dict(
                model="pi05", gpu=torch.cuda.get_device_name(), precision=precision, views=dims.num_views,
                chunk=dims.horizon, num_steps=dims.num_steps, prompt_len=len(sample[1]), capacity=dims.prompt_capacity,
                **{f"replay_ms_{k}": v for k, v in replay.items()}, **{f"wall_ms_{k}": v for k, v in wall.items()},
                nodes=graph.nodes, ops=len(graph.launches),
                cosine_fp32=round(cosine(chunks[precision], chunks["fp32"]), 7) if "fp32" in chunks else None,
                load_s=round(loaded - start, 2), calibrate_s=round(calibrated - loaded, 2),
                capture_s=round(captured - calibrated, 2), weight_gib=round(weights / 2**30, 2),
                scratch_mib=machine.ops.kernels.reserved() >> 20,
                peak_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2), autotune=args.autotune,
                commit=commit(), date=datetime.date.today().isoformat(),
            )
        )  # fmt: skip
        if not args.no_ops:
            tables[precision] = op_rows(machine, graph.launches)
            print(f"\n== {precision}: ops of one replay, each row timed alone")
            print_rows(tables[precision])
            routes = {}
            for name, v in graph.launches:
                if name == "gemm":
                    key = tuple(v[k] for k in ("M", "N", "K", "epilogue", "a_dtype", "res_dtype", "out_dtype"))
                    routes[key] = routes.get(key, 0) + 1
            for key, count in routes.items():
                print(f"   gemm {key} x{count}: {machine.ops.kernels.gemm_route(*key)}")
        program = None
    print(f"\n{gpu_line()}; torch {torch.__version__}")
    for r in rows:
        print(
            f"{r['precision']}: replay P50 {r['replay_ms_p50']:.3f} P95 {r['replay_ms_p95']:.3f} P99 {r['replay_ms_p99']:.3f} ms, "
            f"wall P50 {r['wall_ms_p50']:.3f} ms, nodes {r['nodes']} ({r['ops']} ops), cosine to fp32 {r['cosine_fp32']}, "
            f"load {r['load_s']} s, calibrate {r['calibrate_s']} s, capture {r['capture_s']} s, weights {r['weight_gib']} GiB"
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"gpu": gpu_line(), "torch": torch.__version__, "rows": rows, "ops": tables}, indent=1))


def tensors_of(target: object) -> list[torch.Tensor]:
    out = []
    for value in vars(target).values():
        out += [t for t in (value if isinstance(value, list) else [value]) if isinstance(t, torch.Tensor)]
    return out


if __name__ == "__main__":
    main()
