"""Host implementations of the op table: PyTorch on the CPU over int pointers.

A call is checked, its pointers become tensor views once, and what is left is a closure without arguments. With a recorder
on the context the closure is appended to the graph being captured, else it runs: replay never checks again, as on a GPU.
FP8 is emulated: activations and weights are real E4M3 bytes, the products are computed in fp32 from their decoded values.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import OpError
from ...ops.check import bind_args, check_args
from ...ops.resample import fit_into
from ...ops.schema import Op
from ...ops.table import OPS, Epilogue
from ...runtime.exec import Ctx
from ...types import BF16, E4M3, F16, F32, I8, I32, U8, DType

Bound = Callable[[], None]

TORCH_DTYPE = {
    F32: torch.float32,
    BF16: torch.bfloat16,
    F16: torch.float16,
    E4M3: torch.float8_e4m3fn,
    I8: torch.int8,
    U8: torch.uint8,
    I32: torch.int32,
}
E4M3_MAX = 448.0
E4M3_CLIPS = 464.0  # halfway to the next value there would be: up to here a cast rounds to 448


class HostOps:
    """One callable per table row: `ops.rms_norm(x=ptr, out=ptr, ...)`. `ctx` runs or records (runtime/exec.py)."""

    def __init__(self, ctx: Ctx):
        self.ctx = ctx
        for name, op in OPS.items():
            setattr(self, name, partial(self._call, op, _IMPL[name]))

    def _call(self, op: Op, impl: Callable[[View], Bound], *args: Any, **kwargs: Any) -> None:
        values = bind_args(op, args, kwargs)
        check_args(op, values)
        bound = impl(View(op, values))
        self.ctx.submit(op.name, bound, values["stream"])


def tensor_at(ptr: int, shape: tuple[int, ...], dtype: DType) -> torch.Tensor:
    """A tensor over memory that someone else owns and keeps alive."""
    count = 1
    for s in shape:
        count *= s
    raw = (ctypes.c_uint8 * (count * dtype.nbytes)).from_address(ptr)
    return torch.frombuffer(raw, dtype=TORCH_DTYPE[dtype]).reshape(shape)


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """The array's memory as a tensor."""
    return torch.from_numpy(array)


class View:
    """The arguments of one checked call: ints and floats by attribute, pointers as tensors by `t(name)`."""

    def __init__(self, op: Op, values: dict[str, Any]):
        self.op, self.values = op, values
        self._ptrs = {p.name: p for p in op.ptrs}

    def __getattr__(self, name: str) -> Any:
        return self.values[name]

    def t(self, name: str) -> torch.Tensor | None:
        p, ptr = self._ptrs[name], self.values[name]
        if not ptr or not (p.optional or p.required(self.values)):
            return None
        return tensor_at(ptr, p.sizes(self.values), p.resolve(self.values))

    def strided(self, name: str, batch: int, rows: int, stride: int, width: int) -> torch.Tensor:
        """[batch, rows, width] with `stride` elements between rows; never spans past the last row's width."""
        dtype = self._ptrs[name].resolve(self.values)
        flat = tensor_at(self.values[name], ((batch * rows - 1) * stride + width,), dtype)
        return flat.as_strided((batch, rows, width), (rows * stride, stride, 1))


