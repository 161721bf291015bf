"""A Pi0.5 program straight from a state dict: no files, no tokenizer, no statistics."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from flashrt_core.executors.torch_weights import DictSource
from flashrt_core.frontends.calibrate import measure_means, measure_scales
from flashrt_core.frontends.program import Program
from flashrt_core.frontends.torch._pi05_spec import build_spec
from flashrt_core.frontends.torch.loading import load_tensors
from flashrt_core.hardware.host.machine import HostMachine
from flashrt_core.models.pi05 import model, pipeline_host


def program_on(
    machine, state: dict[str, torch.Tensor], dims, pipeline, plan, name: str = "test", means=None
) -> Program:
    """Buffers and weights of a plan on a machine; the state is moved to where the machine keeps tensors."""
    program = Program(name, machine, model, pipeline, dims, plan)
    source = DictSource({k: v.to(machine.torch_device) for k, v in state.items()})
    spec = build_spec(dims, plan, model.embedding_key(source), means)
    program.tensors, program.weight_scales = load_tensors(source, spec, model, dims, machine)
    program.weights = model.weights_at(program.tensors, dims, plan, machine.ptr, machine.ptr(program.tensors.styles))
    return program


def calibrated_program(machine, state: dict[str, torch.Tensor], dims, pipeline, plan, samples, name: str = "fp8") -> Program:
    """A quantised program as a frontend makes it: means with weights rounded to nearest, scales with those that keep them."""
    means = measure_means(program_on(machine, state, dims, pipeline, plan, f"{name}.means"), samples, lambda text: None)
    program = program_on(machine, state, dims, pipeline, plan, name, means)
    measure_scales(program, samples, 99.9, lambda text: None)
    return program


def random_samples(dims, count: int, prompt_len: int, seed: int = 50) -> list:
    """What calibration takes."""
    return [(s.images, s.ids, s.noise) for s in (random_inputs(dims, seed + i, prompt_len) for i in range(count))]


def host_program(state: dict[str, torch.Tensor], dims, plan=pipeline_host.PLAN_WIDE) -> Program:
    return program_on(HostMachine(), state, dims, pipeline_host, plan)


def random_inputs(dims, seed: int, prompt_len: int) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    side = dims.vision.image_size
    return SimpleNamespace(
        images=rng.integers(0, 256, (dims.num_views, side, side, 3), dtype=np.uint8),
        ids=rng.integers(0, dims.vocab_size, prompt_len).tolist(),
        noise=rng.standard_normal((dims.horizon, dims.action_dim), dtype=np.float32),
    )


def as_float_images(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float64) / 255 * 2 - 1).float()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
