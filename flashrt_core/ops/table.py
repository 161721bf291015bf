"""The op table: every op declared once - arguments, shapes, dtypes, rules, reference, tolerance, bytes moved.

The row gives the argument check (`check.py`), the host binding, the property and fuzz tests and the roofline.
An op takes ints (pointers, dimensions, codes, a stream) and floats; never a tensor. Pointers marked optional may be 0.

Conventions: matrices are row-major; a `scale` is one fp32 in memory, and a quantised value q stands for q * scale.
Weights of a GEMM are [N, K] (the layout of a PyTorch Linear and the only FP8 one on Hopper).
"""

from __future__ import annotations

from enum import IntEnum

from ..types import BF16, E4M3, F16, F32, I32, U8
from . import ref
from .schema import Code, Dim, Dims, Op, Ptr, Real, Rule, Size

FLOATS = (F32, BF16, F16)
ACTS = (F32, BF16, F16, E4M3)  # what a GEMM may read


class Epilogue(IntEnum):
    """What a GEMM does with its accumulator `acc` before it stores. Values never change (C ABI)."""

    NONE = 0  # acc
    BIAS = 1  # acc + bias
    BIAS_GELU = 2  # gelu_tanh(acc + bias)
    RESIDUAL = 3  # res + acc
    BIAS_RESIDUAL = 4  # res + acc + bias
    GATE_RESIDUAL = 5  # res + gate * acc
    GEGLU = 6  # gelu_tanh(acc[:, :N]) * acc[:, N:], weights [2N, K] = [gate; up]


USES_BIAS = (Epilogue.BIAS, Epilogue.BIAS_GELU, Epilogue.BIAS_RESIDUAL)
USES_RES = (Epilogue.RESIDUAL, Epilogue.BIAS_RESIDUAL, Epilogue.GATE_RESIDUAL)


SCALE_BYTES = 16  # distance of scales in an array of them: cuBLASLt refuses a scale pointer that is not 16-byte aligned


def _scale(name: str, of: str, align: int = 4) -> Ptr:
    """One fp32 scale, needed when the operand's dtype code `of` is E4M3."""
    return Ptr(name, F32, (1,), needed=lambda d: d[of] == E4M3, align=align)


_NORM_TAIL = (  # how every norm ends: its output, sizes and codes
    Ptr("out", "out_dtype", ("M", "D"), "out"),
    _scale("out_scale", "out_dtype"),
    Dim("M", 1, 1 << 20, try_=(1, 3, 17)),
    Dim("D", 8, 1 << 16, multiple=8, try_=(8, 72, 128)),
    Real("eps", 0.0, 1.0),
    Code("x_dtype", FLOATS),
    Code("out_dtype", ACTS),
)

# E4M3 has 3 mantissa bits: one rounding is 1/16 of the value, and a value near a tie may fall on either side.
_TOL = {F32: 2e-5, BF16: 1e-2, F16: 2e-3, E4M3: 7e-2}


def _patch_cols_ok(d: Dims) -> bool:
    return d["K"] >= 3 * d["P"] * d["P"]


def _views(name: str, role: str, *size: str) -> Ptr:
    return Ptr(name, U8, ("V", *size, 3), role, align=1)


