"""Closed forms of the parts of Pi0.5 that are computed once: times, styles, sizes, sites, buffers, actions."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from support.checkpoints import TINY

from flashrt_core.blocks.plan import BF16_STAGE, FP8_PER_STEP, FP8_VISION, FP32, Plan
from flashrt_core.core.utils.norm_stats import NormStats, Stats
from flashrt_core.errors import ConfigError, ObservationError
from flashrt_core.models.pi05.actions import robot_actions
from flashrt_core.models.pi05.buffers import buffer_plan, hidden_cols, patch_cols
from flashrt_core.models.pi05.dims import VARIANTS, GemmaDims, Pi05Dims, VisionDims
from flashrt_core.models.pi05.sites import site_names, sites_at
from flashrt_core.models.pi05.styles import denoise_times, time_embedding
from flashrt_core.models.pi05.tensors import expected_tensors
from flashrt_core.ops.table import SCALE_BYTES
from flashrt_core.types import BF16, E4M3

FULL = Pi05Dims()


def test_denoise_times() -> None:
    assert np.allclose(denoise_times(10), [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_time_embedding_closed_form() -> None:
    e = time_embedding(np.array([0.3]), 8, 4e-3, 4.0)[0]
    for i, period in enumerate([4e-3, 4e-2, 0.4, 4.0]):
        assert math.isclose(e[i], math.sin(2 * math.pi * 0.3 / period), abs_tol=1e-6)
        assert math.isclose(e[4 + i], math.cos(2 * math.pi * 0.3 / period), abs_tol=1e-6)


def test_published_sizes() -> None:
    assert FULL.vision.tokens == 256 and FULL.vision.head_dim == 72 and FULL.prefix.qkv_dim == 2560
    assert FULL.prefix_rows == 512 + 200 and FULL.cache_rows == 722 and patch_cols(FULL) == 592
    assert hidden_cols(FULL) == 4352 and hidden_cols(TINY) == 128, "whole lines of 128 bytes"
    assert VARIANTS["gemma_300m"].q_dim == 2048
    unique = sum(math.prod(s) for k, s in expected_tensors(FULL).items() if "embed_tokens" not in k)
    assert unique == 3_616_757_520, "the published parameter count with the tied embedding counted once"


def test_sites_count_as_upstream_reports() -> None:
    names = site_names(FULL)  # vision 109 + encoder 69 + decoder 72 per step
    assert sum(n.startswith("vision") for n in names) == 109
    assert sum(n.startswith("encoder") for n in names) == 69
    assert sum(n.startswith("decoder") for n in names) == 720 and len(set(names)) == len(names)
    sites = sites_at(FULL, 1000)
    assert sites.vis.layers[0][0] == 1000 and sites.dec[9].layers[17][3] == 1000 + SCALE_BYTES * (len(names) - 1)


def test_buffers_follow_the_plan() -> None:
    plan = Plan(vision=FP8_VISION, encoder=BF16_STAGE, decoder=FP8_PER_STEP)
    rows = buffer_plan(FULL, plan).rows
    assert rows["vis.act"].dtype == E4M3 and rows["vis.heads"].dtype == BF16
    assert rows["enc.act"].dtype == BF16 and rows["dec.hidden"].dtype == E4M3
    with pytest.raises(ConfigError, match="heads_wide in vision only"):
        Plan(vision=FP8_VISION, encoder=FP8_VISION, decoder=FP8_PER_STEP)
    assert rows["enc.hidden"].shape == (712, 16384) and rows["cache.k.0"].shape == (722, 256)
    assert "enc.hidden" in str(buffer_plan(FULL, plan)) and plan.name == "fp8"
    assert buffer_plan(TINY, Plan(FP32, FP32, FP32)).nbytes < 1 << 20


@pytest.mark.parametrize(
    "change",
    [
        dict(num_views=0), dict(num_views=4), dict(pool=3), dict(num_steps=0), dict(horizon=0), dict(vision_layers_used=3),
        dict(expert=dataclasses.replace(TINY.expert, head_dim=32)), dict(expert=dataclasses.replace(TINY.expert, num_layers=1)),
    ],
    ids=str,
)  # fmt: skip
def test_impossible_sizes_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(TINY, **change)


def test_impossible_stacks_are_refused() -> None:
    for make in (lambda: VisionDims(image_size=100), lambda: VisionDims(num_heads=7), lambda: GemmaDims(head_dim=3),
                 lambda: GemmaDims(num_heads=3, num_kv_heads=2), lambda: GemmaDims(width=-1)):  # fmt: skip
        with pytest.raises(ConfigError):
            make()


class Profile:
    name, state_dim, robot_action_dim, action_norm, norm_eps, delta_action_dims = "p", 3, 2, "quantile", None, ()


def stats() -> NormStats:
    block = Stats(q01=np.array([-1.0, 0.0]), q99=np.array([1.0, 4.0]))
    return NormStats(block, block, "test")


def test_actions_are_unnormalised_not_clipped_and_cut() -> None:
    got = robot_actions(np.array([[0.0, 1.5, 9.0]], np.float32), Profile(), stats(), None)
    assert np.allclose(got, [[0.0, 2.5 / 2 * 4]], atol=1e-4) and got.dtype == np.float32


def test_delta_actions_add_the_state_of_the_same_index() -> None:
    profile = Profile()
    profile.delta_action_dims = (1,)
    got = robot_actions(np.zeros((2, 3), np.float32), profile, stats(), np.array([10.0, 20.0, 30.0]))
    assert np.allclose(got, [[0.0, 22.0]] * 2, atol=1e-4)
    with pytest.raises(ObservationError, match="relative to the state"):
        robot_actions(np.zeros((2, 3), np.float32), profile, stats(), None)
