"""Writes small Pi0.5-shaped checkpoint folders (random weights, statistics, tokenizer, profile) for the tests.

The tensor names and shapes are listed a second time on purpose: `flashrt_core.models.pi05.tensors` is what is tested.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from flashrt_core.models.pi05.dims import GemmaDims, Pi05Dims, VisionDims

TINY = Pi05Dims(
    vision=VisionDims(image_size=28, patch_size=14, width=32, mlp_dim=48, num_layers=2, num_heads=2),
    prefix=GemmaDims(width=48, mlp_dim=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16),
    expert=GemmaDims(width=32, mlp_dim=48, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16),
    vocab_size=512,
    action_dim=32,
    horizon=6,
    prompt_capacity=64,
    num_views=2,
)

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
STATE_DIM, ROBOT_ACTION_DIM = 8, 7

PALIGEMMA = "paligemma_with_expert.paligemma."
VISION = PALIGEMMA + "model.vision_tower.vision_model."
LANGUAGE = PALIGEMMA + "model.language_model."
EXPERT = "paligemma_with_expert.gemma_expert.model."
EMBEDDING = PALIGEMMA + "lm_head.weight"


def tensor_shapes(dims: Pi05Dims) -> dict[str, tuple[int, ...]]:
    """Every tensor of an openpi Pi0.5 safetensors file with its shape, `[out, in]` (reference: key table of openpi)."""
    v, p, e = dims.vision, dims.prefix, dims.expert
    out: dict[str, tuple[int, ...]] = {EMBEDDING: (dims.vocab_size, p.width)}

    def linear(name: str, n_out: int, n_in: int, bias: bool = True) -> None:
        out[f"{name}.weight"] = (n_out, n_in)
        if bias:
            out[f"{name}.bias"] = (n_out,)

    def layer_norm(name: str, width: int) -> None:
        out[f"{name}.weight"] = out[f"{name}.bias"] = (width,)

    out[VISION + "embeddings.patch_embedding.weight"] = (v.width, 3, v.patch_size, v.patch_size)
    out[VISION + "embeddings.patch_embedding.bias"] = (v.width,)
    out[VISION + "embeddings.position_embedding.weight"] = (v.tokens, v.width)
    for i in range(v.num_layers):
        at = f"{VISION}encoder.layers.{i}."
        layer_norm(at + "layer_norm1", v.width)
        layer_norm(at + "layer_norm2", v.width)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{at}self_attn.{part}", v.width, v.width)
        linear(at + "mlp.fc1", v.mlp_dim, v.width)
        linear(at + "mlp.fc2", v.width, v.mlp_dim)
    layer_norm(VISION + "post_layernorm", v.width)
    linear(PALIGEMMA + "model.multi_modal_projector.linear", p.width, v.width)
    for root, g in ((LANGUAGE, p), (EXPERT, e)):
        for i in range(g.num_layers):
            at = f"{root}layers.{i}."
            linear(at + "self_attn.q_proj", g.q_dim, g.width, bias=False)
            linear(at + "self_attn.k_proj", g.kv_dim, g.width, bias=False)
            linear(at + "self_attn.v_proj", g.kv_dim, g.width, bias=False)
            linear(at + "self_attn.o_proj", g.width, g.q_dim, bias=False)
            linear(at + "mlp.gate_proj", g.mlp_dim, g.width, bias=False)
            linear(at + "mlp.up_proj", g.mlp_dim, g.width, bias=False)
            linear(at + "mlp.down_proj", g.width, g.mlp_dim, bias=False)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                if root is LANGUAGE:
                    out[f"{at}{norm}.weight"] = (g.width,)
                else:
                    linear(f"{at}{norm}.dense", 3 * g.width, g.width)
    out[LANGUAGE + "norm.weight"] = (p.width,)
    linear(EXPERT + "norm.dense", 3 * e.width, e.width)
    out["paligemma_with_expert.gemma_expert.lm_head.weight"] = (dims.vocab_size, e.width)
    linear("action_in_proj", e.width, dims.action_dim)
    linear("action_out_proj", dims.action_dim, e.width)
    linear("time_mlp_in", e.width, e.width)
    linear("time_mlp_out", e.width, e.width)
    return out


def random_tensors(dims: Pi05Dims, seed: int, dtype: str = "f32") -> dict[str, torch.Tensor]:
    """Random weights whose scales keep activations of order one; norms, biases and adaRMS gates are all non-trivial."""
    gen = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in tensor_shapes(dims).items():
        noise = torch.randn(shape, generator=gen)
        if name.endswith(".dense.bias"):
            width = shape[0] // 3  # scale | shift | gate: an open gate, so that every branch reaches the output
            value = 0.1 * noise
            value[2 * width :] += 0.4
        elif name.endswith(".bias"):
            value = 0.1 * noise
        elif "layer_norm" in name or "post_layernorm" in name:
            value = 1.0 + 0.1 * noise  # LayerNorm multiplies by w
        elif len(shape) == 1:
            value = 0.1 * noise  # Gemma RMSNorm multiplies by 1 + w
        elif "position_embedding" in name:
            value = 0.3 * noise
        else:
            value = noise / float(np.sqrt(np.prod(shape[1:])))  # the embedding too: the model scales it by sqrt(width)
        tensors[name] = value.to(DTYPES[dtype]).contiguous()
    return tensors


def profile_dict(dims: Pi05Dims, /, **overrides: object) -> dict:
    """The content of `flashrt_profile.json` for these dims; `overrides` replace top-level keys, None removes one."""
    fields = {
        "vision": ("image_size", "patch_size", "width", "mlp_dim", "num_layers", "num_heads"),
        "prefix": ("width", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim"),
        "expert": ("width", "mlp_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim"),
    }
    sizes = {part: {n: getattr(getattr(dims, part), n) for n in names} for part, names in fields.items()}
    profile = {
        "model": "pi05",
        "name": "test",
        "layout": "openpi",
        "dims": {**sizes, "vocab_size": dims.vocab_size, "action_dim": dims.action_dim},
        "action_horizon": dims.horizon,
        "num_steps": dims.num_steps,
        "prompt_capacity": dims.prompt_capacity,
        "views": ["agentview", "wrist", "left_wrist"][: dims.num_views],
        "state_dim": STATE_DIM,
        "robot_action_dim": ROBOT_ACTION_DIM,
        "state_in_prompt": True,
        "state_norm": "quantile",
        "action_norm": "quantile",
        "delta_action_dims": [],
    }
    profile.update(overrides)
    return {k: v for k, v in profile.items() if v is not None}


def norm_stats_dict(seed: int, state_dim: int = STATE_DIM, action_dim: int = ROBOT_ACTION_DIM) -> dict:
    """openpi `norm_stats.json` content with distinct, sane numbers for each dimension."""
    rng = np.random.default_rng(seed)

    def block(n: int) -> dict[str, list[float]]:
        mean, std = rng.normal(0, 0.5, n), rng.uniform(0.2, 1.5, n)
        low, high = mean - std * rng.uniform(1.5, 2.5, n), mean + std * rng.uniform(1.5, 2.5, n)
        return {"mean": mean.tolist(), "std": std.tolist(), "q01": low.tolist(), "q99": high.tolist()}

    return {"norm_stats": {"state": block(state_dim), "actions": block(action_dim)}}


@functools.cache
def tokenizer_bytes(vocab_size: int = 400) -> bytes:
    """A real SentencePiece model laid out like PaliGemma's: pad 0, eos 1, bos 2, unk 3, a newline piece, no prefix."""
    import sentencepiece

    colours, things = ("red", "green", "blue", "yellow"), ("block", "cube", "bowl", "drawer")
    lines = [f"Task: move the {c} {t} to the {d} zone, State: {n} {255 - n} {n * 7 % 256};\nAction: "
             for n, (c, t, d) in enumerate((c, t, d) for c in colours for t in things for d in colours)]
    lines += [f"pick up the {c} {t} and place it on the {u}" for c in colours for t in things for u in things]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=vocab_size, hard_vocab_limit=False,
        model_type="bpe" if vocab_size >= 300 else "char", byte_fallback=vocab_size >= 300,
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, user_defined_symbols=["\n"], normalization_rule_name="identity",
        add_dummy_prefix=False, remove_extra_whitespaces=False, split_digits=True, character_coverage=1.0,
        num_threads=1, minloglevel=2,
    )
    return out.getvalue()


