"""Statistics: the formulas of both projects written out again, the search order, ambiguity."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import lerobot_stats_tensors, norm_stats_dict

from flashrt_core.core.utils.norm_stats import Stats, load_norm_stats, normalize, unnormalize
from flashrt_core.errors import CheckpointError, CheckpointNotFound, ConfigError

RAW = norm_stats_dict(5)["norm_stats"]["state"]


def profile(**changes):
    base = dict(
        layout="openpi", state_dim=8, robot_action_dim=7, state_norm="quantile", action_norm="quantile", norm_asset=None,
        allow_minmax_stats=False, dims=SimpleNamespace(action_dim=32),
    )  # fmt: skip
    return SimpleNamespace(**{**base, **changes})


def stats(convention: str) -> Stats:
    kind = np.float32 if convention == "lerobot" else np.float64
    return Stats(**{k: np.array(v, kind) for k, v in RAW.items()}, convention=convention)


# The two references are transcriptions of the formulas: openpi in NumPy float64, LeRobot in torch float32.


def openpi(x, mode, inverse):
    mean, std, q01, q99 = (np.array(RAW[k]) for k in ("mean", "std", "q01", "q99"))
    if mode == "zscore":
        return x * (std + 1e-6) + mean if inverse else (x - mean) / (std + 1e-6)
    return (x + 1.0) / 2.0 * (q99 - q01 + 1e-6) + q01 if inverse else (x - q01) / (q99 - q01 + 1e-6) * 2.0 - 1.0


def lerobot(x, mode, inverse):
    mean, std, q01, q99 = (torch.tensor(RAW[k], dtype=torch.float32) for k in ("mean", "std", "q01", "q99"))
    x = torch.from_numpy(x)
    if mode == "zscore":
        return (x * std + mean if inverse else (x - mean) / (std + 1e-8)).numpy()
    span = q99 - q01
    span = torch.where(span == 0, torch.tensor(1e-8), span)
    return ((x + 1.0) * span / 2.0 + q01 if inverse else 2.0 * (x - q01) / span - 1.0).numpy()


@pytest.mark.parametrize("convention", ["openpi", "lerobot"])
@pytest.mark.parametrize("mode", ["quantile", "zscore"])
@pytest.mark.parametrize("inverse", [False, True])
def test_formulas_are_bit_equal(convention, mode, inverse):
    x = np.random.default_rng(0).normal(0, 3, (50, 8)).astype(np.float32)
    reference = {"openpi": openpi, "lerobot": lerobot}[convention](x, mode, inverse)
    ours = (unnormalize if inverse else normalize)(x, stats(convention), mode)
    np.testing.assert_array_equal(ours, reference, strict=True)
    if mode == "quantile" and not inverse:
        assert np.abs(ours).max() > 1.5  # nothing is clipped


@pytest.mark.parametrize("convention", ["openpi", "lerobot"])
@pytest.mark.parametrize("mode", ["quantile", "zscore", "none"])
def test_unnormalize_inverts_normalize(convention, mode):
    x = np.random.default_rng(1).normal(0, 3, (4, 10, 8))
    back = unnormalize(normalize(x, stats(convention), mode), stats(convention), mode)
    np.testing.assert_allclose(back, x, atol=2e-6)


def test_dimensions_beyond_the_statistics_pass_through():
    x = np.random.default_rng(2).normal(size=(3, 11))
    for apply in (normalize, unnormalize):
        y = apply(x, stats("openpi"), "quantile")
        assert np.array_equal(y[:, 8:], x[:, 8:]) and np.array_equal(
            y[:, :8], apply(x[:, :8], stats("openpi"), "quantile")
        )
        assert np.array_equal(apply(x[:, :5], stats("openpi"), "quantile"), y[:, :5])


def test_epsilon_is_an_argument_and_unknown_modes_are_refused():
    x = np.ones(8)
    assert not np.array_equal(normalize(x, stats("openpi"), "zscore", 0.5), normalize(x, stats("openpi"), "zscore"))
    with pytest.raises(ConfigError, match="'min_max'"):
        normalize(x, stats("openpi"), "min_max")
    with pytest.raises(CheckpointError):
        normalize(x, Stats(), "quantile")


# ---- where they are found


def write(path, seed, **sizes):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = norm_stats_dict(seed, **sizes)
    path.write_text(json.dumps(content))
    return content["norm_stats"]


def dataset_stats(seed):
    block = norm_stats_dict(seed)["norm_stats"]
    return {"observation.state": block["state"], "action": block["actions"], "timestamp": {"min": [0.0]}}


def processors(folder, seed, steps=(3, 0)):
    before, after = lerobot_stats_tensors(norm_stats_dict(seed))
    save_file(before, folder / f"policy_preprocessor_step_{steps[0]}_normalizer_processor.safetensors")
    save_file(after, folder / f"policy_postprocessor_step_{steps[1]}_unnormalizer_processor.safetensors")


def test_search_order(tmp_path):
    seeds = {}
    (tmp_path / "stats.json").write_text(json.dumps(dataset_stats(1)))
    seeds["stats.json"] = 1
    steps = [("stats.json", 1)]
    (tmp_path / "meta").mkdir()
    for name, seed, make in (
        ("meta/stats.json", 2, lambda: (tmp_path / "meta" / "stats.json").write_text(json.dumps(dataset_stats(2)))),
        ("policy_preprocessor_step_3", 3, lambda: processors(tmp_path, 3)),
        ("norm_stats.json", 4, lambda: write(tmp_path / "norm_stats.json", 4)),
        ("assets/a/b/norm_stats.json", 5, lambda: write(tmp_path / "assets" / "a" / "b" / "norm_stats.json", 5)),
    ):
        before = load_norm_stats(tmp_path, profile())
        assert before.source.startswith(steps[-1][0])
        make()
        steps.append((name, seed))
        found = load_norm_stats(tmp_path, profile())
        assert found.source.startswith(name)
        want = norm_stats_dict(seed)["norm_stats"]
        np.testing.assert_allclose(found.state.q01, want["state"]["q01"], rtol=1e-6)
        np.testing.assert_allclose(found.actions.q99, want["actions"]["q99"], rtol=1e-6)
    found = load_norm_stats(tmp_path, profile(layout="lerobot"))
    assert found.source.startswith("policy_preprocessor") and found.state.q01.dtype == np.float32
    assert found.actions.convention == "lerobot"


def test_several_assets_need_a_name(tmp_path):
    write(tmp_path / "assets" / "droid" / "norm_stats.json", 1)
    want = write(tmp_path / "assets" / "physical-intelligence" / "libero" / "norm_stats.json", 2)
    with pytest.raises(CheckpointError, match=r"several.*droid.*libero"):
        load_norm_stats(tmp_path, profile())
    found = load_norm_stats(tmp_path, profile(norm_asset="physical-intelligence/libero"))
    assert np.array_equal(found.state.mean, want["state"]["mean"])
    with pytest.raises(CheckpointNotFound, match=r"trossen.*droid"):
        load_norm_stats(tmp_path, profile(norm_asset="trossen"))


def test_unwrapped_openpi_dict_and_padded_vectors(tmp_path):
    block = norm_stats_dict(3, state_dim=32, action_dim=32)["norm_stats"]
    for part, n in (("state", 8), ("actions", 7)):
        for name in ("q01", "q99", "mean", "std"):
            block[part][name][n:] = [0.0] * (32 - n)  # padding: q01 = q99 = 0, std 0
    (tmp_path / "norm_stats.json").write_text(json.dumps(block))
    found = load_norm_stats(tmp_path, profile())
    assert found.state.q01.shape == (8,) and found.actions.q99.shape == (7,)
    with pytest.raises(CheckpointError, match=r"q01 < q99|> 0"):
        load_norm_stats(tmp_path, profile(state_dim=9, robot_action_dim=7))


def test_openpi_plural_actions_are_not_lerobot_statistics(tmp_path):
    (tmp_path / "stats.json").write_text(json.dumps(norm_stats_dict(1)["norm_stats"]))
    with pytest.raises(CheckpointError, match=r"observation\.state"):
        load_norm_stats(tmp_path, profile())
    (tmp_path / "norm_stats.json").write_text(json.dumps(dataset_stats(1)))
    with pytest.raises(CheckpointError, match="'state'"):
        load_norm_stats(tmp_path, profile())


@pytest.mark.parametrize("content", ["[]", "3", '{"norm_stats": []}', '{"state": [], "actions": {}}'])
def test_file_without_blocks(tmp_path, content):
    (tmp_path / "norm_stats.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"norm_stats\.json: expected"):
        load_norm_stats(tmp_path, profile())


def test_minmax_stands_in_only_when_the_profile_says_so(tmp_path):
    content = dataset_stats(1)
    for block in (content["observation.state"], content["action"]):
        block["min"], block["max"] = block.pop("q01"), block.pop("q99")
    (tmp_path / "stats.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="allow_minmax_stats"):
        load_norm_stats(tmp_path, profile())
    found = load_norm_stats(tmp_path, profile(allow_minmax_stats=True))
    assert found.state.q01.tolist() == content["observation.state"]["min"]
    zscore = load_norm_stats(tmp_path, profile(state_norm="zscore", action_norm="zscore"))
    assert zscore.actions.std.tolist() == content["action"]["std"]


def test_zscore_does_not_care_about_equal_quantiles(tmp_path):
    content = norm_stats_dict(1)
    content["norm_stats"]["state"]["q01"] = content["norm_stats"]["state"]["q99"]
    (tmp_path / "norm_stats.json").write_text(json.dumps(content))
    load_norm_stats(tmp_path, profile(state_norm="zscore"))
    with pytest.raises(CheckpointError, match="q01 < q99"):
        load_norm_stats(tmp_path, profile())


def test_processors_that_contradict_or_repeat(tmp_path):
    processors(tmp_path, 1)
    processors(tmp_path, 1, steps=(4, 0))
    with pytest.raises(CheckpointError, match="one file"):
        load_norm_stats(tmp_path, profile())
    (tmp_path / "policy_preprocessor_step_4_normalizer_processor.safetensors").unlink()
    load_norm_stats(tmp_path, profile())
    other = lerobot_stats_tensors(norm_stats_dict(2))[1]
    save_file(other, tmp_path / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")
    with pytest.raises(CheckpointError, match="same values"):
        load_norm_stats(tmp_path, profile())
    (tmp_path / "policy_postprocessor_step_0_unnormalizer_processor.safetensors").unlink()
    with pytest.raises(CheckpointError, match="unnormalizer"):
        load_norm_stats(tmp_path, profile())


def test_no_statistics_are_needed_when_nothing_is_normalised(tmp_path):
    found = load_norm_stats(tmp_path, profile(state_norm="none", action_norm="none"))
    assert found.source == "not needed"
    assert normalize(np.ones(3), found.state, "none").tolist() == [1, 1, 1]


def test_no_global_cache_is_read(tmp_path, monkeypatch):
    home = tmp_path / "home"
    write(
        home
        / ".cache/openpi/openpi-assets/checkpoints/pi05_libero/assets/physical-intelligence/libero/norm_stats.json",
        1,
    )
    write(tmp_path / "pi05_libero" / "assets" / "physical-intelligence" / "libero" / "norm_stats.json", 1)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "ckpt").mkdir()
    with pytest.raises(CheckpointNotFound):
        load_norm_stats(tmp_path / "ckpt", profile(norm_asset="physical-intelligence/libero"))
