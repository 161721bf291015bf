"""Ops that also measure what they write for a GEMM to read. This is all of calibration that touches a pipeline.

The table says which argument is the output and how large it is, so pipelines hold no calibration code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..types import E4M3, DType
from .check import bind_args
from .schema import Op
from .table import OPS


@dataclass(frozen=True)
class Output:
    """What an op with an output scale wrote: [rows, cols] of `dtype` at `ptr`. slot: address of the scale. What is launched to
    measure it belongs on `stream`, behind the op."""

    ptr: int
    rows: int
    cols: int
    dtype: DType
    slot: int
    stream: int


class MeasuringOps:
    """Wraps an ops object: `measure(output)` is called for each op that has an output scale.

    An op that quantises runs twice: without rounding into scratch memory, which is measured, then as it is. A scale that
    `measure` sets is therefore the one that the op rounds with. wide: dtype of the unrounded output. scratch: address of room
    for the largest one.
    """

    def __init__(self, ops: Any, measure: Callable[[Output], None], wide: DType, scratch: int):
        self._ops, self._measure, self._wide, self._scratch = ops, measure, wide, scratch

    def __getattr__(self, name: str) -> Callable[..., None]:
        op, call = OPS[name], getattr(self._ops, name)
        if "out_scale" not in op.arg_names:
            return call
        return lambda *args, **kwargs: self._run(op, call, bind_args(op, args, kwargs))

    def _run(self, op: Op, call: Callable[..., None], values: dict[str, Any]) -> None:
        if not values["out_scale"]:
            call(**values)
            return
        out = next(p for p in op.ptrs if p.name == "out")
        *outer, cols = out.sizes(values)
        rows, dtype = math.prod(outer), out.resolve(values)
        if dtype == E4M3:
            call(**{**values, "out": self._scratch, "out_dtype": int(self._wide)})
            self._measure(Output(self._scratch, rows, cols, self._wide, values["out_scale"], values["stream"]))
        call(**values)
        if dtype != E4M3:
            self._measure(Output(values["out"], rows, cols, dtype, values["out_scale"], values["stream"]))