def lerobot_config(dims: Pi05Dims, /, **overrides: object) -> dict:
    """A LeRobot `config.json` (type pi05). Its variants are names, so it can describe published sizes only."""
    side = dims.vision.image_size
    cameras = ("observation.images.image", "observation.images.image2", "observation.images.image3")[: dims.num_views]
    config = {
        "type": "pi05",
        "n_obs_steps": 1,
        "input_features": {
            **{name: {"type": "VISUAL", "shape": [3, 256, 256]} for name in cameras},
            "observation.state": {"type": "STATE", "shape": [STATE_DIM]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [ROBOT_ACTION_DIM]}},
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILES"},
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "dtype": "float32",
        "chunk_size": dims.horizon,
        "n_action_steps": dims.horizon,
        "max_state_dim": 32,
        "max_action_dim": dims.action_dim,
        "num_inference_steps": dims.num_steps,
        "min_period": 0.004,
        "max_period": 4.0,
        "image_resolution": [side, side],
        "empty_cameras": 0,
        "tokenizer_max_length": dims.prompt_capacity,
    }
    config.update(overrides)
    return {k: v for k, v in config.items() if v is not None}


def lerobot_stats_tensors(stats: dict) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The two processor state dicts of LeRobot for an openpi statistics dict: (preprocessor, postprocessor)."""
    block = stats.get("norm_stats", stats)
    state = {f"observation.state.{k}": torch.tensor(v, dtype=torch.float32) for k, v in block["state"].items()}
    action = {f"action.{k}": torch.tensor(v, dtype=torch.float32) for k, v in block["actions"].items()}
    return {**state, **action}, dict(action)


def write_checkpoint(
    directory: str | Path,
    dims: Pi05Dims = TINY,
    seed: int = 0,
    *,
    layout: str = "openpi",
    dtype: str = "f32",
    sharded: bool | int = False,
    tensors: dict[str, torch.Tensor | None] | None = None,
    profile: dict | None = None,
    norm_stats: dict | bool = True,
    asset: str = "test",
    tokenizer: bool = True,
    manifest: bool = False,
    config: dict | None = None,
) -> Path:
    """Writes a checkpoint folder and returns its path.

    layout: "openpi" (bare names, `assets/<asset>/norm_stats.json`, `flashrt_profile.json`) or "lerobot" (`model.` on
    every name, processor safetensors; a `flashrt_profile.json` with layout "lerobot" still gives the small sizes;
    pass profile={} for none, and `config=lerobot_config(dims)` for LeRobot's own).
    sharded: True for two shards with an index, or their number. tensors: replacements by openpi name; None drops one.
    profile: keys that replace those of `profile_dict`; {} writes no profile file. norm_stats: False writes none.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    weights = random_tensors(dims, seed, dtype)
    for name, value in (tensors or {}).items():
        if value is None:
            del weights[name]
        else:
            weights[name] = value.contiguous()
    if layout == "lerobot":
        weights = {f"model.{k}": v for k, v in weights.items()}
    elif layout != "openpi":
        raise ValueError(f"layout {layout!r}")
    _write_weights(directory, weights, int(sharded) + 1 if isinstance(sharded, bool) else sharded)
    if profile is None or profile:
        content = profile_dict(dims, layout=layout, **(profile or {}))
        (directory / "flashrt_profile.json").write_text(json.dumps(content, indent=1))
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config, indent=1))
    if norm_stats is not False:
        stats = norm_stats_dict(seed) if norm_stats is True else norm_stats
        if layout == "openpi":
            (directory / "assets" / asset).mkdir(parents=True, exist_ok=True)
            (directory / "assets" / asset / "norm_stats.json").write_text(json.dumps(stats))
        else:
            before, after = lerobot_stats_tensors(stats)
            save_file(before, directory / "policy_preprocessor_step_2_normalizer_processor.safetensors")
            save_file(after, directory / "policy_postprocessor_step_0_unnormalizer_processor.safetensors")
    if tokenizer:
        (directory / "paligemma_tokenizer.model").write_bytes(tokenizer_bytes(min(400, dims.vocab_size)))
    if manifest:
        write_manifest(directory)
    return directory


def write_manifest(directory: Path) -> None:
    """Writes `manifest.json` over every file of the folder."""
    files = {
        str(p.relative_to(directory)): {"sha256": hashlib.sha256(p.read_bytes()).hexdigest(), "bytes": p.stat().st_size}
        for p in sorted(directory.rglob("*"))
        if p.is_file() and p.name != "manifest.json"
    }
    (directory / "manifest.json").write_text(json.dumps({"files": files}, indent=1))


def replace_dims(dims: Pi05Dims, /, **changes: object) -> Pi05Dims:
    """`dataclasses.replace` for tests that read better without importing dataclasses."""
    return dataclasses.replace(dims, **changes)


def _write_weights(directory: Path, weights: dict[str, torch.Tensor], shards: int) -> None:
    if shards <= 1:
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    weight_map = {}
    for k in range(shards):
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        part = names[k * len(names) // shards : (k + 1) * len(names) // shards]
        save_file({n: weights[n] for n in part}, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    total = sum(w.numel() * w.element_size() for w in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
