"""Run a weight spec with PyTorch and put what it gives into the machine's memory."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ...blocks.plan import Plan
from ...executors.weight_loader import ModelWeightSpec, WeightLoader, WeightSource, check_complete
from .shift_products import shift_products


def load_torch_weights(
    frontend: Any, plan: Plan, means: Mapping[str, np.ndarray] | None = None
) -> tuple[SimpleNamespace, dict[str, float]]:
    """`load_tensors` of the frontend's checkpoint, after checking names, shapes and dtypes against the profile. means: the
    spec's."""
    model, dims = frontend.MODEL, frontend.dims
    source = frontend.checkpoint.source(device=frontend.machine.torch_device)
    model.check_dims(frontend.profile, source)
    spec = frontend.SPEC(dims, plan, model.embedding_key(source), means)
    unread = [*model.unused_tensors(frontend.profile.dims), *model.skipped_tensors(dims)]
    check_complete(source, spec, ignore=unread, shapes=model.expected_tensors(frontend.profile.dims))
    return load_tensors(source, spec, model, dims, frontend.machine)


def load_tensors(
    source: WeightSource, spec: ModelWeightSpec, model: Any, dims: Any, machine: Any
) -> tuple[SimpleNamespace, dict[str, float]]:
    """(tensors by attribute, weight scale by name). FP8 scales become fp32 tensors of one element: they need an address."""
    target = SimpleNamespace()
    context = WeightLoader(source, target=target, spec=spec).run()
    scales: dict[str, float] = {}
    for attr, values in context.scales.items():
        name = attr.removesuffix("_scale")
        tensors = [torch.tensor([v], dtype=torch.float32, device=machine.torch_device) for v in values]
        single = isinstance(getattr(target, f"{name}_w"), torch.Tensor)
        setattr(target, attr, tensors[0] if single else tensors)
        scales |= {name: values[0]} if single else {f"{name}.{i}": v for i, v in enumerate(values)}
    styles = model.style_array(target, dims, machine.numpy)
    target.shifts, target.step_out_b = shift_products(target, styles)
    target.styles = machine.tensor(styles)  # waits for everything before it
    return target, scales
