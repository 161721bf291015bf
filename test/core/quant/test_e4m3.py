"""E4M3 emulation against PyTorch's cast, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashrt_core.core.quant.e4m3 import (
    E4M3_MAX,
    MIN_SCALE,
    decode_e4m3,
    encode_e4m3,
    quantize_e4m3,
    round_to_e4m3,
    scale_from_amax,
)
from flashrt_core.errors import OpError


def torch_codes(x: np.ndarray) -> np.ndarray:
    """The oracle: saturate, then PyTorch's own cast. The clamp makes it the same in every PyTorch version."""
    clamped = torch.from_numpy(np.ascontiguousarray(x)).clamp(-448.0, 448.0)
    return clamped.to(torch.float8_e4m3fn).view(torch.uint8).numpy()


def interesting_values() -> np.ndarray:
    """Every representable value, every tie between two of them, and the 64 fp32 neighbours on both sides of each."""
    codes = np.arange(256, dtype=np.uint8)
    codes = codes[(codes & 0x7F) != 0x7F]
    values = np.sort(torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy())
    ties = (values[1:] + values[:-1]) / 2
    past = np.array([464.0, 480.0, 1e30, 3e38, np.inf], np.float32)
    centres = np.concatenate([values, ties, past, -past]).astype(np.float32)
    bits = centres.view(np.int32)[:, None] + np.arange(-64, 65, dtype=np.int32)
    near = bits.reshape(-1).view(np.float32)
    tiny = np.array([0.0, -0.0, 1e-45, -1e-45, 2.0**-10, -(2.0**-10), 1.17e-38], np.float32)
    return np.concatenate([near[~np.isnan(near)], tiny])


def test_every_neighbourhood_and_tie_matches_torch():
    x = interesting_values()
    assert x.size > 60_000
    np.testing.assert_array_equal(encode_e4m3(x), torch_codes(x))
    expected = torch.from_numpy(torch_codes(x)).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(round_to_e4m3(x).view(np.uint32), expected.view(np.uint32))


def test_every_upper_half_of_fp32_matches_torch():
    """All 2^16 sign/exponent/mantissa prefixes of fp32, with three different tails each."""
    prefix = np.arange(1 << 16, dtype=np.uint32) << 16
    x = np.concatenate([prefix | tail for tail in (0x0000, 0x0001, 0xFFFF)]).view(np.float32)
    x = x[~np.isnan(x)]
    np.testing.assert_array_equal(encode_e4m3(x), torch_codes(x))


def test_decode_matches_torch_for_all_codes():
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(decode_e4m3(codes), expected)
    finite = codes[(codes & 0x7F) != 0x7F]
    np.testing.assert_array_equal(encode_e4m3(decode_e4m3(finite)), finite)


def test_nan_keeps_its_sign_and_infinity_saturates():
    x = np.array([np.nan, -np.nan, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(encode_e4m3(x), [0x7F, 0xFF, 0x7E, 0xFE])
    assert np.isnan(round_to_e4m3(x)[:2]).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 20), rows=st.integers(1, 9))
def test_scaled_rounding_matches_torch(seed: int, exponent: int, rows: int):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, 33)) * 2.0**exponent).astype(np.float32)
    scale = scale_from_amax(np.abs(x).max() * rng.uniform(0.3, 1.0))
    t = (torch.from_numpy(x) / float(scale)).clamp(-448, 448).to(torch.float8_e4m3fn)
    np.testing.assert_array_equal(round_to_e4m3(x, scale), (t.float() * float(scale)).numpy())
    codes, used = quantize_e4m3(x, scale)
    np.testing.assert_array_equal(codes, t.view(torch.uint8).numpy())
    np.testing.assert_array_equal(decode_e4m3(codes) * used, round_to_e4m3(x, scale))


def test_rounding_is_idempotent_and_keeps_shape_and_input():
    x = np.random.default_rng(0).standard_normal((2, 3, 5))[:, ::-1].astype(np.float16)
    before = x.copy()
    once = round_to_e4m3(x, 0.125)
    assert once.dtype == np.float32 and once.shape == x.shape
    np.testing.assert_array_equal(round_to_e4m3(once, 0.125), once)
    np.testing.assert_array_equal(x, before)
    assert round_to_e4m3(np.float32(1.05)).shape == ()
    assert encode_e4m3(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_scale_arithmetic():
    assert E4M3_MAX == 448.0
    assert scale_from_amax(448.0) == 1.0
    assert scale_from_amax(0.0) == np.float32(MIN_SCALE)
    assert scale_from_amax(3.0) == np.float32(3.0 / 448.0)
    np.testing.assert_array_equal(scale_from_amax(np.array([448.0, 896.0])), np.array([1, 2], np.float32))


def test_per_channel_scale_broadcasts():
    x = np.array([[1.0, 100.0], [2.0, 50.0]], np.float32)
    scale = scale_from_amax(np.abs(x).max(axis=0, keepdims=True))
    np.testing.assert_allclose(round_to_e4m3(x, scale)[[1, 0], [0, 1]], [2.0, 100.0], rtol=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, np.ones(3), np.ones((1, 2, 2))])
def test_bad_scale_is_named(bad):
    with pytest.raises(OpError, match="scale"):
        round_to_e4m3(np.ones((2, 2), np.float32), bad)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_bad_amax_is_named(bad):
    with pytest.raises(OpError, match="amax"):
        scale_from_amax(bad)


def test_decode_refuses_other_dtypes():
    with pytest.raises(OpError, match="uint8"):
        decode_e4m3(np.zeros(2, np.int32))
