"""Ops of SM90: each row of the op table bound to its function of the kernel library.

A call is checked against the row and then again by the library. While a graph is captured it is noted in `ctx.recorder`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import NotBuilt
from ...ops.check import bind_args, check_args
from ...ops.schema import Op
from ...ops.table import OPS, Epilogue
from ...runtime.exec_cuda import CudaCtx
from ..tune_cache import TuneCache

_GEMM_SHAPE = ("M", "N", "K", "epilogue", "a_dtype", "res_dtype", "out_dtype")
_ATTENTION_SHAPE = ("B", "M", "KV", "H", "KVH", "HD", "dtype", "out_dtype")


def kernels(arch: str = "hopper") -> ModuleType:
    """The built kernel module. NotBuilt when it is not there, naming the arch that needs it."""
    try:
        from ... import _kernels
    except ImportError as error:
        raise NotBuilt(
            f"flashrt_core._kernels for {arch}", expected="the CUDA kernels, built", found=str(error),
            hint="Build them (cmake -S csrc -B build/csrc -G Ninja && cmake --build build/csrc && cmake --install build/csrc), or "
            'choose hardware="host", the CPU',
        ) from error  # fmt: skip
    return _kernels


class HopperOps:
    """One callable per table row: `ops.rms_norm(x=ptr, out=ptr, ...)`, launched on the stream that it is given.

    acts_as: compute capability whose kernels are chosen (89 on a 9.0 runs the portable ones); 0: the GPU's own.
    candidates: > 1 while shapes are tuned (HopperMachine.prepare): algorithms to time for each new GEMM shape.
    """

    def __init__(self, ctx: CudaCtx, acts_as: int = 0):
        self.ctx, self.kernels, self._acts_as = ctx, kernels(), acts_as
        self.candidates = 0
        self.choices: TuneCache | None = None  # tuned before, see HopperMachine.prepare
        for name, op in OPS.items():
            setattr(self, name, partial(self._call, op, getattr(self.kernels, name)))

    def _call(self, op: Op, kernel: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        values = bind_args(op, args, kwargs)
        check_args(op, values)
        self.kernels.act_as(self._acts_as)  # of the library, so of every machine of this process: said before each choice
        if self.ctx.recorder is not None:
            self.ctx.recorder.append((op.name, values))
        elif op.name in ("gemm", "attention"):
            self._make_room(op.name, values)  # a captured call finds the room that its eager run made
        kernel(*values.values())

    def denoise_loop(self, layers: np.ndarray, **values: Any) -> None:
        """hardware/hopper/denoise_loop.py. layers: uint64 [L, 10] on the host, read during the call. Checked by the library."""
        if self.ctx.recorder is not None:
            self.ctx.recorder.append(("denoise_loop", {"layers": layers, **values}))
        else:
            self.kernels.reserve(self.kernels.denoise_loop_scratch())
        self.kernels.denoise_loop(layers.ctypes.data, *values.values())

    def _make_room(self, name: str, v: dict[str, Any]) -> None:
        """Scratch for this call; with `candidates`, its GEMM algorithm."""
        if name == "attention":
            self.kernels.reserve(self.kernels.attention_scratch(*(v[n] for n in _ATTENTION_SHAPE)))
            return
        need = self.kernels.gemm_scratch(*(v[n] for n in _GEMM_SHAPE))
        if self.candidates > 1:
            columns = v["N"] * (2 if v["epilogue"] == Epilogue.GEGLU else 1)
            self.kernels.reserve(max(need, 4 * v["M"] * columns))
            self._choose(v)
        else:
            self.kernels.reserve(need)

    def _choose(self, v: dict[str, Any]) -> None:
        """The GEMM algorithm of this shape: the one found before for this GPU and library, else the fastest of `candidates`."""
        shape = [v[n] for n in _GEMM_SHAPE]
        known = self.choices.get(shape) if self.choices else None
        if known is not None and self.kernels.gemm_choose(*shape, known):
            return
        *arguments, stream = v.values()
        self.kernels.gemm_tune(*arguments, self.candidates, stream)
        if self.choices:
            self.choices.put(shape, self.kernels.gemm_choice(*shape))
