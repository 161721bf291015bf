"""fp32 NumPy references of the ops: the closed form that every implementation is compared with.

Each function takes arrays (quantised operands already decoded, still to be multiplied by their scale) and returns the
fp32 result before the output is rounded to its dtype. None stands for an optional operand that is absent.
"""

from __future__ import annotations

import math

import numpy as np

from .resample import fit_into

Array = np.ndarray


def gelu_tanh(x: Array) -> Array:
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the approximation that SigLIP and Gemma use."""
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def resize_pad(images: Array, *, S: int, **_: object) -> Array:
    return np.stack([fit_into(image, S) for image in images]).astype(np.float32)


def patchify(images: Array, *, P: int, K: int, **_: object) -> Array:
    V, S, _w, _c = images.shape
    x = images.astype(np.float32)
    if images.dtype == np.uint8:
        x = x / np.float32(255) * 2 - 1
    g = S // P
    x = x.reshape(V, g, P, g, P, 3).transpose(0, 1, 3, 5, 2, 4).reshape(V * g * g, 3 * P * P)
    return np.pad(x, ((0, 0), (0, K - x.shape[1])))


def embed_tokens(table: Array, ids: Array, *, scale: float, **_: object) -> Array:
    return table[ids] * np.float32(scale)


def layer_norm(x: Array, w: Array, b: Array, *, eps: float, **_: object) -> Array:
    mean = x.mean(-1, keepdims=True, dtype=np.float64)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return ((x - mean) / np.sqrt(var + eps) * w + b).astype(np.float32)


def _rms(x: Array, eps: float) -> Array:
    return x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + eps)


def rms_norm(x: Array, *, eps: float, **_: object) -> Array:
    return _rms(x, eps).astype(np.float32)


def ada_rms_norm(x: Array, style: Array, *, eps: float, **_: object) -> Array:
    return (_rms(x, eps) * (1.0 + style[0]) + style[1]).astype(np.float32)


def gemm(
    a: Array,
    w: Array,
    bias: Array | None,
    res: Array | None,
    gate: Array | None,
    a_scale: Array | None,
    w_scale: Array | None,
    *,
    N: int,
    epilogue: int,
    **_: object,
) -> Array:
    acc = a.astype(np.float64) @ w.astype(np.float64).T
    if a_scale is not None and w_scale is not None:
        acc = acc * (float(a_scale[0]) * float(w_scale[0]))
    acc = {
        0: lambda: acc,
        1: lambda: acc + bias,
        2: lambda: gelu_tanh(acc + bias),
        3: lambda: res + acc,
        4: lambda: res + acc + bias,
        5: lambda: res + gate * acc,
        6: lambda: gelu_tanh(acc[:, :N]) * acc[:, N:],
    }[int(epilogue)]()
    return acc.astype(np.float32)


def rope_table(rows: int, head_dim: int, theta: float) -> Array:
    """[rows, head_dim] fp32: (cos, sin) of position * theta^(-2j/head_dim) for pair j, computed in float64."""
    freq = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angle = np.arange(rows, dtype=np.float64)[:, None] * freq
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(rows, head_dim).astype(np.float32)


def _rotate(x: Array, rope: Array) -> Array:
    """x [M, heads, HD], rope [M, HD]: pair (x0, x1) -> (x0 c - x1 s, x1 c + x0 s)."""
    c, s = rope[:, None, 0::2], rope[:, None, 1::2]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * c - x[..., 1::2] * s
    out[..., 1::2] = x[..., 1::2] * c + x[..., 0::2] * s
    return out


def qkv_rope(
    qkv: Array, rope: Array, pos0: Array | None, *, M: int, H: int, KVH: int, HD: int, **_: object
) -> dict[str, Array]:
    """Returns the written values: q [M, H*HD], and the k, v rows [M, KVH*HD] that belong at cache row *pos0."""
    start = 0 if pos0 is None else int(pos0[0])
    x = qkv.reshape(M, H + 2 * KVH, HD)
    table = rope[start : start + M]
    return {
        "q": _rotate(x[:, :H], table).reshape(M, -1),
        "k": _rotate(x[:, H : H + KVH], table).reshape(M, -1),
        "v": x[:, H + KVH :].reshape(M, -1),
    }


def gemm_qkv_rope(
    a: Array, w: Array, rope: Array, pos0: Array | None, a_scale: Array | None, w_scale: Array | None, **sizes: int
) -> dict[str, Array]:
    """What `qkv_rope` writes of the product."""
    qkv = gemm(a, w, None, None, None, a_scale, w_scale, N=len(w), epilogue=0)
    return qkv_rope(qkv, rope, pos0, **sizes)


def gemm_gate_norm(
    a: Array, w: Array, res: Array, gate: Array, style: Array, a_scale: Array | None, w_scale: Array | None,
    out_scale: Array | None = None, *, N: int, eps: float, **_: object,
) -> dict[str, Array]:  # fmt: skip
    """`out`, and `normed` of it."""
    out = gemm(a, w, None, res, gate, a_scale, w_scale, N=N, epilogue=5)
    return {"out": out, "normed": ada_rms_norm(out, style, eps=eps)}


def action_step(
    final: Array | None, out_w: Array | None, out_b: Array | None, actions: Array, in_w: Array | None, in_b: Array | None,
    style: Array | None, out_scale: Array | None = None, *, leave: int, enter: int, eps: float, **_: object,
) -> dict[str, Array]:  # fmt: skip
    """The actions after the call; `h` and `normed` where it enters a step."""
    if leave:
        actions = gemm(final, out_w, out_b, actions, None, None, None, N=len(out_w), epilogue=4)
    if not enter:
        return {"actions": actions}
    h = gemm(actions, in_w, in_b, None, None, None, None, N=len(in_w), epilogue=1)
    return {"actions": actions, "h": h, "normed": ada_rms_norm(h, style, eps=eps)}


def attention(
    q: Array, k: Array, v: Array, kv_len: Array | None, *, B: int, M: int, KV: int, kv_extra: int, H: int, KVH: int,
    HD: int, scale: float, **_: object,
) -> Array:  # fmt: skip
    n = KV if kv_len is None else int(kv_len[0]) + kv_extra
    qh = q[..., : H * HD].reshape(B, M, H, HD).astype(np.float64)
    kh = np.repeat(k[:, :n, : KVH * HD].reshape(B, n, KVH, HD), H // KVH, axis=2)
    vh = np.repeat(v[:, :n, : KVH * HD].reshape(B, n, KVH, HD), H // KVH, axis=2)
    logits = np.einsum("bmhd,bnhd->bhmn", qh, kh) * scale
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.einsum("bhmn,bnhd->bmhd", p, vh).reshape(B, M, H * HD).astype(np.float32)


def avg_pool(x: Array, *, F: int, **_: object) -> Array:
    V, G, _g, D = x.shape
    return x.reshape(V, G // F, F, G // F, F, D).mean((2, 4), dtype=np.float64).astype(np.float32)


def amax(x: Array, out: Array, **_: object) -> Array:
    return np.maximum(out, np.abs(x).max(initial=0.0)).astype(np.float32)


def column_sum(x: Array, out: Array, **_: object) -> Array:
    return (out + x.sum(0, dtype=np.float64)).astype(np.float32)


def count_saturated(x: Array, scale: Array, out: Array, **_: object) -> Array:
    return (out + (np.abs(x) > 464.0 * scale).sum()).astype(np.float32)
