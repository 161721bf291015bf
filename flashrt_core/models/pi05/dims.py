"""Sizes of a Pi0.5 model: one frozen object that every buffer, weight and loop takes its numbers from.

The full model and the bundled demo model differ here and nowhere else. Sources of the published sizes:
openpi `models/gemma.py` (gemma_2b, gemma_300m), `models/siglip.py` (So400m/14), `models/pi0_config.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ConfigError


def _positive(owner: str, dims: object) -> None:
    for name, value in vars(dims).items():
        if value <= 0:
            raise ConfigError(f"{owner}.{name}", expected="a number > 0", found=value)


def _divides(name: str, value: int, by_name: str, by: int) -> None:
    if value % by:
        raise ConfigError(name, expected=f"a multiple of {by_name}={by}", found=value)


@dataclass(frozen=True)
class VisionDims:
    """SigLIP tower. `mlp_dim` is the hidden width of fc1/fc2."""

    image_size: int = 224
    patch_size: int = 14
    width: int = 1152
    mlp_dim: int = 4304
    num_layers: int = 27
    num_heads: int = 16
    ln_eps: float = 1e-6  # HF SiglipVisionConfig.layer_norm_eps

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Patches of one view."""
        return self.grid**2

    @property
    def patch_dim(self) -> int:
        return 3 * self.patch_size**2

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    def __post_init__(self):
        _positive("vision", self)
        _divides("vision.image_size", self.image_size, "vision.patch_size", self.patch_size)
        _divides("vision.width", self.width, "vision.num_heads", self.num_heads)


@dataclass(frozen=True)
class GemmaDims:
    """One Gemma stack (the prefix language model or the action expert)."""

    width: int = 2048
    mlp_dim: int = 16384
    num_layers: int = 18
    num_heads: int = 8
    num_kv_heads: int = 1
    head_dim: int = 256
    rms_eps: float = 1e-6
    rope_theta: float = 10000.0

    @property
    def q_dim(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def qkv_dim(self) -> int:
        return self.q_dim + 2 * self.kv_dim

    def __post_init__(self):
        _positive("gemma", self)
        _divides("gemma.num_heads", self.num_heads, "gemma.num_kv_heads", self.num_kv_heads)
        _divides("gemma.head_dim", self.head_dim, "2 (RoPE rotates pairs)", 2)


VARIANTS = {
    "gemma_2b": GemmaDims(),
    "gemma_300m": GemmaDims(width=1024, mlp_dim=4096),
    "so400m": VisionDims(),
}


@dataclass(frozen=True)
class Pi05Dims:
    """All sizes of one loaded Pi0.5.

    `prompt_capacity` is the fixed number of language rows; the valid length is data. `action_dim` is the model's
    (32 in the published ones), not the robot's. `vision_layers_used`, `pool` and `num_steps` are load-time options.
    """

    vision: VisionDims = field(default_factory=VisionDims)
    prefix: GemmaDims = field(default_factory=GemmaDims)
    expert: GemmaDims = field(default_factory=lambda: VARIANTS["gemma_300m"])
    vocab_size: int = 257152
    action_dim: int = 32
    horizon: int = 10
    prompt_capacity: int = 200
    num_views: int = 2
    num_steps: int = 10
    pool: int = 1
    vision_layers_used: int = 0  # 0: all of them
    time_min_period: float = 4e-3
    time_max_period: float = 4.0

    def __post_init__(self):
        for name in ("vocab_size", "action_dim", "horizon", "prompt_capacity", "num_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(name, expected="an integer >= 1", found=getattr(self, name))
        if self.num_views not in (1, 2, 3):
            raise ConfigError("num_views", expected="1, 2 or 3", found=self.num_views)
        if self.pool not in (1, 2, 4) or self.vision.grid % self.pool:
            raise ConfigError(
                "vision_pool_factor",
                expected=f"1, 2 or 4 and a divisor of the patch grid ({self.vision.grid})",
                found=self.pool,
            )
        if not 0 <= self.vision_layers_used <= self.vision.num_layers:
            raise ConfigError("vision_num_layers", expected=f"1..{self.vision.num_layers}", found=self.vision_layers_used)
        for name in ("num_layers", "head_dim", "num_kv_heads", "num_heads"):
            if getattr(self.prefix, name) != getattr(self.expert, name):
                raise ConfigError(
                    f"expert.{name}",
                    expected=f"{getattr(self.prefix, name)}, as the prefix (they attend to one K/V cache)",
                    found=getattr(self.expert, name),
                )

    @property
    def vision_layers(self) -> int:
        return self.vision_layers_used or self.vision.num_layers

    @property
    def image_tokens(self) -> int:
        """Prefix rows that come from images, all views."""
        return self.num_views * self.vision.tokens // self.pool**2

    @property
    def prefix_rows(self) -> int:
        """Fixed number of prefix rows: image tokens, then `prompt_capacity` language rows."""
        return self.image_tokens + self.prompt_capacity

    @property
    def cache_rows(self) -> int:
        """Rows of the K/V cache of one layer."""
        return self.prefix_rows + self.horizon
