"""Run one case: load, calibrate, capture, then time the replay and `predict`, and compare the actions with fp32."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..api import VLAModel, load_model
from ..blocks.plan import FP32, Plan
from ..errors import ConfigError
from ..frontends.program import Program, Variant
from .case import Case
from .facts import commit, cpu_name, today
from .measure import cosine, percentiles, replay_ms, wall_ms
from .op_table import op_rows
from .random_model import RandomCheckpoint, prompt_of

EXACT = Plan(vision=FP32, encoder=FP32, decoder=FP32)
PICTURES = 4  # observations in turn, so that no two neighbouring calls see the same one
COMPARED = 8  # observations that the cosine to fp32 is over; calibration saw none of them


@dataclass(frozen=True)
class Effort:
    """How much is measured. ops: the per-op table of a GPU. exact: fp32 with the same weights, for the cosine."""

    replays: int = 200
    warmup: int = 30
    ops: bool = True
    exact: bool = True
    autotune: int = 3


@dataclass(frozen=True)
class Measured:
    """row: one entry of `rows` in bench/results. ops: the per-op table, [] on the host."""

    row: dict[str, Any]
    ops: list[dict[str, Any]]


def run_case(
    case: Case, hardware: str = "auto", effort: Effort | None = None, say: Callable[[str], None] = lambda text: None,
    autotune_dir: str | Path | None = None,
) -> Measured:  # fmt: skip
    """Measure one case on this machine. On the host there are no events: the replay's columns are None.

    autotune_dir: where tuned choices are kept (default: the user's cache). ConfigError, CheckpointError and NotBuilt as
    `load_model` raises them.
    """
    effort = effort or Effort()
    with TemporaryDirectory() as place:
        clock = [time.perf_counter()]
        model = _load(case, hardware, effort, Path(place), say, autotune_dir)
        clock.append(time.perf_counter())
        pipe = model._pipe
        dims = pipe.dims
        looks = [observation(pipe, case, i) for i in range(PICTURES)]
        prompt = prompt_of(case.prompt_len or dims.prompt_capacity) if case.random else "move the red block to the left zone"
        model.set_prompt(prompt, looks[0]["state"])
        if pipe.quantised and not pipe.calibrated:
            say("calibrating")
            model.calibrate(looks[:2])
        clock.append(time.perf_counter())
        first = model.predict(looks[0]["images"], state=looks[0]["state"], seed=0)
        clock.append(time.perf_counter())
        if not np.isfinite(first).all():
            raise ConfigError("actions", expected="finite values", found="NaN or infinity")
        say("measuring")
        wall = wall_ms(lambda i: _predict(model, looks[i % PICTURES]), effort.replays, effort.warmup)
        row = _row(case, pipe, wall, clock, effort)
        row |= _replay_columns(pipe, case, effort)
        if effort.exact:
            say("fp32 with the same weights")
            row["cosine_fp32"] = _against_fp32(pipe, [observation(pipe, case, 100 + i) for i in range(COMPARED)])
        ops = _ops(pipe) if effort.ops and _on_gpu(pipe) else []
        return Measured(row, ops)


def _load(case: Case, hardware: str, effort: Effort, place: Path, say: Callable[[str], None], autotune_dir: Any) -> VLAModel:
    weights = RandomCheckpoint(place, case.dims()) if case.random else case.weights
    model = load_model(
        weights, num_views=case.views, hardware=hardware, use_fp8=case.quantised, num_steps=case.num_steps,
        autotune=effort.autotune, cache_frames=case.cache_frames, image_sizes=case.image_size,
        calibration_dir=place / "calibration", autotune_dir=autotune_dir, progress=say,
    )  # fmt: skip
    pipe = model._pipe
    wide, stage = pipe.PIPELINE.PLAN_WIDE, case.precision.partition("_")[2]
    if case.precision.partition("_")[0] not in (wide.name, "fp8"):
        raise ConfigError("precision", expected=f"{wide.name} or fp8 on {model.hardware}", found=case.precision)
    if stage:
        all_but = case.precision.startswith("fp8")
        base, other = (wide, pipe.PIPELINE.PLAN_FP8) if all_but else (pipe.PIPELINE.PLAN_FP8, wide)
        mixed = dataclasses.replace(base, **{stage: getattr(other, stage)})
        pipe.PIPELINE = SimpleNamespace(**{**vars(pipe.PIPELINE), "PLAN_FP8": mixed})  # nothing is loaded before calibration
    return model


def observation(pipe: Any, case: Case, seed: int) -> dict[str, Any]:
    """Random pictures and state in the shapes that the loaded policy takes."""
    rng, side = np.random.default_rng(seed), pipe.dims.vision.image_size
    height, width = case.image_size or (side, side)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(case.views)]
    return {"images": images, "state": rng.uniform(-0.5, 0.5, pipe.profile.state_dim)}


def _predict(model: VLAModel, look: dict[str, Any]) -> np.ndarray:
    return model.predict(look["images"], state=look["state"])


def _on_gpu(pipe: Any) -> bool:
    return pipe.machine.torch_device != "cpu"


def _row(case: Case, pipe: Any, wall: list[float], clock: list[float], effort: Effort) -> dict[str, Any]:
    dims, program = pipe.dims, pipe._program_served
    graph = program.graph.captured(Variant.FULL_U8) if _on_gpu(pipe) else None
    steps = dict(zip(("load_s", "calibrate_s", "first_predict_s"), np.diff(clock).tolist(), strict=True))
    return {
        "model": case.model,
        "gpu": _device_name(pipe), "precision": case.precision, "views": dims.num_views, "chunk": dims.horizon,
        "num_steps": dims.num_steps, "prompt_len": len(pipe._tokens), "capacity": dims.prompt_capacity,
        "cache_frames": case.cache_frames, "image_size": list(case.image_size) if case.image_size else None,
        "replay_ms_p50": None, "replay_ms_p95": None, "replay_ms_p99": None,
        **{f"wall_ms_{k}": v for k, v in percentiles(wall).items()}, "wall_ms_mean": round(float(np.mean(wall)), 4),
        "nodes": graph.nodes if graph else None, "ops": len(graph.launches) if graph else None, "cosine_fp32": None,
        **{name: round(seconds, 2) for name, seconds in steps.items()},
        "weight_gib": round(tensor_bytes(program.tensors) / 2**30, 3), "autotune": effort.autotune,
        "commit": commit(), "date": today(),
    }  # fmt: skip


def _replay_columns(pipe: Any, case: Case, effort: Effort) -> dict[str, Any]:
    """Replay by events; with `cache_frames` n also the cached graph's, and the mean over n calls."""
    if not _on_gpu(pipe):
        return {}
    program = pipe._program_served
    full = percentiles(replay_ms(program, Variant.FULL_U8, effort.replays, effort.warmup))
    out: dict[str, Any] = {f"replay_ms_{k}": v for k, v in full.items()}
    if case.cache_frames > 1:
        cached = percentiles(replay_ms(program, Variant.CACHED, effort.replays, effort.warmup))["p50"]
        out["replay_cached_ms_p50"] = cached
        out["replay_ms_mean"] = round((full["p50"] + (case.cache_frames - 1) * cached) / case.cache_frames, 4)
    return out


def _against_fp32(pipe: Any, looks: list[dict[str, Any]]) -> float:
    """Cosine of the normalised actions with those of the same weights in fp32, same inputs, over all observations."""
    exact: Program = pipe._program("fp32", EXACT)
    exact.capture()
    exact.fit_cameras(pipe.image_sizes)
    chunks: dict[str, list[np.ndarray]] = {"served": [], "exact": []}
    for seed, look in enumerate(looks):
        noise = np.random.default_rng(seed).standard_normal((pipe.dims.horizon, pipe.dims.action_dim), dtype=np.float32)
        for name, program in (("served", pipe._program_served), ("exact", exact)):
            program.write(look["images"], pipe._tokens, noise)
            chunks[name].append(program.replay(Variant.FULL_U8))
    return round(cosine(np.stack(chunks["served"]), np.stack(chunks["exact"])), 7)


def _ops(pipe: Any) -> list[dict[str, Any]]:
    return op_rows(pipe.machine, pipe._program_served.graph.captured(Variant.FULL_U8).launches)


def _device_name(pipe: Any) -> str:
    if not _on_gpu(pipe):
        return cpu_name()
    import torch

    return torch.cuda.get_device_name()


def tensor_bytes(target: Any) -> int:
    """Bytes of all tensors that the loader left on `target`."""
    values = (t for v in vars(target).values() for t in (v if isinstance(v, list) else [v]))
    return sum(t.numel() * t.element_size() for t in values if hasattr(t, "element_size"))
