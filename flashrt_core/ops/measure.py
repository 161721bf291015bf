"""Ops that also measure: after each op that has an output scale, one more op over that output. This is all of calibration.

The table says which argument is the output and how large it is, so pipelines hold no calibration code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .check import bind_args
from .schema import Op
from .table import OPS


class MeasuringOps:
    """Wraps an ops object. `measure(ops, out_ptr, n, dtype, out_scale_ptr, stream)` is called after each scaled output; what it
    launches belongs on that stream, behind the op."""

    def __init__(self, ops: Any, measure: Callable[[Any, int, int, int, int, int], None]):
        self._ops, self._measure = ops, measure

    def __getattr__(self, name: str) -> Callable[..., None]:
        op, call = OPS[name], getattr(self._ops, name)
        if "out_scale" not in op.arg_names:
            return call
        return lambda *args, **kwargs: self._run(op, call, bind_args(op, args, kwargs))

    def _run(self, op: Op, call: Callable[..., None], values: dict[str, Any]) -> None:
        call(**values)
        if values["out_scale"]:
            out = next(p for p in op.ptrs if p.name == "out")
            n = math.prod(out.sizes(values))
            self._measure(self._ops, values["out"], n, out.resolve(values), values["out_scale"], values["stream"])
