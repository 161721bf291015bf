"""Attention as the `attention` op over slots that the pipeline owns: what every hardware with that op shares."""

from __future__ import annotations

from typing import Any

from .backend import AttentionBackendBase, AttentionSpec


class SlotAttentionBackend(AttentionBackendBase):
    """slots[site]: q, kv [(k, v) per layer], out, batch, q_stride, kv_stride, kv_len, kv_extra, precision (blocks/plan.py).

    Softmax scale is 1/sqrt(head_dim) at every site.
    """

    def __init__(self, spec: AttentionSpec, ops: Any, slots: dict[str, dict[str, Any]]):
        super().__init__(spec)
        self._ops, self.slots = ops, slots

    def get_slot_ptrs(self, site: str, layer_idx: int) -> dict[str, int]:
        self.spec.site(site)
        k, v = self.slots[site]["kv"][layer_idx]
        return {"Q": self.slots[site]["q"], "K": k, "V": v, "O": self.slots[site]["out"]}

    def run(
        self, site: str, layer_idx: int, q_seq: int, *, kv_seq: int | None = None, stream: int = 0, out_scale: int = 0
    ) -> int:
        """Attend; `kv_seq` is the fixed number of key rows, of which *kv_len + kv_extra are valid. Returns the output pointer.

        out_scale: pointer to the activation scale of the next GEMM's input (used when the output is E4M3).
        """
        spec, kv_seq = self.check_run(site, layer_idx, q_seq, kv_seq)
        s = self.slots[site]
        k, v = s["kv"][layer_idx]
        self._ops.attention(
            q=s["q"], k=k, v=v, kv_len=s["kv_len"], out=s["out"], out_scale=out_scale,
            B=s["batch"], M=q_seq, KV=kv_seq, kv_extra=s["kv_extra"],
            H=spec.num_q_heads, KVH=spec.num_kv_heads, HD=spec.head_dim,
            q_stride=s["q_stride"], kv_stride=s["kv_stride"], scale=spec.head_dim**-0.5,
            dtype=s["precision"].wide, out_dtype=s["precision"].heads, stream=stream,
        )  # fmt: skip
        return s["out"]
