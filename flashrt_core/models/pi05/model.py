"""What a frontend needs to know of Pi0.5, under the names that `frontends/base.py` uses for every model."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...errors import ConfigError
from ...ops import ref
from .actions import robot_actions
from .buffers import IMAGES, attention_slots, attention_spec, buffer_plan, buffers_at
from .dims import Pi05Dims
from .profile import Pi05Profile, load_profile
from .prompt import tokenize
from .sites import site_names, sites_at, used_rows, weight_site
from .tensors import VISION, check_dims, embedding_key, expected_tensors, unused_tensors
from .weights import style_array, weights_at

__all__ = [
    "IMAGES",
    "attention_slots",
    "attention_spec",
    "buffer_plan",
    "buffers_at",
    "check_dims",
    "embedding_key",
    "expected_tensors",
    "load_profile",
    "loaded_dims",
    "robot_actions",
    "rope_table",
    "site_names",
    "skipped_tensors",
    "sites_at",
    "style_array",
    "tokenize",
    "unused_tensors",
    "used_rows",
    "weight_site",
    "weights_at",
]


def loaded_dims(
    profile: Pi05Profile, *, num_views: int, num_steps: int | None, pool: int | None, vision_layers: int | None
) -> Pi05Dims:
    """The checkpoint's dims with the load options applied; ConfigError for a value out of range."""
    if num_views > len(profile.views):
        raise ConfigError(
            "num_views", expected=f"at most the {len(profile.views)} views of profile {profile.name!r}", found=num_views
        )
    changes: dict[str, int] = {"num_views": num_views}
    for name, value in (("num_steps", num_steps), ("pool", pool), ("vision_layers_used", vision_layers)):
        if value is not None:
            changes[name] = value
    if vision_layers is not None and vision_layers < 1:
        raise ConfigError("vision_num_layers", expected=f"1..{profile.dims.vision.num_layers}", found=vision_layers)
    return dataclasses.replace(profile.dims, **changes)


def skipped_tensors(dims: Pi05Dims) -> tuple[str, ...]:
    """Patterns of tensors that `vision_num_layers` leaves unread."""
    return tuple(f"{VISION}encoder.layers.{i}.*" for i in range(dims.vision_layers, dims.vision.num_layers))


def rope_table(dims: Pi05Dims) -> np.ndarray:
    """float32 [cache_rows, head_dim]: every position that a prefix or suffix row can have. Frequencies in float64: the JAX
    original has them in float32, both PyTorch peers round them to bf16, which costs most of their bf16 error."""
    return ref.rope_table(dims.cache_rows, dims.prefix.head_dim, dims.prefix.rope_theta)
