"""Rounding to E4M3 that keeps a row's product with a mean: neighbours only, a mean error that nearest rounding has 50 times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashrt_core.core.quant.e4m3 import round_to_e4m3 as reference
from flashrt_core.executors.torch_rounding import round_to_e4m3

SHAPES = [(300, 1024), (5000, 64), (64, 4096)]


def drawn(shape: tuple[int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=gen)
    return x * (448 / x.abs().max()), torch.randn(shape[1], generator=gen)


def neighbours(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The representable values below and above each value (the value itself twice, where it is one)."""
    grid = np.unique(
        reference(np.concatenate([-np.geomspace(2**-9, 448, 200_000), [0], np.geomspace(2**-9, 448, 200_000)]))
    )
    values = np.clip(x.double().numpy(), -448, 448)
    return grid[np.searchsorted(grid, values, "right") - 1], grid[np.searchsorted(grid, values)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_is_kept_and_little_else_changes(shape) -> None:
    x, mean = drawn(shape)
    nearest, kept = round_to_e4m3(x).float() - x, round_to_e4m3(x, mean).float() - x
    assert (kept @ mean).norm() <= (0.1 if shape[1] < 100 else 0.02) * (nearest @ mean).norm()
    assert kept.norm() <= 1.02 * nearest.norm()
    assert (kept != nearest).float().mean() <= (0.12 if shape[1] < 100 else 0.04)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_result_is_a_neighbour(shape) -> None:
    x, mean = drawn(shape, 1)
    x[0, :8] = torch.tensor([448.0, -448.0, 449.0, 1e6, 0.0, 2.0**-9, 2.0**-10, -(2.0**-11)])
    below, above = neighbours(x)
    got = round_to_e4m3(x, mean).float().numpy()
    assert ((got == below) | (got == above)).all()


def test_without_a_mean_it_is_nearest() -> None:
    x, mean = drawn((40, 72))
    want = reference(x.numpy())
    assert np.array_equal(round_to_e4m3(x).float().numpy(), want)
    assert np.array_equal(round_to_e4m3(x, torch.zeros(72)).float().numpy(), want)  # nothing to keep
    exact = round_to_e4m3(x).float()
    assert torch.equal(round_to_e4m3(exact, mean).float(), exact)  # nothing to round


def test_channels_that_tower_above_the_others() -> None:
    """As trained models have them: one weight's rounding is most of the error, the small ones take it back."""
    x, mean = drawn((256, 1024))
    mean[3], mean[77] = 300.0, -80.0
    nearest, kept = round_to_e4m3(x).float() - x, round_to_e4m3(x, mean).float() - x
    assert (kept @ mean).norm() <= 0.2 * (nearest @ mean).norm()
    assert kept.norm() <= 1.05 * nearest.norm()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31), st.floats(1e-6, 1e6), st.floats(-20, 9))
def test_never_further_from_the_mean_product_than_nearest(rows, columns, seed, of_mean, exponent) -> None:
    x, mean = drawn((rows, columns), seed)
    x, mean = x * 2.0 ** (exponent - 9), mean * of_mean
    nearest, kept = (((round_to_e4m3(x, m).double() - x.double()) @ mean.double()).abs() for m in (None, mean))
    slack = 1e-4 * (x.abs().double() @ mean.abs().double())  # sums in fp32 decide
    assert (kept <= nearest + slack).all()
    assert torch.equal(round_to_e4m3(x, mean).float(), round_to_e4m3(x, mean).float())
