"""A linear layer as pointers: what a block needs to know to put one GEMM into the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..ops.table import Epilogue
from ..types import E4M3, F32, DType


@dataclass(frozen=True)
class Linear:
    """Weight [n, k] in `dtype` (for GEGLU [2n, k] = gate rows, then up rows), bias [n] fp32 or 0, scale fp32[1] or 0."""

    w: int
    n: int
    k: int
    dtype: DType
    bias: int = 0
    scale: int = 0


def linear(
    ops: Any,
    x: int,
    lin: Linear,
    out: int,
    M: int,
    epilogue: Epilogue,
    *,
    out_dtype: DType,
    x_scale: int = 0,
    out_scale: int = 0,
    res: int = 0,
    res_dtype: DType = F32,
    gate: int = 0,
    stream: int = 0,
) -> None:
    """out [M, n] = epilogue(x [M, k] @ w^T). Scales that the dtypes do not use are passed as 0."""
    ops.gemm(
        a=x, w=lin.w, bias=lin.bias, res=res, gate=gate, out=out,
        a_scale=x_scale if lin.dtype == E4M3 else 0, w_scale=lin.scale, out_scale=out_scale,
        M=M, N=lin.n, K=lin.k, epilogue=int(epilogue),
        a_dtype=lin.dtype, res_dtype=res_dtype, out_dtype=out_dtype, stream=stream,
    )  # fmt: skip
