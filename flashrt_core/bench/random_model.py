"""A Pi0.5 checkpoint of random weights that no file holds: profile, statistics and tokenizer in a folder, tensors on demand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..core.checkpoint import Checkpoint
from ..errors import ConfigError, nearest
from ..models.pi05.dims import GemmaDims, Pi05Dims, VisionDims
from ..models.pi05.tensors import expected_tensors
from .random_weights import RandomSource
from .tokenizer_file import character_tokenizer

_BLOCK = 1_048_583  # values that a written checkpoint repeats; a prime, so that no two rows of a matrix are equal
STATE_DIM, ROBOT_ACTION_DIM = 8, 7  # as pi05_libero
SIZES = {
    "full": Pi05Dims(prompt_capacity=48),  # the published sizes, capacity of pi05_libero
    "demo": Pi05Dims(  # those of the bundled tabletop policy
        vision=VisionDims(image_size=112, width=128, mlp_dim=512, num_layers=4, num_heads=2),
        prefix=GemmaDims(width=192, mlp_dim=768, num_layers=4, num_heads=4, head_dim=64),
        expert=GemmaDims(width=128, mlp_dim=512, num_layers=4, num_heads=4, head_dim=64),
        vocab_size=768, prompt_capacity=48,
    ),
    "tiny": Pi05Dims(  # to try the command out
        vision=VisionDims(image_size=28, width=32, mlp_dim=48, num_layers=2, num_heads=2),
        prefix=GemmaDims(width=48, mlp_dim=64, num_layers=2, num_heads=2, head_dim=16),
        expert=GemmaDims(width=32, mlp_dim=48, num_layers=2, num_heads=2, head_dim=16),
        vocab_size=512, horizon=6, prompt_capacity=48,
    ),
}  # fmt: skip


class RandomCheckpoint(Checkpoint):
    """Looks like an opened checkpoint folder. Its weights depend on their names and the seed only."""

    def __init__(self, folder: Path, dims: Pi05Dims, seed: int = 0):
        """folder: where the small files are written (an empty, private one)."""
        write_small_files(folder, dims, seed)
        super().__init__(folder, {})
        self.dims, self.seed = dims, seed

    def source(self, strip_prefix: str | None = None, *, device: str = "cpu") -> RandomSource:
        return RandomSource(self.dims, self.seed, device)

    def check_finite(self) -> None:
        """They are by construction."""

    def digest(self, progress: Callable[[int, int], None] | None = None) -> str:
        return hashlib.sha256(f"random {self.dims} {self.seed}".encode()).hexdigest()


def size_named(name: str) -> Pi05Dims:
    """The sizes of that name; ConfigError with the nearest for an unknown one."""
    if name not in SIZES:
        raise ConfigError("random", expected=f"one of {', '.join(SIZES)}", found=repr(name), hint=nearest(name, SIZES))
    return SIZES[name]


def write_small_files(folder: Path, dims: Pi05Dims, seed: int) -> None:
    """Profile, norm statistics and tokenizer: everything of a checkpoint folder but the weights."""
    profile = {
        "model": "pi05", "name": "random", "layout": "openpi",
        "dims": {
            **{part: dataclasses.asdict(getattr(dims, part)) for part in ("vision", "prefix", "expert")},
            "vocab_size": dims.vocab_size, "action_dim": dims.action_dim,
        },
        "action_horizon": dims.horizon, "num_steps": dims.num_steps, "prompt_capacity": dims.prompt_capacity,
        "views": ["agentview", "wrist", "left_wrist"][: dims.num_views], "state_dim": STATE_DIM,
        "robot_action_dim": ROBOT_ACTION_DIM, "state_in_prompt": False, "state_norm": "quantile",
        "action_norm": "quantile", "delta_action_dims": [],
    }  # fmt: skip
    (folder / "flashrt_profile.json").write_text(json.dumps(profile))
    rng = np.random.default_rng(seed)

    def block(n: int) -> dict[str, list[float]]:
        low, width = rng.uniform(-1.5, -0.5, n), rng.uniform(1.0, 3.0, n)
        values = {"mean": low + width / 2, "std": width / 4, "q01": low, "q99": low + width}
        return {name: value.tolist() for name, value in values.items()}

    stats = {"norm_stats": {"state": block(STATE_DIM), "actions": block(ROBOT_ACTION_DIM)}}
    (folder / "norm_stats.json").write_text(json.dumps(stats))
    (folder / "tokenizer.model").write_bytes(character_tokenizer(dims.vocab_size))


def write_random(folder: Path, dims: Pi05Dims, seed: int = 0) -> int:
    """A whole checkpoint folder of random BF16 weights, for measuring a start from disk; returns the file's bytes.

    Values repeat one block, shifted and scaled by tensor: gigabytes in seconds, and of the sizes that real weights have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_small_files(folder, dims, seed)
    shapes = {name: shape for name, shape in expected_tensors(dims).items() if "embed_tokens" not in name}
    header, at = {}, 0
    for name, shape in shapes.items():
        count = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = np.random.default_rng(seed).standard_normal(_BLOCK, dtype=np.float32)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for i, (name, shape) in enumerate(shapes.items()):
            norm = "layer_norm" in name or "post_layernorm" in name
            values = (1.0 + 0.1 * block) if norm else block * (0.1 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:])))
            bits = np.roll((values.view(np.uint32) >> 16).astype(np.uint16), 7919 * i)
            left = math.prod(shape)
            while left:
                part = bits[: min(left, _BLOCK)]
                file.write(part.data)
                left -= part.size
    return 8 + len(text) + at


def prompt_of(tokens: int) -> str:
    """Text that the character tokenizer turns into that many ids: begin, characters, newline."""
    return "".join("abcdefghijklmnopqrst"[i % 20] for i in range(tokens - 2))
