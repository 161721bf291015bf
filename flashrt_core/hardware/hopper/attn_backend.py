"""Attention on SM90."""

from __future__ import annotations

from ..slot_attention import SlotAttentionBackend


class HopperAttentionBackend(SlotAttentionBackend):
    """The `attention` op over the pipeline's slots: the op itself chooses the kernel and the split of the keys."""
