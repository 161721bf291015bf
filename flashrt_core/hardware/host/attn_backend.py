"""Attention on the host."""

from __future__ import annotations

from ..slot_attention import SlotAttentionBackend


class HostAttentionBackend(SlotAttentionBackend):
    """The `attention` op of the host over the pipeline's slots."""
