"""FP8 E4M3 (the finite-only `fn` variant) in NumPy: encode, decode and the rounding that emulates it in fp32.

Layout of one code: sign (1), exponent (4, bias 7), mantissa (3). Largest value 448 (0x7e), no infinity, one NaN per
sign (0x7f, 0xff), subnormals in steps of 2^-9. Rounding is to nearest, ties to even; magnitudes above 448 saturate.
Source: Micikevicius et al., "FP8 Formats for Deep Learning", 2022. Same result as `clamp(-448, 448)` followed by
PyTorch's cast to `float8_e4m3fn` (test/core/quant/test_e4m3.py).
"""

from __future__ import annotations

import numpy as np

from ...errors import OpError

E4M3_MAX = 448.0
MIN_SCALE = 1e-12  # a tensor of zeros still gets a scale that can be divided by
_MIN_NORMAL = 2.0**-6
_SUBNORMAL_STEP = 2.0**-9
_MANTISSA_CUT = 20  # fp32 has 23 mantissa bits, E4M3 has 3


def scale_from_amax(amax: float | np.ndarray) -> np.ndarray | np.float32:
    """Scale that maps `amax` to 448: max(amax / 448, 1e-12), fp32, same shape as `amax` (a scalar for a scalar).

    OpError when an amax is negative or not finite.
    """
    value = np.asarray(amax, dtype=np.float32)
    if not (np.isfinite(value) & (value >= 0)).all():
        raise OpError("scale_from_amax", "amax", amax, "must be finite and >= 0")
    return np.maximum(value / np.float32(E4M3_MAX), np.float32(MIN_SCALE))[()]


def encode_e4m3(x: np.ndarray) -> np.ndarray:
    """E4M3 codes of `x` (any float dtype, any shape) as uint8. NaN becomes 0x7f with the sign of the NaN."""
    rounded = _round(np.asarray(x, dtype=np.float32))
    bits = rounded.view(np.uint32)
    sign = (bits >> 24).astype(np.uint8) & 0x80
    magnitude = bits & 0x7FFFFFFF
    normal = (magnitude >> _MANTISSA_CUT) - ((127 - 7) << 3)  # exponent bias 127 -> 7, mantissa already cut to 3 bits
    with np.errstate(invalid="ignore"):  # NaN: overwritten below
        absolute = np.abs(rounded)
        subnormal = (absolute / np.float32(_SUBNORMAL_STEP)).astype(np.uint32)
        code = np.where(absolute < _MIN_NORMAL, subnormal, normal).astype(np.uint8)
    code[np.isnan(rounded)] = 0x7F
    return code | sign


def decode_e4m3(codes: np.ndarray) -> np.ndarray:
    """fp32 values of uint8 E4M3 codes; OpError for any other dtype."""
    codes = np.asarray(codes)
    if codes.dtype != np.uint8:
        raise OpError("decode_e4m3", "codes.dtype", codes.dtype, "must be uint8")
    return _DECODED[codes]


def round_to_e4m3(x: np.ndarray, scale: float | np.ndarray = 1.0) -> np.ndarray:
    """fp32 values that `x` takes after a round trip through E4M3: E4M3(x / scale) * scale.

    x: any float dtype, any shape. scale: finite and > 0, a scalar or an array that broadcasts against x without
    enlarging it. Returns fp32 with the shape of x; NaN stays NaN. OpError for a bad scale.
    """
    x = np.asarray(x, dtype=np.float32)
    scale = _checked_scale("round_to_e4m3", x, scale)
    return _round(_divide(x, scale)) * scale


def quantize_e4m3(x: np.ndarray, scale: float | np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | np.float32]:
    """(codes uint8, scale fp32) of `x`; without a scale the per-tensor one from max |x|.

    decode_e4m3(codes) * scale equals round_to_e4m3(x, scale). OpError for a bad scale or, when the scale is computed,
    for an x that is not finite.
    """
    x = np.asarray(x, dtype=np.float32)
    if scale is None:
        scale = scale_from_amax(np.abs(x).max(initial=0.0))
    scale = _checked_scale("quantize_e4m3", x, scale)
    return encode_e4m3(_divide(x, scale)), scale


def _divide(x: np.ndarray, scale: np.ndarray | np.float32) -> np.ndarray:
    with np.errstate(over="ignore"):  # infinity saturates like any other magnitude above 448
        return x / scale


def _round(x: np.ndarray) -> np.ndarray:
    """`x` (fp32) rounded to the nearest representable value and saturated; a fresh array."""
    clipped = np.asarray(np.clip(x, -E4M3_MAX, E4M3_MAX), dtype=np.float32)
    bits = clipped.view(np.uint32)
    # Ties to even in integer arithmetic: add just under half a step, plus one when the kept mantissa is odd.
    odd = (bits >> _MANTISSA_CUT) & 1
    kept = (bits + odd + ((1 << (_MANTISSA_CUT - 1)) - 1)) & np.uint32(0xFFF00000)
    normal = np.asarray(kept).view(np.float32)
    step = np.float32(_SUBNORMAL_STEP)
    with np.errstate(invalid="ignore"):
        small = np.rint(clipped / step) * step  # rint ties to even; a power of two loses nothing
        rounded = np.where(np.abs(clipped) < _MIN_NORMAL, small, normal)
    return np.where(np.isnan(clipped), clipped, rounded)


def _checked_scale(op: str, x: np.ndarray, scale: float | np.ndarray) -> np.ndarray | np.float32:
    value = np.asarray(scale, dtype=np.float32)
    if not (np.isfinite(value) & (value > 0)).all():
        raise OpError(op, "scale", scale, "must be finite and > 0")
    try:
        fits = np.broadcast_shapes(x.shape, value.shape) == x.shape
    except ValueError:
        fits = False
    if not fits:
        raise OpError(op, "scale.shape", value.shape, f"must broadcast against x.shape={x.shape}")
    return value[()]


def _decode_table() -> np.ndarray:
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 0xF, code & 7
    magnitude = np.where(exponent == 0, mantissa * _SUBNORMAL_STEP, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    magnitude[(code & 0x7F) == 0x7F] = np.nan
    return np.copysign(magnitude, np.where(code & 0x80, -1.0, 1.0)).astype(np.float32)


_DECODED = _decode_table()
