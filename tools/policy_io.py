"""A trained policy as a checkpoint folder in openpi's layout: written, read back, and run in plain PyTorch."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from pi05_model import ModelSize, Pi05
from prompt_tokens import PromptTable, state_bins
from safetensors import safe_open
from safetensors.torch import save_file

ASSET = "tabletop"
VIEWS = ("agentview", "wrist")


@dataclass(frozen=True)
class Stats:
    """Mean, spread and quantiles of one vector, float32 [D] each."""

    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q99: np.ndarray

    @staticmethod
    def of(rows: np.ndarray) -> Stats:
        """Statistics of rows [N, D]. A constant dim gets q01 = c - 1 and q99 = c + 0.992: finite, and in mid-bin."""
        rows = rows.astype(np.float64)
        q01, q99 = np.quantile(rows, 0.01, axis=0), np.quantile(rows, 0.99, axis=0)
        mean, std = rows.mean(0), rows.std(0)
        flat = q99 - q01 < 1e-4
        q01[flat], q99[flat] = mean[flat] - 1.0, mean[flat] + 255 / 257  # -> 1/256 after scaling: the middle of bin 128
        std[flat] = 1.0
        return Stats(*(a.astype(np.float32) for a in (mean, std, q01, q99)))

    @staticmethod
    def from_json(entry: dict[str, list[float]]) -> Stats:
        return Stats(*(np.asarray(entry[f.name], np.float32) for f in fields(Stats)))

    def to_json(self) -> dict[str, list[float]]:
        return {f.name: [float(v) for v in getattr(self, f.name)] for f in fields(self)}

    def scale(self, x: np.ndarray) -> np.ndarray:
        """openpi transforms.py Normalize, quantile form."""
        return (x - self.q01) / (self.q99 - self.q01 + 1e-6) * 2 - 1

    def unscale(self, x: np.ndarray) -> np.ndarray:
        return (x + 1) / 2 * (self.q99 - self.q01 + 1e-6) + self.q01


@dataclass
class Policy:
    """A model with what it needs to meet raw observations; callable as (observation, prompt, seed) -> [H, 7]."""

    model: Pi05
    state: Stats
    actions: Stats
    tokenizer: bytes
    steps: int = 10

    def __post_init__(self):
        self.table = PromptTable(self.tokenizer, self.model.size.prompt_capacity)

    def __call__(self, observation: dict, prompt: str, seed: int) -> np.ndarray:
        size = self.model.size
        bins = state_bins(observation["state"], self.state.q01, self.state.q99)
        ids = self.table.encode(prompt, bins)
        tokens = torch.zeros(1, size.prompt_capacity, dtype=torch.long)
        tokens[0, : len(ids)] = torch.tensor(ids)
        images = torch.from_numpy(np.stack(observation["images"]))[None]
        noise = torch.randn(1, size.horizon, size.action_dim, generator=torch.Generator().manual_seed(seed))
        out = self.model.sample(images, tokens, torch.tensor([len(ids)]), noise, self.steps)[0, :, : size.robot_dim]
        return self.actions.unscale(out.numpy()).astype(np.float32)


def profile(size: ModelSize) -> dict[str, object]:
    """flashrt_profile.json."""
    return {
        "model": "pi05",
        "name": ASSET,
        "layout": "openpi",
        "dims": size.profile_dims(),
        "action_horizon": size.horizon,
        "num_steps": 10,
        "prompt_capacity": size.prompt_capacity,
        "views": list(VIEWS),
        "state_dim": 8,
        "robot_action_dim": size.robot_dim,
        "state_in_prompt": True,
        "state_norm": "quantile",
        "action_norm": "quantile",
        "delta_action_dims": [],
    }


def size_from_profile(p: dict) -> ModelSize:
    """The model's sizes back from a profile."""
    d = p["dims"]
    v, g, e = d["vision"], d["prefix"], d["expert"]
    return ModelSize(
        vocab_size=d["vocab_size"], prompt_capacity=p["prompt_capacity"], image_size=v["image_size"],
        patch_size=v["patch_size"], num_views=len(p["views"]), vision_width=v["width"], vision_mlp=v["mlp_dim"],
        vision_layers=v["num_layers"], vision_heads=v["num_heads"], prefix_width=g["width"], prefix_mlp=g["mlp_dim"],
        expert_width=e["width"], expert_mlp=e["mlp_dim"], layers=g["num_layers"], heads=g["num_heads"],
        head_dim=g["head_dim"], action_dim=d["action_dim"], robot_dim=p["robot_action_dim"], horizon=p["action_horizon"],
    )  # fmt: skip


def save_policy(folder: Path, weights: dict[str, torch.Tensor], size: ModelSize, state: Stats, actions: Stats,
                tokenizer: bytes, dtype: torch.dtype = torch.bfloat16) -> None:  # fmt: skip
    """Writes the whole folder (without the card and the manifest)."""
    (folder / "assets" / ASSET).mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", dtype).contiguous().clone() for k, v in weights.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    stats = {"norm_stats": {"state": state.to_json(), "actions": actions.to_json()}}
    (folder / "assets" / ASSET / "norm_stats.json").write_text(json.dumps(stats, indent=2) + "\n")
    (folder / "paligemma_tokenizer.model").write_bytes(tokenizer)
    (folder / "flashrt_profile.json").write_text(json.dumps(profile(size), indent=2) + "\n")


def load_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a folder as float32."""
    with safe_open(str(folder / "model.safetensors"), framework="pt") as f:
        return {k: f.get_tensor(k).float() for k in f.keys()}


def load_policy(folder: Path, steps: int = 10) -> Policy:
    """A folder written by `save_policy`, weights in float32 on the CPU."""
    folder = Path(folder)
    p = json.loads((folder / "flashrt_profile.json").read_text())
    stats = json.loads((folder / "assets" / ASSET / "norm_stats.json").read_text())["norm_stats"]
    model = Pi05(size_from_profile(p)).eval()
    model.load_state_dict(load_weights(folder))
    tokenizer = (folder / "paligemma_tokenizer.model").read_bytes()
    return Policy(model, Stats.from_json(stats["state"]), Stats.from_json(stats["actions"]), tokenizer, steps)