def _f32(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float32 else x.float()


def _f32_weight(w: torch.Tensor) -> torch.Tensor:
    """fp32 of a weight. E4M3 by its bits (ten times PyTorch's cast): sign, exponent and mantissa moved to where fp16 has
    them give value * 2^-8. The two NaN codes would come out as +-480; weights have none, `Quant` refuses them."""
    if w.dtype != torch.float8_e4m3fn:
        return _f32(w)
    bits = (w.view(torch.int8).to(torch.int16) << 7).bitwise_and_(-0x4080)  # 0xBF80: the sign was extended
    return bits.view(torch.float16).float().mul_(256)


def _writer(v: View, name: str = "out") -> Callable[[torch.Tensor], None]:
    """Rounds an fp32 tensor into the output; E4M3 saturates (PyTorch's cast would give NaN past 448)."""
    out = v.t(name)
    if out.dtype != torch.float8_e4m3fn:
        return lambda y: out.copy_(y.view(out.shape))
    scale = v.t("out_scale")

    def write(y: torch.Tensor) -> None:
        out.copy_((y / scale).clamp_(-E4M3_MAX, E4M3_MAX).view(out.shape))

    return write


def _resize_pad(v: View) -> Bound:
    images, out, side = v.t("images").numpy(), v.t("out").numpy(), v.S

    def run() -> None:
        for view, image in zip(out, images, strict=True):
            view[:] = fit_into(image, side)

    return run


def _patchify(v: View) -> Bound:
    images, write, P, g = v.t("images"), _writer(v), v.P, v.S // v.P
    pad = v.K - 3 * P * P

    def run() -> None:
        x = images.float() / 255 * 2 - 1 if images.dtype == torch.uint8 else images
        x = x.reshape(v.V, g, P, g, P, 3).permute(0, 1, 3, 5, 2, 4).reshape(v.V * g * g, 3 * P * P)
        write(F.pad(x, (0, pad)))

    return run


def _embed_tokens(v: View) -> Bound:
    table, ids, write, vocab, scale = v.t("table"), v.t("ids"), _writer(v), v.vocab, v.scale

    def run() -> None:
        bad = (ids < 0) | (ids >= vocab)
        if bool(bad.any()):
            raise OpError("embed_tokens", "ids", int(ids[bad][0]), f"must be within 0..{vocab - 1}")
        write(_f32(table[ids.long()]) * scale)

    return run


def _layer_norm(v: View) -> Bound:
    x, w, b, write, D, eps = v.t("x"), v.t("w"), v.t("b"), _writer(v), v.D, v.eps
    return lambda: write(F.layer_norm(_f32(x), (D,), w, b, eps))


def _rms_norm(v: View) -> Bound:
    x, write, D, eps = v.t("x"), _writer(v), v.D, v.eps
    return lambda: write(F.rms_norm(_f32(x), (D,), None, eps))


def _ada_rms_norm(v: View) -> Bound:
    x, style, write, D, eps = v.t("x"), v.t("style"), _writer(v), v.D, v.eps

    def run() -> None:
        write(torch.addcmul(style[1], F.rms_norm(_f32(x), (D,), None, eps), 1 + style[0]))

    return run


def _gemm(v: View) -> Bound:
    a, w, bias, res, gate = (v.t(n) for n in ("a", "w", "bias", "res", "gate"))
    write, N, product = _writer(v), v.N, _product(v)
    out = v.t("out") if v.out_dtype == F32 else None

    def bias_run() -> None:  # the common fp32 case in one library call
        torch.addmm(bias, a, w.t(), out=out)

    def residual_run() -> None:
        torch.addmm(res, a, w.t(), out=out)

    if out is not None and a.dtype == torch.float32:
        if v.epilogue == Epilogue.BIAS:
            return bias_run
        if v.epilogue == Epilogue.RESIDUAL and res.dtype == torch.float32:
            return residual_run

    def geglu(acc: torch.Tensor) -> torch.Tensor:
        return F.gelu(acc[:, :N], approximate="tanh").mul_(acc[:, N:])

    finish = {
        Epilogue.NONE: lambda acc: acc,
        Epilogue.BIAS: lambda acc: acc.add_(bias),
        Epilogue.BIAS_GELU: lambda acc: F.gelu(acc.add_(bias), approximate="tanh"),
        Epilogue.RESIDUAL: lambda acc: acc.add_(res),
        Epilogue.BIAS_RESIDUAL: lambda acc: acc.add_(bias).add_(res),
        Epilogue.GATE_RESIDUAL: lambda acc: acc.mul_(gate).add_(res),
        Epilogue.GEGLU: geglu,
    }[Epilogue(v.epilogue)]
    return lambda: write(finish(product()))


def _product(v: View) -> Callable[[], torch.Tensor]:
    """a @ w^T in fp32, times the scales."""
    a, w, quantised = v.t("a"), v.t("w"), v.a_dtype == E4M3
    a_scale, w_scale = (v.t("a_scale"), v.t("w_scale")) if quantised else (None, None)

    def product() -> torch.Tensor:
        acc = torch.mm(_f32(a), _f32_weight(w).t())
        return acc.mul_(a_scale * w_scale) if quantised else acc

    return product


def _gemm_qkv_rope(v: View) -> Bound:
    product, turn = _product(v), _turned(v)
    return lambda: turn(product())


def _gemm_gate_norm(v: View) -> Bound:
    product, res, gate, out, style = _product(v), v.t("res"), v.t("gate"), v.t("out"), v.t("style")
    write, N, eps = _writer(v, "normed"), v.N, v.eps

    def run() -> None:
        h = product().mul_(gate).add_(res)
        out.copy_(h)
        write(torch.addcmul(style[1], F.rms_norm(h, (N,), None, eps), 1 + style[0]))

    return run


def _action_step(v: View) -> Bound:
    final, out_w, out_b, actions, in_w, in_b, h, style = (
        v.t(n) for n in ("final", "out_w", "out_b", "actions", "in_w", "in_b", "h", "style")
    )
    write, D, eps = _writer(v, "normed") if v.enter else None, v.D, v.eps

    def run() -> None:
        if final is not None:
            actions.add_(torch.addmm(out_b, final, out_w.t()))
        if write:
            x = torch.addmm(in_b, actions, in_w.t())
            h.copy_(x)
            write(torch.addcmul(style[1], F.rms_norm(x, (D,), None, eps), 1 + style[0]))

    return run


def _qkv_rope(v: View) -> Bound:
    qkv, turn = v.t("qkv"), _turned(v)
    return lambda: turn(qkv)


def _turned(v: View) -> Callable[[torch.Tensor], None]:
    """qkv [M, (H+2*KVH)*HD] -> q, k, v of the call."""
    q, k, vv, pos0 = v.t("q"), v.t("k"), v.t("v"), v.t("pos0")
    rope = torch.view_as_complex(v.t("rope").view(v.rows, v.HD // 2, 2))
    M, H, KVH, HD, rows = (v.values[n] for n in ("M", "H", "KVH", "HD", "rows"))

    def run(qkv: torch.Tensor) -> None:
        heads = qkv.view(M, H + 2 * KVH, HD)
        start = int(pos0) if pos0 is not None else 0
        if not 0 <= start <= rows - M:
            raise OpError(v.op.name, "*pos0", start, f"must be within 0..{rows - M}", f"M={M}, rows={rows}")
        pairs = torch.view_as_complex(_f32(heads[:, : H + KVH]).reshape(M, H + KVH, HD // 2, 2))
        turned = torch.view_as_real(pairs * rope[start : start + M, None]).view(M, H + KVH, HD)
        if q is not None:
            q.copy_(turned[:, :H].reshape(M, H * HD))
        k[start : start + M] = turned[:, H:].reshape(M, KVH * HD)
        vv[start : start + M] = heads[:, H + KVH :].reshape(M, KVH * HD)

    return run


def _attention(v: View) -> Bound:
    B, M, KV, H, KVH, HD, extra = (v.values[n] for n in ("B", "M", "KV", "H", "KVH", "HD", "kv_extra"))
    q = v.strided("q", B, M, v.q_stride, H * HD).unflatten(-1, (H, HD)).transpose(1, 2)  # [B, H, M, HD]
    k = v.strided("k", B, KV, v.kv_stride, KVH * HD).unflatten(-1, (KVH, HD)).transpose(1, 2)  # [B, KVH, KV, HD]
    w = v.strided("v", B, KV, v.kv_stride, KVH * HD).unflatten(-1, (KVH, HD)).transpose(1, 2)
    kv_len, write, scale = v.t("kv_len"), _writer(v), v.scale

    def run() -> None:
        n = KV if kv_len is None else int(kv_len) + extra
        if not 1 <= n <= KV:
            raise OpError("attention", "*kv_len + kv_extra", n, f"must be within 1..{KV}", f"B={B}, M={M}, KV={KV}")
        y = F.scaled_dot_product_attention(
            _f32(q), _f32(k[:, :, :n]), _f32(w[:, :, :n]), scale=scale, enable_gqa=KVH != H
        )
        write(y.transpose(1, 2).reshape(B, M, H * HD))

    return run


def _avg_pool(v: View) -> Bound:
    x, write, f, g = v.t("x"), _writer(v), v.F, v.G // v.F
    return lambda: write(_f32(x).view(v.V, g, f, g, f, v.D).mean((2, 4)))


def _amax(v: View) -> Bound:
    x, out = v.t("x"), v.t("out")
    return lambda: out.copy_(torch.maximum(out, _f32(x).abs().amax()))


def _column_sum(v: View) -> Bound:
    x, out = v.t("x"), v.t("out")
    return lambda: out.add_(_f32(x).sum(0))


def _count_saturated(v: View) -> Bound:
    x, scale, out = v.t("x"), v.t("scale"), v.t("out")
    return lambda: out.add_((_f32(x).abs() > E4M3_CLIPS * scale).sum())


_IMPL: dict[str, Callable[[View], Bound]] = {
    "resize_pad": _resize_pad,
    "patchify": _patchify,
    "embed_tokens": _embed_tokens,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "ada_rms_norm": _ada_rms_norm,
    "gemm": _gemm,
    "qkv_rope": _qkv_rope,
    "gemm_qkv_rope": _gemm_qkv_rope,
    "gemm_gate_norm": _gemm_gate_norm,
    "action_step": _action_step,
    "attention": _attention,
    "avg_pool": _avg_pool,
    "amax": _amax,
    "column_sum": _column_sum,
    "count_saturated": _count_saturated,
}
