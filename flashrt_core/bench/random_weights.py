"""Random Pi0.5 weights made where they are needed, tensor by tensor as the loader asks: no file, no copy of the whole model."""

from __future__ import annotations

import math
import zlib

import torch

from ..core.safetensors_header import TensorInfo
from ..models.pi05.dims import Pi05Dims
from ..models.pi05.tensors import expected_tensors


class RandomSource:
    """A weight source (`get`, `has`) with the names and shapes of the model; values keep activations of order one.

    A tensor depends on its name and the seed only, so two plans load the same model.
    """

    def __init__(self, dims: Pi05Dims, seed: int = 0, device: str = "cuda"):
        self._shapes = {k: s for k, s in expected_tensors(dims).items() if "embed_tokens" not in k}
        self._seed, self._device = seed, device

    def keys(self) -> list[str]:
        return list(self._shapes)

    def has(self, key: str) -> bool:
        return key in self._shapes

    def info(self, key: str) -> TensorInfo:
        """dtype and shape as `get` would give them."""
        return TensorInfo("F32", self._shapes[key], 0, 4 * math.prod(self._shapes[key]))

    def get(self, key: str) -> torch.Tensor:
        shape = self._shapes[key]
        gen = torch.Generator(self._device).manual_seed(self._seed * 1_000_003 + zlib.crc32(key.encode()))
        x = torch.randn(shape, generator=gen, device=self._device)
        if key.endswith(".dense.bias"):
            x *= 0.1
            x[2 * shape[0] // 3 :] += 0.4  # an open gate: every branch reaches the output
        elif key.endswith(".bias"):
            x *= 0.1
        elif "layer_norm" in key or "post_layernorm" in key:
            x = 1.0 + 0.1 * x
        elif len(shape) == 1:
            x *= 0.1
        elif "position_embedding" in key:
            x *= 0.3
        else:
            x *= 1.0 / math.sqrt(math.prod(shape[1:]))
        return x
