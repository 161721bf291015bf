"""The JAX side of declarative weight loading, over NumPy arrays: neither jax nor torch is imported.

Names and constructor signatures are public (documented in the stable API); keyword `runtime` on the CUDA sinks is ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.cuda_buffer import CudaBuffer, CudaRuntime
from ..core.quant.e4m3 import quantize_e4m3
from ..core.safetensors_file import nearest_key
from ..errors import CheckpointError
from .sinks import AttrSink, CollectSink, ListSink
from .weight_spec import LoaderContext


class OrbaxDictSource:
    """The flat dict of arrays that an Orbax checkpoint is restored to."""

    def __init__(self, engine_w: dict[str, np.ndarray]):
        self._w = engine_w

    def keys(self) -> list[str]:
        return list(self._w)

    def has(self, key: str) -> bool:
        return key in self._w

    def get(self, key: str) -> np.ndarray:
        """CheckpointError with the nearest name when it is missing."""
        if key not in self._w:
            raise CheckpointError(
                f"array {key}", expected="in the source", found="missing", hint=nearest_key(key, self._w)
            )
        return self._w[key]


class Transpose:
    """`x.T`, a view."""

    def apply(self, x: np.ndarray, ctx: LoaderContext) -> np.ndarray:
        return x.T


class Astype:
    def __init__(self, dtype: np.dtype | type | str):
        self.dtype = dtype

    def apply(self, x: np.ndarray, ctx: LoaderContext) -> np.ndarray:
        return x.astype(self.dtype)


class Contiguous:
    def apply(self, x: np.ndarray, ctx: LoaderContext) -> np.ndarray:
        return np.ascontiguousarray(x)


class JaxQuant:
    """FP8 E4M3 codes as uint8, one scale per tensor: max(amax / 448, 1e-12), saturating, bit-equal to torch's `Quant`.

    The scale is left in ctx.scratch["_pending_scale"]. CheckpointError when the array is not finite.
    """

    def apply(self, x: np.ndarray, ctx: LoaderContext) -> np.ndarray:
        wide = np.asarray(x, dtype=np.float32)
        if not np.isfinite(wide).all():
            raise CheckpointError("JaxQuant", expected="finite weights", found="NaN or infinity")
        codes, scale = quantize_e4m3(wide)
        ctx.scratch["_pending_scale"] = float(scale)
        return codes


class NumpyAttr(AttrSink):
    """`target.<name> = array`, once."""


class NumpyList(ListSink):
    """`target.<name>`: a list with one array per layer."""


class CudaBufferAttr(AttrSink):
    """`target.<name>`: a CudaBuffer with the array; its bytes also go to `target._cache_blobs[cache or name]`."""

    def __init__(self, name: str, *, cache: str | None = None, runtime: CudaRuntime | None = None):
        super().__init__(name)
        self.cache, self.runtime = cache or name, runtime

    def convert(self, tensor: np.ndarray) -> CudaBuffer:
        return _upload(self._target, np.asarray(tensor), self.cache, self.runtime)


class CudaBufferFlat(CollectSink):
    """`target.<name>`: one CudaBuffer with the layers after each other; blob as in CudaBufferAttr."""

    def __init__(self, name: str, *, cache: str | None = None, runtime: CudaRuntime | None = None):
        super().__init__(name)
        self.cache, self.runtime = cache or name, runtime

    def join(self, parts: list[np.ndarray]) -> CudaBuffer:
        flat = np.concatenate([np.asarray(p).reshape(-1) for p in parts])
        return _upload(self._target, flat, self.cache, self.runtime)


def _upload(target: Any, array: np.ndarray, cache: str, runtime: CudaRuntime | None) -> CudaBuffer:
    buffer = CudaBuffer.from_numpy(array, runtime=runtime)
    if getattr(target, "_cache_blobs", None) is None:
        target._cache_blobs = {}
    target._cache_blobs[cache] = array.tobytes()
    return buffer