_OPS = (
    Op(
        "resize_pad",
        "Pictures [V,H,W,3] scaled to fit squares [V,S,S,3], centred on black: antialiased bilinear with Pillow's fixed-point "
        "sums (ops/resample.py), so equal to openpi's resize_with_pad.",
        (
            _views("images", "in", "H", "W"),
            _views("out", "out", "S", "S"),
            Dim("V", 1, 8, try_=(1, 2, 3)),
            Dim("H", 1, 4096, try_=(1, 17, 28, 61, 200)),
            Dim("W", 1, 4096, try_=(2, 28, 37, 90, 160)),
            Dim("S", 1, 1024, try_=(14, 28, 42)),
        ),
        ref.resize_pad,
        (),
        {U8: 1 / 255},  # one level: a weight may differ in its last bit of 22
    ),
    Op(
        "patchify",
        "Images [V,S,S,3] to patch rows [V*(S/P)^2, K]; columns (channel, y, x) as a PyTorch conv weight is flattened, "
        "zeros from 3*P*P to K. uint8 maps to x/255*2-1 (openpi models/model.py); float32 is taken as it is.",
        (
            Ptr("images", "in_dtype", ("V", "S", "S", 3), align=1),
            Ptr("out", "out_dtype", (Size("V*(S/P)^2", lambda d: d["V"] * (d["S"] // d["P"]) ** 2), "K"), "out"),
            Dim("V", 1, 8, try_=(1, 2, 3)),
            Dim("S", 1, 4096, try_=(28, 42, 56)),
            Dim("P", 1, 64, try_=(14, 7)),
            Dim("K", 16, 1 << 16, multiple=16, try_=(592, 608)),
            Code("in_dtype", (U8, F32)),
            Code("out_dtype", FLOATS),
        ),
        ref.patchify,
        (
            Rule("S", "must be a multiple of P", lambda d: d["S"] % d["P"] == 0),
            Rule("K", "must be at least 3*P*P", _patch_cols_ok),
        ),
        _TOL,
    ),
    Op(
        "embed_tokens",
        "out[i] = table[ids[i]] * scale. An id outside [0, vocab) is an error on the host and row 0 on a GPU.",
        (
            Ptr("table", "table_dtype", ("vocab", "D")),
            Ptr("ids", I32, ("M",), align=4),
            Ptr("out", "out_dtype", ("M", "D"), "out"),
            Dim("M", 1, 1 << 16, try_=(1, 5, 16)),
            Dim("D", 8, 1 << 16, multiple=8, try_=(8, 64)),
            Dim("vocab", 1, 1 << 20, try_=(11, 64)),
            Real("scale", -1e6, 1e6),
            Code("table_dtype", FLOATS),
            Code("out_dtype", FLOATS),
        ),
        ref.embed_tokens,
        (),
        _TOL,
        sparse={"table": "M"},
    ),
    Op(
        "layer_norm",
        "out = (x - mean) / sqrt(var + eps) * w + b over the last axis, statistics in fp32.",
        (
            Ptr("x", "x_dtype", ("M", "D")),
            Ptr("w", F32, ("D",)),
            Ptr("b", F32, ("D",)),
            *_NORM_TAIL,
        ),
        ref.layer_norm,
        (),
        _TOL,
    ),
    Op(
        "rms_norm",
        "out = x * rsqrt(mean(x^2) + eps): no weight, it is folded into the next GEMM (W * (1 + w), in fp32).",
        (
            Ptr("x", "x_dtype", ("M", "D")),
            *_NORM_TAIL,
        ),
        ref.rms_norm,
        (),
        _TOL,
    ),
    Op(
        "ada_rms_norm",
        "out = rms(x) * (1 + style[:D]) + style[D:2D]; style[2D:3D] is the gate, used by the GEMM that closes the branch "
        "(openpi models/gemma.py RMSNorm with cond: scale, shift, gate).",
        (
            Ptr("x", "x_dtype", ("M", "D")),
            Ptr("style", F32, (3, "D")),
            *_NORM_TAIL,
        ),
        ref.ada_rms_norm,
        (),
        _TOL,
    ),
    Op(
        "gemm",
        "out = epilogue(a @ w^T * a_scale * w_scale), accumulation in fp32; see `Epilogue`. Scales only with E4M3 operands. "
        "`res` may be `out` itself.",
        (
            Ptr("a", "a_dtype", ("M", "K")),
            Ptr(
                "w",
                "a_dtype",
                (Size("N, GEGLU 2N", lambda d: d["N"] * (2 if d["epilogue"] == Epilogue.GEGLU else 1)), "K"),
            ),
            Ptr("bias", F32, ("N",), needed=lambda d: d["epilogue"] in USES_BIAS),
            Ptr("res", "res_dtype", ("M", "N"), needed=lambda d: d["epilogue"] in USES_RES),
            Ptr("gate", F32, ("N",), needed=lambda d: d["epilogue"] == Epilogue.GATE_RESIDUAL),
            Ptr("out", "out_dtype", ("M", "N"), "out"),
            _scale("a_scale", "a_dtype", SCALE_BYTES),
            _scale("w_scale", "a_dtype", SCALE_BYTES),
            _scale("out_scale", "out_dtype"),
            Dim("M", 1, 1 << 20, try_=(1, 3, 17)),
            Dim("N", 8, 1 << 20, multiple=8, try_=(8, 32, 72)),
            Dim("K", 16, 1 << 20, multiple=16, try_=(16, 32, 64, 144, 576)),
            Code("epilogue", tuple(Epilogue)),
            Code("a_dtype", ACTS),
            Code("res_dtype", FLOATS),
            Code("out_dtype", ACTS),
        ),
        ref.gemm,
        (),
        _TOL,
        flops=lambda d: 2 * d["M"] * d["N"] * d["K"] * (2 if d["epilogue"] == Epilogue.GEGLU else 1),
    ),
    Op(
        "qkv_rope",
        "Split qkv rows [Q heads | K heads | V heads], rotate Q and K at position *pos0 + row on adjacent pairs (weights are "
        "interleaved at load), write Q to `q` and K, V to cache rows *pos0 + row. pos0 = 0 (null) means position 0; "
        "H = 0 means the rows hold K and V only. rope[p] = (cos, sin) pairs of position p.",
        (
            Ptr("qkv", "dtype", ("M", Size("(H+2*KVH)*HD", lambda d: (d["H"] + 2 * d["KVH"]) * d["HD"]))),
            Ptr("rope", F32, ("rows", "HD")),
            Ptr("pos0", I32, (1,), optional=True, align=4),
            Ptr(
                "q",
                "dtype",
                ("M", Size("H*HD", lambda d: max(d["H"], 1) * d["HD"])),
                "out",
                needed=lambda d: d["H"] > 0,
            ),
            Ptr("k", "dtype", ("rows", Size("KVH*HD", lambda d: d["KVH"] * d["HD"])), "out"),
            Ptr("v", "dtype", ("rows", Size("KVH*HD", lambda d: d["KVH"] * d["HD"])), "out"),
            Dim("M", 1, 1 << 16, try_=(1, 4, 9)),
            Dim("H", 0, 256, try_=(0, 1, 4)),
            Dim("KVH", 1, 256, try_=(1, 2)),
            Dim("HD", 8, 1024, multiple=8, try_=(8, 16, 64)),
            Dim("rows", 1, 1 << 20, try_=(9, 20)),
            Code("dtype", FLOATS),
        ),
        ref.qkv_rope,
        (Rule("rows", "must hold the M rows", lambda d: d["rows"] >= d["M"]),),
        _TOL,
    ),
    Op(
        "gemm_qkv_rope",
        "`gemm` without an epilogue and `qkv_rope` as one call, for up to 64 rows: q, k, v = the parts of a @ w^T * a_scale * "
        "w_scale, Q and K turned before they are rounded. On GPUs of SM90 only.",
        (
            Ptr("a", "a_dtype", ("M", "K")),
            Ptr("w", "a_dtype", (Size("(H+2*KVH)*HD", lambda d: (d["H"] + 2 * d["KVH"]) * d["HD"]), "K")),
            Ptr("rope", F32, ("rows", "HD")),
            Ptr("pos0", I32, (1,), optional=True, align=4),
            Ptr("q", BF16, ("M", Size("H*HD", lambda d: d["H"] * d["HD"])), "out"),
            Ptr("k", BF16, ("rows", Size("KVH*HD", lambda d: d["KVH"] * d["HD"])), "out"),
            Ptr("v", BF16, ("rows", Size("KVH*HD", lambda d: d["KVH"] * d["HD"])), "out"),
            _scale("a_scale", "a_dtype", SCALE_BYTES),
            _scale("w_scale", "a_dtype", SCALE_BYTES),
            Dim("M", 1, 64, try_=(1, 4, 50)),
            Dim("K", 128, 1 << 16, multiple=128, try_=(128, 384, 1280)),
            Dim("H", 1, 256, try_=(1, 4)),
            Dim("KVH", 1, 256, try_=(1, 2)),
            Dim("HD", 64, 1024, multiple=64, try_=(64, 128)),
            Dim("rows", 1, 1 << 20, try_=(50, 70)),
            Code("a_dtype", (BF16, E4M3)),
        ),
        ref.gemm_qkv_rope,
        (Rule("rows", "must hold the M rows", lambda d: d["rows"] >= d["M"]),),
        _TOL,
        flops=lambda d: 2 * d["M"] * (d["H"] + 2 * d["KVH"]) * d["HD"] * d["K"],
    ),
    Op(
        "gemm_gate_norm",
        "`gemm` with GATE_RESIDUAL and the `ada_rms_norm` behind it as one call, for up to 64 rows: out = res + gate * (a @ w^T * "
        "a_scale * w_scale), normed = rms(out) * (1 + style[:N]) + style[N:2N] of `out` before it is rounded. `res` may be `out` "
        "itself. On GPUs of SM90 only.",
        (
            Ptr("a", "a_dtype", ("M", "K")),
            Ptr("w", "a_dtype", ("N", "K")),
            Ptr("res", BF16, ("M", "N")),
            Ptr("gate", F32, ("N",)),
            Ptr("out", BF16, ("M", "N"), "out"),
            Ptr("style", F32, (2, "N")),
            Ptr("normed", "normed_dtype", ("M", "N"), "out"),
            _scale("a_scale", "a_dtype", SCALE_BYTES),
            _scale("w_scale", "a_dtype", SCALE_BYTES),
            _scale("out_scale", "normed_dtype"),
            Dim("M", 1, 64, try_=(1, 3, 17, 50)),
            Dim("N", 64, 1024, multiple=64, try_=(64, 192, 1024)),
            Dim("K", 128, 1 << 16, multiple=128, try_=(1024, 1152)),
            Real("eps", 0.0, 1.0),
            Code("a_dtype", (BF16, E4M3)),
            Code("normed_dtype", (F32, BF16, E4M3)),
        ),
        ref.gemm_gate_norm,
        (Rule("K", "must be at least 1024", lambda d: d["K"] >= 1024),),
        _TOL | {F32: 2e-3},  # FP8 tensor cores add with about 13 bits
        flops=lambda d: 2 * d["M"] * d["N"] * d["K"],
    ),
    Op(
        "action_step",
        "What lies between two denoise steps. leave 1: actions += final @ out_w^T + out_b. enter 1: h = actions @ in_w^T + in_b, "
        "normed = rms(h) * (1 + style[:D]) + style[D:2D] of `h` before it is rounded. On GPUs of SM90 only.",
        (
            Ptr("final", F32, ("M", "D"), needed=lambda d: d["leave"] == 1),
            Ptr("out_w", F32, ("A", "D"), needed=lambda d: d["leave"] == 1),
            Ptr("out_b", F32, ("A",), needed=lambda d: d["leave"] == 1, align=4),
            Ptr("actions", F32, ("M", "A"), "inout"),
            Ptr("in_w", F32, ("D", "A"), needed=lambda d: d["enter"] == 1),
            Ptr("in_b", F32, ("D",), needed=lambda d: d["enter"] == 1),
            Ptr("h", BF16, ("M", "D"), "out", needed=lambda d: d["enter"] == 1),
            Ptr("style", F32, (2, "D"), needed=lambda d: d["enter"] == 1),
            Ptr("normed", "normed_dtype", ("M", "D"), "out", needed=lambda d: d["enter"] == 1),
            Ptr("out_scale", F32, (1,), needed=lambda d: d["enter"] == 1 and d["normed_dtype"] == E4M3, align=4),
            Dim("M", 1, 1 << 16, try_=(1, 17, 50)),
            Dim("D", 8, 1024, multiple=8, try_=(8, 200, 1024)),
            Dim("A", 4, 64, multiple=4, try_=(4, 32, 64)),
            Dim("leave", 0, 1, try_=(0, 1)),
            Dim("enter", 0, 1, try_=(0, 1)),
            Real("eps", 0.0, 1.0),
            Code("normed_dtype", (F32, BF16, E4M3)),
        ),
        ref.action_step,
        (),
        _TOL,
        flops=lambda d: 2 * d["M"] * d["D"] * d["A"] * (d["leave"] + d["enter"]),
    ),
    Op(
        "attention",
        "softmax(q k^T * scale) v per batch and head, no causal mask. Keys: all KV rows, or *kv_len + kv_extra when kv_len "
        "is given (at most KV; the valid length is data, the shape is fixed). Strides are in elements between rows; the "
        "batch stride is rows * stride. Heads of q share kv heads in groups of H / KVH. With kv_extra > 0 a GPU may read *kv_len "
        "and the rows before it while the kernel in front still runs: that one must not write them.",
        (
            Ptr("q", "dtype", ("B", "M", "q_stride")),
            Ptr("k", "dtype", ("B", "KV", "kv_stride")),
            Ptr("v", "dtype", ("B", "KV", "kv_stride")),
            Ptr("kv_len", I32, (1,), optional=True, align=4),
            Ptr("out", "out_dtype", ("B", "M", Size("H*HD", lambda d: d["H"] * d["HD"])), "out"),
            _scale("out_scale", "out_dtype"),
            Dim("B", 1, 64, try_=(1, 2)),
            Dim("M", 1, 1 << 16, try_=(1, 5, 12)),
            Dim("KV", 1, 1 << 16, try_=(3, 12)),
            Dim("kv_extra", 0, 1 << 16, try_=(0,)),
            Dim("H", 1, 256, try_=(1, 4)),
            Dim("KVH", 1, 256, try_=(1, 4)),
            Dim("HD", 8, 512, multiple=8, try_=(8, 32, 72)),
            Dim("q_stride", 8, 1 << 20, multiple=8, try_=(288, 320)),
            Dim("kv_stride", 8, 1 << 20, multiple=8, try_=(288, 296)),
            Real("scale", 0.0, 1e3),
            Code("dtype", FLOATS),
            Code("out_dtype", ACTS),
        ),
        ref.attention,
        (
            Rule("H", "must be a multiple of KVH", lambda d: d["H"] % d["KVH"] == 0),
            Rule("q_stride", "must be at least H*HD", lambda d: d["q_stride"] >= d["H"] * d["HD"]),
            Rule("kv_stride", "must be at least KVH*HD", lambda d: d["kv_stride"] >= d["KVH"] * d["HD"]),
            Rule("kv_extra", "must be at most KV", lambda d: d["kv_extra"] <= d["KV"]),
        ),
        _TOL,
        flops=lambda d: 4 * d["B"] * d["M"] * d["KV"] * d["H"] * d["HD"],
    ),
    Op(
        "avg_pool",
        "Mean over F x F windows of a token grid: x [V,G,G,D] to out [V,G/F,G/F,D].",
        (
            Ptr("x", "x_dtype", ("V", "G", "G", "D")),
            Ptr(
                "out",
                "out_dtype",
                ("V", Size("G/F", lambda d: d["G"] // d["F"]), Size("G/F", lambda d: d["G"] // d["F"]), "D"),
                "out",
            ),
            _scale("out_scale", "out_dtype"),
            Dim("V", 1, 8, try_=(1, 2)),
            Dim("G", 1, 256, try_=(4, 8)),
            Dim("D", 8, 1 << 16, multiple=8, try_=(8, 24)),
            Dim("F", 1, 4, try_=(1, 2, 4)),
            Code("x_dtype", FLOATS),
            Code("out_dtype", ACTS),
        ),
        ref.avg_pool,
        (Rule("F", "must divide G", lambda d: d["G"] % d["F"] == 0),),
        _TOL,
    ),
    Op(
        "amax",
        "out[0] = max(out[0], max |x|): what calibration measures. A non-finite x gives a non-finite out.",
        (
            Ptr("x", "x_dtype", ("n",)),
            Ptr("out", F32, (1,), "inout", align=4),
            Dim("n", 1, 1 << 30, try_=(1, 7, 100)),
            Code("x_dtype", FLOATS),
        ),
        ref.amax,
        (),
        _TOL,
    ),
    Op(
        "column_sum",
        "out[d] += sum of x[:, d]: with the number of rows, the mean of what a GEMM reads (calibration).",
        (
            Ptr("x", "x_dtype", ("M", "D")),
            Ptr("out", F32, ("D",), "inout"),
            Dim("M", 1, 1 << 20, try_=(1, 3, 17)),
            Dim("D", 8, 1 << 16, multiple=8, try_=(8, 72, 128)),
            Code("x_dtype", FLOATS),
        ),
        ref.column_sum,
        (),
        _TOL,
    ),
    Op(
        "count_saturated",
        "out[0] += number of |x| > 464 * scale: the values that a scale clips (464 is the last that still rounds to 448).",
        (
            Ptr("x", "x_dtype", ("n",)),
            Ptr("scale", F32, (1,), align=4),
            Ptr("out", F32, (1,), "inout", align=4),
            Dim("n", 1, 1 << 30, try_=(1, 7, 100)),
            Code("x_dtype", FLOATS),
        ),
        ref.count_saturated,
        (),
        _TOL,
    ),
)

OPS: dict[str, Op] = {op.name: op for op in _OPS}
