"""Who decides a Pi0.5 profile, and that nothing undecided, unknown or contradictory gets through."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from support.checkpoints import (
    EMBEDDING,
    TINY,
    lerobot_config,
    profile_dict,
    replace_dims,
    tensor_shapes,
    write_checkpoint,
)

from flashrt_core.core.checkpoint import open_checkpoint
from flashrt_core.errors import CheckpointError, CheckpointNotFound, ConfigError
from flashrt_core.models.pi05.dims import VARIANTS, Pi05Dims
from flashrt_core.models.pi05.profile import builtin_profiles, check_dims, load_profile
from flashrt_core.models.pi05.tensors import EMBEDDINGS, embedding_key, expected_tensors, unused_tensors


def put(folder, name, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


# ---- flashrt_profile.json


def test_profile_file(tmp_path):
    profile = load_profile(write_checkpoint(tmp_path))
    assert profile.dims == TINY
    assert (profile.name, profile.layout, profile.views) == ("test", "openpi", ("agentview", "wrist"))
    assert (profile.state_dim, profile.robot_action_dim, profile.state_in_prompt) == (8, 7, True)
    assert (profile.state_norm, profile.action_norm, profile.norm_eps) == ("quantile", "quantile", 1e-6)
    assert profile.delta_action_dims == () and profile.source["views"] == "flashrt_profile.json"
    assert profile.source["norm_eps"] == "default"
    assert load_profile(tmp_path / "model.safetensors") == profile


def test_variant_names_and_optional_keys(tmp_path):
    dims = {"vision": "so400m", "prefix": "gemma_2b", "expert": "gemma_300m", "vocab_size": 257152, "action_dim": 32}
    content = profile_dict(TINY, dims=dims, num_steps=None, norm_eps=1e-3, norm_asset="a", allow_minmax_stats=True,
                           description="x", delta_action_dims=[0, 2])  # fmt: skip
    profile = load_profile(put(tmp_path, "flashrt_profile.json", content))
    assert profile.dims == Pi05Dims(horizon=6, prompt_capacity=64)
    assert (profile.norm_eps, profile.norm_asset, profile.allow_minmax_stats) == (1e-3, "a", True)
    assert profile.delta_action_dims == (0, 2) and profile.dims.num_steps == 10


BAD = {
    "unknown key": ({"state_dims": 8}, "did you mean 'state_dim'"),
    "missing key": ({"state_in_prompt": None}, "state_in_prompt"),
    "model": ({"model": "pi0"}, "pi05"),
    "layout": ({"layout": "jax"}, "layout"),
    "bool as int": ({"state_dim": True}, "state_dim"),
    "float": ({"action_horizon": 10.0}, "action_horizon"),
    "zero": ({"robot_action_dim": 0}, "robot_action_dim"),
    "too many actions": ({"robot_action_dim": 33}, "1..32"),
    "text as bool": ({"state_in_prompt": "yes"}, "state_in_prompt"),
    "norm": ({"state_norm": "minmax"}, "quantile"),
    "views text": ({"views": "ab"}, "a list of names"),
    "views numbers": ({"views": ["a", 2]}, "a list of names"),
    "delta float": ({"delta_action_dims": [0.0]}, "a list of integers"),
    "delta bool": ({"delta_action_dims": [True]}, "a list of integers"),
    "no views": ({"views": []}, "num_views"),
    "four views": ({"views": ["a", "b", "c", "d"]}, "num_views"),
    "same view twice": ({"views": ["a", "a"]}, "different"),
    "delta out of range": ({"delta_action_dims": [7]}, "0..6"),
    "delta twice": ({"delta_action_dims": [1, 1]}, "different"),
    "delta negative": ({"delta_action_dims": [-1]}, "delta_action_dims"),
    "eps": ({"norm_eps": 0}, "norm_eps"),
    "eps nan": ({"norm_eps": "1e-6"}, "norm_eps"),
    "huge": ({"prompt_capacity": 1 << 40}, "prompt_capacity"),
    "name": ({"name": ""}, "name"),
    "name newline": ({"name": "a\nb"}, "name"),
    "dims": ({"dims": 3}, "dims"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_profile_file(tmp_path, case):
    changes, word = BAD[case]
    with pytest.raises(ConfigError) as caught:
        load_profile(put(tmp_path, "flashrt_profile.json", profile_dict(TINY, **changes)))
    assert word in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"pi05"'])
def test_profile_file_that_is_not_a_mapping(tmp_path, content):
    with pytest.raises(ConfigError, match="a mapping of profile keys"):
        load_profile(put(tmp_path, "flashrt_profile.json", content))


def test_missing_keys_are_listed_together(tmp_path):
    content = profile_dict(TINY, state_norm=None, views=None)
    with pytest.raises(ConfigError, match=r"missing: \['views', 'state_norm'\]"):
        load_profile(put(tmp_path, "flashrt_profile.json", content))
    with pytest.raises(ConfigError, match=r"layout: expected a name, found 7"):
        load_profile(put(tmp_path, "flashrt_profile.json", profile_dict(TINY, layout=7)))
    with pytest.raises(ConfigError, match=r"layout: expected 'openpi' or 'lerobot', found 'jax'"):
        load_profile(put(tmp_path, "flashrt_profile.json", profile_dict(TINY, layout="jax")))


@pytest.mark.parametrize("key", ["state_dim", "norm_eps", "robot_action_dim"])
def test_a_profile_made_in_python_is_checked_too(tmp_path, key):
    profile = load_profile(write_checkpoint(tmp_path))
    with pytest.raises(ConfigError, match=key):
        dataclasses.replace(profile, **{key: 0})


BAD_DIMS = {
    "unknown part": (("audio",), {}, "did you mean|known"),
    "unknown size": (("vision", "witdh"), 3, "did you mean 'width'"),
    "missing size": (("prefix", "head_dim"), None, r"prefix\.head_dim"),
    "variant": (("prefix",), "gemma_9b", "gemma_2b"),
    "lora": (("expert",), "gemma_300m_lora", "gemma_300m"),
    "other kind": (("vision",), "gemma_2b", "so400m"),
    "number": (("expert",), 7, "mapping"),
    "odd heads": (("vision", "num_heads"), 5, "multiple"),
    "unequal depth": (("expert", "num_layers"), 3, "num_layers"),
    "vocab": (("vocab_size",), None, "vocab_size: expected this key"),
    "negative": (("vision", "width"), -32, "width"),
}


@pytest.mark.parametrize("case", BAD_DIMS)
def test_bad_dims(tmp_path, case):
    path, value, word = BAD_DIMS[case]
    content = profile_dict(TINY)
    at = content["dims"]
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    with pytest.raises(ConfigError, match=word):
        load_profile(put(tmp_path, "flashrt_profile.json", content))


def test_eps_of_a_part_is_optional_and_read(tmp_path):
    content = profile_dict(TINY)
    content["dims"]["vision"]["ln_eps"] = 1e-5
    assert load_profile(put(tmp_path, "flashrt_profile.json", content)).dims.vision.ln_eps == 1e-5


# ---- explicit argument


def test_builtin_profiles():
    profiles = builtin_profiles()
    assert set(profiles) == {"pi05_libero", "pi05_droid", "pi05_full_droid_finetune", "pi05_base"}
    assert all(name == p.name and p.dims.prefix == VARIANTS["gemma_2b"] for name, p in profiles.items())
    # openpi training/config.py: horizons 10, 15, 16, 50; LIBERO alone has discrete_state_input=False
    assert [profiles[n].dims.horizon for n in profiles] == [10, 15, 16, 50]
    assert [n for n, p in profiles.items() if not p.state_in_prompt] == ["pi05_libero"]
    assert profiles["pi05_full_droid_finetune"].delta_action_dims == tuple(range(7))


def test_explicit_argument_wins(tmp_path):
    folder = write_checkpoint(tmp_path / "c")
    assert load_profile(folder, "pi05_droid") is builtin_profiles()["pi05_droid"]
    put(tmp_path, "mine.json", profile_dict(TINY, name="mine"))
    assert load_profile(folder, tmp_path / "mine.json").name == "mine"
    lines = json.dumps(profile_dict(TINY, name="yaml"), indent=1)
    put(tmp_path, "mine.yaml", lines)  # JSON is YAML
    profile = load_profile(folder, str(tmp_path / "mine.yaml"))
    assert profile.name == "yaml" and profile.dims == TINY and profile.source["views"] == "mine.yaml"


def test_explicit_argument_that_is_nothing(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'pi05_libero'"):
        load_profile(tmp_path, "pi05_libro")
    with pytest.raises(CheckpointNotFound, match=r"absent\.json"):
        load_profile(tmp_path, tmp_path / "absent.json")
    put(tmp_path, "p.yaml", "a: &x 1\nb: *x")
    with pytest.raises(ConfigError, match="aliases"):
        load_profile(tmp_path, tmp_path / "p.yaml")


def test_nothing_decides(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_profile(tmp_path)
    assert "flashrt_profile.json" in str(caught.value) and "pi05_libero" in str(caught.value)


# ---- openpi config.json

OPENPI = {"action_dim": 32, "action_horizon": 15, "paligemma_variant": "gemma_2b", "action_expert_variant": "gemma_300m",
          "precision": "bfloat16"}  # fmt: skip


def test_openpi_config_leaves_questions_open(tmp_path):
    put(tmp_path, "config.json", OPENPI)
    with pytest.raises(ConfigError) as caught:
        load_profile(tmp_path)
    for word in ("state_in_prompt", "views", "state_norm", "delta_action_dims", "pi05_droid"):
        assert word in str(caught.value)
    assert "pi05_libero" not in str(caught.value)  # its horizon is 10
    assert load_profile(tmp_path, "pi05_droid").dims.horizon == 15
    with pytest.raises(ConfigError, match="action_horizon"):
        load_profile(tmp_path, "pi05_libero")


@pytest.mark.parametrize("kind", ["pi0", None, 5])
def test_config_type_is_named(tmp_path, kind):
    with pytest.raises(ConfigError, match=f"type: expected 'pi05', found {kind!r}"):
        load_profile(put(tmp_path, "config.json", {"type": kind, "action_horizon": 10}))


@pytest.mark.parametrize("content", [{"type": "pi0"}, {"type": "act"}, "[]", {"action_horizon": "10"}])
def test_config_of_another_model(tmp_path, content):
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_profile(put(tmp_path, "config.json", content))


# ---- LeRobot config.json

FULL = Pi05Dims(horizon=50, prompt_capacity=200)


def lerobot(tmp_path, **changes):
    return put(tmp_path, "config.json", lerobot_config(FULL, **changes))


def step(name, **config):
    return {"registry_name": name, "config": config}


def test_lerobot_config(tmp_path):
    profile = load_profile(lerobot(tmp_path))
    assert profile.dims == FULL and profile.layout == "lerobot" and profile.views == ("image", "image2")
    assert (profile.state_dim, profile.robot_action_dim, profile.state_in_prompt) == (8, 7, True)
    assert (profile.state_norm, profile.action_norm, profile.norm_eps) == ("quantile", "quantile", 1e-8)
    assert profile.delta_action_dims == () and "LeRobot" in profile.source["state_norm"]


def test_lerobot_mean_std_and_empty_cameras(tmp_path):
    mapping = {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "IDENTITY"}
    config = lerobot_config(FULL, normalization_mapping=mapping, empty_cameras=1)
    config["input_features"]["observation.images.empty_camera_0"] = {"type": "VISUAL", "shape": [3, 224, 224]}
    profile = load_profile(put(tmp_path, "config.json", config))
    assert (profile.state_norm, profile.action_norm) == ("zscore", "none") and len(profile.views) == 2


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"normalization_mapping": None}, "normalization_mapping"),
        ({"normalization_mapping": {"STATE": "MIN_MAX", "ACTION": "QUANTILES"}}, "QUANTILES"),
        ({"normalization_mapping": {"VISUAL": "MEAN_STD", "STATE": "QUANTILES", "ACTION": "QUANTILES"}}, "VISUAL"),
        ({"chunk_size": None}, "chunk_size"),
        ({"input_features": {}}, "cameras"),
        ({"input_features": []}, "an object of features"),
        ({"input_features": {"a": 1}}, "an object of features"),
        ({"output_features": {}}, "action"),
        ({"paligemma_variant": "gemma_2b_lora"}, "gemma_2b"),
        ({"image_resolution": [224, 256]}, "image_resolution"),
        ({"image_resolution": [225, 225]}, "image_size"),
    ],
)
def test_lerobot_config_that_does_not_decide(tmp_path, changes, word):
    with pytest.raises(ConfigError, match=word):
        load_profile(lerobot(tmp_path, **changes))


def test_lerobot_state_must_be_declared(tmp_path):
    config = lerobot_config(FULL)
    del config["input_features"]["observation.state"]
    with pytest.raises(ConfigError, match=r"observation\.state"):
        load_profile(put(tmp_path, "config.json", config))


NAMES = ["shoulder.pos", "elbow.pos", "wrist.pos", "a", "b", "c", "Gripper.pos"]


def test_lerobot_relative_actions(tmp_path):
    folder = lerobot(
        tmp_path, use_relative_actions=True, relative_exclude_joints=["gripper"], action_feature_names=NAMES
    )
    assert load_profile(folder).delta_action_dims == (0, 1, 2, 3, 4, 5)
    steps = [
        step("relative_actions_processor", enabled=True, exclude_joints=[]),
        step("normalizer_processor", eps=1e-6),
    ]
    put(folder, "policy_preprocessor.json", {"steps": steps})
    profile = load_profile(folder)
    assert profile.delta_action_dims == tuple(range(7)) and profile.norm_eps == 1e-6
    steps[0]["config"]["enabled"] = False
    put(folder, "policy_preprocessor.json", {"steps": steps})
    with pytest.raises(ConfigError, match="one answer"):
        load_profile(folder)


def test_lerobot_relative_actions_without_names(tmp_path):
    with pytest.raises(ConfigError, match="action_names"):
        load_profile(lerobot(tmp_path, use_relative_actions=True, relative_exclude_joints=["gripper"]))


@pytest.mark.parametrize("eps", [0.0, 1.0, -1e-8, 1, "1e-8", True])
def test_lerobot_eps_is_a_small_number(tmp_path, eps):
    put(lerobot(tmp_path), "policy_preprocessor.json", {"steps": [step("normalizer_processor", eps=eps)]})
    with pytest.raises(ConfigError, match="eps: expected a number"):
        load_profile(tmp_path)


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"steps": [1]}', '{"steps": [{"registry_name": "device_processor", "config": 3}]}']
)
def test_lerobot_processor_file_of_another_form(tmp_path, content):
    put(lerobot(tmp_path), "policy_preprocessor.json", content)
    with pytest.raises(ConfigError, match=r"policy_preprocessor\.json.*(steps|object as config)"):
        load_profile(tmp_path)


def test_lerobot_relative_actions_of_wrong_types(tmp_path):
    for changes in ({"use_relative_actions": 1}, {"use_relative_actions": True, "relative_exclude_joints": "gripper"}):
        with pytest.raises(ConfigError, match=r"one answer|lists of joint names"):
            load_profile(lerobot(tmp_path, action_feature_names=NAMES, **changes))
    config = lerobot_config(FULL, use_relative_actions=True)
    config["input_features"]["observation.state"]["shape"] = [5]
    with pytest.raises(ConfigError, match="state entries"):
        load_profile(put(tmp_path, "config.json", config))


def test_lerobot_processors_must_agree_and_be_known(tmp_path):
    folder = lerobot(tmp_path)
    pre, post = "policy_preprocessor.json", "policy_postprocessor.json"
    put(folder, pre, {"steps": [step("normalizer_processor", norm_map={"STATE": "MEAN_STD"}, eps=1e-8)]})
    with pytest.raises(ConfigError, match=r"norm_map\.STATE"):
        load_profile(folder)
    put(folder, pre, {"steps": [step("normalizer_processor", norm_map={"STATE": "QUANTILES"}, eps=1e-8)]})
    put(folder, post, {"steps": [step("unnormalizer_processor", norm_map={"ACTION": "MEAN_STD"})]})
    with pytest.raises(ConfigError, match=r"norm_map\.ACTION"):
        load_profile(folder)
    put(folder, post, {"steps": [step("my_gripper_fix")]})
    with pytest.raises(ConfigError, match="my_gripper_fix"):
        load_profile(folder)
    put(folder, post, {"steps": [step("unnormalizer_processor"), step("absolute_actions_processor", enabled=False)]})
    put(folder, pre, {"steps": [step("tokenizer_processor", tokenizer_name="google/gemma-3")]})
    with pytest.raises(ConfigError, match="PaliGemma"):
        load_profile(folder)
    put(folder, pre, {"steps": [step("tokenizer_processor", tokenizer_name="google/paligemma-3b-pt-224")]})
    assert load_profile(folder).delta_action_dims == ()


# ---- tensors


@pytest.mark.parametrize("dims", [TINY, Pi05Dims()], ids=["tiny", "full"])
def test_tensor_table_equals_the_independent_one(dims):
    ours, theirs = expected_tensors(dims), tensor_shapes(dims)
    assert ours.pop(EMBEDDINGS[0]) == theirs[EMBEDDING]
    assert ours == theirs
    if dims == Pi05Dims():
        assert len(ours) == 812  # as read off openpi's model class


def test_unused_names_exist(tmp_path):
    source = open_checkpoint(write_checkpoint(tmp_path)).source()
    names = set(source.keys()) | {EMBEDDINGS[0]}
    import fnmatch

    assert all(any(fnmatch.fnmatchcase(n, pattern) for n in names) for pattern in unused_tensors(TINY))


@pytest.mark.parametrize("part", ["vocab_size", "action_dim"])
def test_check_dims_names_a_size_that_contradicts_the_file(tmp_path, part):
    folder = write_checkpoint(tmp_path)
    check_dims(load_profile(folder), open_checkpoint(folder).source())
    content = profile_dict(replace_dims(TINY, **{part: 48}))
    put(folder, "flashrt_profile.json", content)
    with pytest.raises(CheckpointError, match=r"lm_head|action_in_proj"):
        check_dims(load_profile(folder), open_checkpoint(folder).source())


def test_embedding_is_taken_from_whichever_name_is_there(tmp_path):
    source = open_checkpoint(write_checkpoint(tmp_path / "a")).source()
    assert embedding_key(source) == EMBEDDING
    value = torch.zeros(tensor_shapes(TINY)[EMBEDDING])
    both = open_checkpoint(write_checkpoint(tmp_path / "b", tensors={EMBEDDINGS[0]: value})).source()
    assert embedding_key(both) == EMBEDDINGS[0]


def test_no_torch_is_imported():
    code = "import sys, flashrt_core.models.pi05.profile, flashrt_core.inspect; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
