"""Sizes of Pi0.5 that the oracle tests run: tiny, the bundled demo's, and the published widths with two layers a stack."""

from __future__ import annotations

from flashrt_core.models.pi05.dims import GemmaDims, Pi05Dims, VisionDims
from support.checkpoints import TINY

DEMO = Pi05Dims(
    vision=VisionDims(image_size=112, patch_size=14, width=128, mlp_dim=512, num_layers=4, num_heads=2),
    prefix=GemmaDims(width=192, mlp_dim=768, num_layers=4, num_heads=4, num_kv_heads=1, head_dim=64),
    expert=GemmaDims(width=128, mlp_dim=512, num_layers=4, num_heads=4, num_kv_heads=1, head_dim=64),
    vocab_size=1024, horizon=10, prompt_capacity=48, num_views=2,
)  # fmt: skip
FULL_WIDTH = Pi05Dims(  # the published widths, two layers of each stack, a small vocabulary
    vision=VisionDims(num_layers=2),
    prefix=GemmaDims(num_layers=2),
    expert=GemmaDims(width=1024, mlp_dim=4096, num_layers=2),
    vocab_size=512, horizon=10, prompt_capacity=48, num_views=2, num_steps=3,
)  # fmt: skip
SIZES = {"tiny": TINY, "demo": DEMO, "full_width": FULL_WIDTH}
