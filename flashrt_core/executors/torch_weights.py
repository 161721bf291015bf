"""The torch side of declarative weight loading: sources, composites, transforms and sinks over torch tensors.

Names and constructor signatures are public (documented in the stable API); keyword `dtype` on the composites is ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import torch

from ..core.pickles import refuse_pickle
from ..core.quant.e4m3 import E4M3_MAX, MIN_SCALE
from ..core.safetensors_file import SafetensorsFile, nearest_key
from ..core.weight_source import FileSource
from ..errors import CheckpointError, DeviceError
from .sinks import AttrSink, CollectSink, ListSink
from .torch_rounding import round_to_e4m3
from .weight_spec import LoaderContext

# ---- sources


class MultiSafetensorsSource(FileSource):
    """Several safetensors files as one source of tensors on `device`. A name in two files is an error (ValueError).

    strip_prefix: None takes `model.` off when every known key carries it; "" strips nothing.
    DeviceError when `device` is a GPU that is not there; pass device="cpu" to load on the host.
    """

    def __init__(
        self, paths: Iterable[str | os.PathLike[str]], *, device: str = "cuda", strip_prefix: str | None = None
    ):
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(
                f"device {device!r}",
                expected="a CUDA device",
                found="none",
                hint='Pass device="cpu" to load on the host.',
            )
        super().__init__(_open(paths), strip_prefix=strip_prefix, device=str(device))


class SafetensorsSource(MultiSafetensorsSource):
    """One safetensors file; see MultiSafetensorsSource for the arguments."""

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cuda", strip_prefix: str | None = None):
        super().__init__([path], device=device, strip_prefix=strip_prefix)


def _open(paths: Iterable[str | os.PathLike[str]]) -> list[SafetensorsFile]:
    paths = list(paths)
    for path in paths:
        refuse_pickle(path)
    return [SafetensorsFile(path) for path in paths]


class DictSource:
    """Tensors that are already in memory."""

    def __init__(self, d: dict[str, torch.Tensor]):
        self._d = d

    def keys(self) -> list[str]:
        return list(self._d)

    def has(self, key: str) -> bool:
        return key in self._d

    def get(self, key: str) -> torch.Tensor:
        """CheckpointError with the nearest name when it is missing."""
        if key not in self._d:
            raise CheckpointError(
                f"tensor {key}", expected="in the source", found="missing", hint=nearest_key(key, self._d)
            )
        return self._d[key]


# ---- composites: several stored tensors make one


class Cat:
    """The tensors of `keys` concatenated along `dim`, each cast to `dtype` first (None keeps what is stored)."""

    def __init__(self, keys: Sequence[str], *, dim: int = 0, dtype: torch.dtype | None = torch.float16):
        self.keys, self.dim, self.dtype = list(keys), dim, dtype

    def source_keys(self) -> list[str]:
        return self.keys

    def resolve(self, ctx: LoaderContext) -> torch.Tensor:
        parts = [ctx.source.get(ctx.subkey(k)) for k in self.keys]
        return torch.cat(parts if self.dtype is None else [p.to(self.dtype) for p in parts], dim=self.dim)


class FusedQKV:
    """Rows [Q; K; V] of one attention layer, `[q_dim + 2 kv_dim, width]` in `dtype`.

    norm_fuse: a Gemma norm weight w; the columns are multiplied by (1 + w). interleave_*_heads: see InterleaveQK.
    All arithmetic is in fp32 and rounded once: 1 + w rounded to BF16 first would collapse channels with w near -1.
    """

    def __init__(
        self,
        *,
        q: str,
        k: str,
        v: str,
        norm_fuse: str | None = None,
        interleave_q_heads: int | None = None,
        interleave_k_heads: int | None = None,
        dtype: torch.dtype = torch.float16,
    ):
        self.q, self.k, self.v, self.norm_fuse, self.dtype = q, k, v, norm_fuse, dtype
        self.interleave_q_heads, self.interleave_k_heads = interleave_q_heads, interleave_k_heads

    def source_keys(self) -> list[str]:
        return [key for key in (self.q, self.k, self.v, self.norm_fuse) if key is not None]

    def resolve(self, ctx: LoaderContext) -> torch.Tensor:
        q, k, v = (ctx.source.get(ctx.subkey(name)).float() for name in (self.q, self.k, self.v))
        if self.interleave_q_heads:
            q = interleave_qk(q, self.interleave_q_heads)
        if self.interleave_k_heads:
            k = interleave_qk(k, self.interleave_k_heads)
        return _fold_norm([q, k, v], self.norm_fuse, ctx).to(self.dtype)


class FusedGateUp:
    """Rows [gate; up] of one gated MLP, `[2 hidden, width]` in `dtype`; norm_fuse as in FusedQKV."""

    def __init__(self, *, gate: str, up: str, norm_fuse: str | None = None, dtype: torch.dtype = torch.float16):
        self.gate, self.up, self.norm_fuse, self.dtype = gate, up, norm_fuse, dtype

    def source_keys(self) -> list[str]:
        return [key for key in (self.gate, self.up, self.norm_fuse) if key is not None]

    def resolve(self, ctx: LoaderContext) -> torch.Tensor:
        parts = [ctx.source.get(ctx.subkey(name)).float() for name in (self.gate, self.up)]
        return _fold_norm(parts, self.norm_fuse, ctx).to(self.dtype)


def _fold_norm(parts: list[torch.Tensor], norm: str | None, ctx: LoaderContext) -> torch.Tensor:
    stacked = torch.cat(parts, dim=0)
    if norm is not None:
        stacked.mul_(1.0 + ctx.source.get(ctx.subkey(norm)).float())  # [out, in] * [in]; cat made a fresh tensor
    return stacked


def interleave_qk(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows of each head from the half-split order of HF to adjacent pairs: `[H * hd, K]` -> the same shape.

    Row j of the first half and row j of the second half become rows 2j and 2j + 1, so that RoPE turns neighbours.
    """
    rows = weight.shape[0]
    if num_heads < 1 or rows % (2 * num_heads):
        raise CheckpointError("InterleaveQK", expected=f"rows that are a multiple of 2 x {num_heads} heads", found=rows)
    split = weight.reshape(num_heads, 2, rows // num_heads // 2, *weight.shape[1:])
    return split.transpose(1, 2).reshape(weight.shape)


# ---- transforms


class ToFp16:
    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x.to(torch.float16)


class ToFp32:
    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x.to(torch.float32)


class ToBf16:
    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x.to(torch.bfloat16)


class T:
    """Transposed and contiguous: [N, K] -> [K, N]."""

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x.T.contiguous()


class tT:
    """The same as T; both names are public."""

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x.t().contiguous()


class InterleaveQK:
    """`interleave_qk` as a transform, for Q or K outside FusedQKV."""

    def __init__(self, num_heads: int):
        self.num_heads = num_heads

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return interleave_qk(x, self.num_heads)


class Mul:
    """Times a number, in the dtype of the tensor."""

    def __init__(self, factor: float):
        self.factor = factor

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x * self.factor


class Quant:
    """FP8 E4M3, one scale per tensor: scale = max(amax / 448, 1e-12), left in ctx.scratch["_pending_scale"].

    Returns a contiguous float8_e4m3fn tensor of the same shape. mean: for the weight [N, K] that the context is at, the mean
    fp32 [K] of what it multiplies, which the rounding keeps (torch_rounding.py), or None; without it, nearest.
    CheckpointError when the tensor is not finite.
    """

    def __init__(self, mean: Callable[[LoaderContext], torch.Tensor | None] = lambda ctx: None):
        self.mean = mean

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        wide = x.float()
        amax = float(wide.abs().max()) if wide.numel() else 0.0
        if not amax < float("inf"):  # NaN and infinity
            raise CheckpointError("Quant", expected="finite weights", found=f"amax {amax}")
        scale = torch.clamp(torch.tensor(amax, dtype=torch.float32) / E4M3_MAX, min=MIN_SCALE)
        ctx.scratch["_pending_scale"] = float(scale)
        mean = self.mean(ctx)
        return round_to_e4m3(wide / scale.to(wide.device), None if mean is None else mean.to(wide.device)).contiguous()


# ---- sinks


class Attr(AttrSink):
    """`target.<name> = tensor`, once."""


class TensorList(ListSink):
    """`target.<name>`: a list with one tensor per layer."""


class FlatCat(CollectSink):
    """`target.<name>`: one flat tensor with the layers after each other."""

    def join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        flat = [p.reshape(-1) for p in parts]
        if flat and flat[0].element_size() == 1 and flat[0].is_floating_point():  # cat has no FP8 kernel everywhere
            return torch.cat([p.view(torch.uint8) for p in flat]).view(flat[0].dtype)
        return torch.cat(flat) if flat else torch.empty(0)
