"""Weight spec of Pi0.5 for PyTorch frontends: which stored tensors become which attribute of the loader's target.

Key names: openpi's PyTorch layout (LeRobot's is the same behind `model.`). The target's attribute names are those that
`models/pi05/weights.py` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...blocks.plan import Plan
from ...executors.torch_weights import Attr, Cat, FusedGateUp, FusedQKV, Mul, Quant, TensorList, interleave_qk
from ...executors.weight_loader import Item, LayerBlock, LoaderContext, ModelWeightSpec
from ...models.pi05.buffers import hidden_cols, patch_cols
from ...models.pi05.dims import Pi05Dims
from ...models.pi05.tensors import EXPERT, LANGUAGE, PROJECTOR, VISION
from ...types import BF16, E4M3, F16, F32, DType

_TORCH = {F32: torch.float32, BF16: torch.bfloat16, F16: torch.float16}


class To:
    """Cast, contiguous."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x.to(self.dtype).contiguous()


class PatchRows:
    """Conv weight [D, 3, P, P] -> [D, cols], zero columns at the end."""

    def __init__(self, cols: int):
        self.cols = cols

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        flat = x.reshape(x.shape[0], -1)
        return F.pad(flat, (0, self.cols - flat.shape[1]))


class Pad:
    """Zeros at the end of the first and of the last dimension, to these sizes (None: as it is)."""

    def __init__(self, first: int | None, last: int | None):
        self.first, self.last = first, last

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        rows = 0 if self.first is None else self.first - x.shape[0]
        cols = 0 if self.last is None else self.last - x.shape[-1]
        return F.pad(x, (0, rows) if x.ndim == 1 else (0, cols, 0, rows))


class Tile:
    """Rows repeated once per view: [T, D] -> [views * T, D]."""

    def __init__(self, views: int):
        self.views = views

    def apply(self, x: torch.Tensor, ctx: LoaderContext) -> torch.Tensor:
        return x.repeat(self.views, 1)


class FusedKV:
    """Rows [K; V] with the norm weight folded in, K interleaved: the last prefix layer, of which nothing else is used."""

    def __init__(self, *, k: str, v: str, norm_fuse: str, interleave_k_heads: int):
        self.k, self.v, self.norm_fuse, self.heads = k, v, norm_fuse, interleave_k_heads

    def source_keys(self) -> list[str]:
        return [self.k, self.v, self.norm_fuse]

    def resolve(self, ctx: LoaderContext) -> torch.Tensor:
        k, v, norm = (ctx.source.get(key).float() for key in self.source_keys())
        return torch.cat([interleave_qk(k, self.heads), v]) * (1.0 + norm)


_STAGES = {"vis": "vision", "enc": "encoder", "dec": "decoder"}


def build_spec(
    dims: Pi05Dims, plan: Plan, embedding_key: str, means: Mapping[str, np.ndarray] | None = None
) -> ModelWeightSpec:
    """Everything the model reads, in the dtypes of the plan. FP8 scales go into `<name>_scale`.

    means: fp32 [K] by weight (`sites.weight_site`), the mean input that a weight's rounding to FP8 keeps; None: nearest.
    """
    vis, enc, dec = plan.vision.act, plan.encoder.act, plan.decoder.act
    kv_heads, last = dims.prefix.num_kv_heads, dims.prefix.num_layers - 1
    fp32 = [To(torch.float32)]

    def mean_input(name: str, ctx: LoaderContext) -> torch.Tensor | None:
        stage, _, gemm = name.partition("_")
        site = {"proj": "vision.proj", "enc_last_kv": f"encoder.{last}.qkv"}.get(
            name, f"{_STAGES.get(stage)}.{ctx.layer_idx}.{gemm}"
        )
        return None if means is None else torch.from_numpy(means[site])

    def weight(name: str, key: Any, dtype: DType, before: tuple = (), one: bool = False) -> Item:
        """A GEMM weight in `dtype`; E4M3 is quantised from fp32."""
        sink = (Attr if one else TensorList)(f"{name}_w")
        if dtype == E4M3:
            return Item(name, key, [*fp32, *before, Quant(partial(mean_input, name))], sink, scale_into=f"{name}_scale")
        return Item(name, key, [*fp32, *before, To(_TORCH[dtype])], sink)

    def plain(name: str, key: Any, before: tuple = (), one: bool = False) -> Item:
        return Item(name, key, [*fp32, *before], (Attr if one else TensorList)(name))

    def cat(*keys: str) -> Cat:
        return Cat(keys, dtype=torch.float32)

    at, hidden = "{prefix}.", hidden_cols(dims)
    vision = LayerBlock(
        VISION + "encoder.layers.{i}",
        dims.vision_layers,
        [
            plain("vis_ln1_w", at + "layer_norm1.weight"),
            plain("vis_ln1_b", at + "layer_norm1.bias"),
            weight("vis_qkv", cat(*(f"{at}self_attn.{p}_proj.weight" for p in "qkv")), vis),
            plain("vis_qkv_b", cat(*(f"{at}self_attn.{p}_proj.bias" for p in "qkv"))),
            weight("vis_o", at + "self_attn.out_proj.weight", plan.vision.heads),
            plain("vis_o_b", at + "self_attn.out_proj.bias"),
            plain("vis_ln2_w", at + "layer_norm2.weight"),
            plain("vis_ln2_b", at + "layer_norm2.bias"),
            weight("vis_fc1", at + "mlp.fc1.weight", vis, (Pad(hidden, None),)),
            plain("vis_fc1_b", at + "mlp.fc1.bias", (Pad(hidden, None),)),
            weight("vis_fc2", at + "mlp.fc2.weight", vis, (Pad(None, hidden),)),
            plain("vis_fc2_b", at + "mlp.fc2.bias"),
        ],
        "vision",
    )

    def attention(norm: str | None, heads: int) -> FusedQKV:
        q, k, v = (f"{at}self_attn.{p}_proj.weight" for p in "qkv")
        return FusedQKV(
            q=q, k=k, v=v, norm_fuse=norm, interleave_q_heads=heads, interleave_k_heads=kv_heads, dtype=torch.float32
        )

    def gate_up(norm: str | None) -> FusedGateUp:
        gate, up = (f"{at}mlp.{p}_proj.weight" for p in ("gate", "up"))
        return FusedGateUp(gate=gate, up=up, norm_fuse=norm, dtype=torch.float32)

    encoder = LayerBlock(
        LANGUAGE + "layers.{i}",
        last,
        [
            weight("enc_qkv", attention(at + "input_layernorm.weight", dims.prefix.num_heads), enc),
            weight("enc_o", at + "self_attn.o_proj.weight", enc),
            weight("enc_gate_up", gate_up(at + "post_attention_layernorm.weight"), enc),
            weight("enc_down", at + "mlp.down_proj.weight", enc),
        ],
        "encoder",
    )
    expert = LayerBlock(
        EXPERT + "layers.{i}",
        dims.expert.num_layers,
        [
            weight("dec_qkv", attention(None, dims.expert.num_heads), dec),
            weight("dec_o", at + "self_attn.o_proj.weight", dec),
            weight("dec_gate_up", gate_up(None), dec),
            weight("dec_down", at + "mlp.down_proj.weight", dec),
            plain("ada_attn_w", at + "input_layernorm.dense.weight"),
            plain("ada_attn_b", at + "input_layernorm.dense.bias"),
            plain("ada_mlp_w", at + "post_attention_layernorm.dense.weight"),
            plain("ada_mlp_b", at + "post_attention_layernorm.dense.bias"),
        ],
        "expert",
    )
    final_kv = FusedKV(
        k=f"{LANGUAGE}layers.{last}.self_attn.k_proj.weight",
        v=f"{LANGUAGE}layers.{last}.self_attn.v_proj.weight",
        norm_fuse=f"{LANGUAGE}layers.{last}.input_layernorm.weight",
        interleave_k_heads=kv_heads,
    )
    step = (Mul(-1.0 / dims.num_steps),)  # dt of the Euler step, folded into the output projection
    one = dict(one=True)
    singletons = [
        weight(
            "patch",
            VISION + "embeddings.patch_embedding.weight",
            plan.vision.wide,
            (PatchRows(patch_cols(dims)),),
            **one,
        ),
        plain("patch_b", VISION + "embeddings.patch_embedding.bias", **one),
        Item(
            "positions",
            VISION + "embeddings.position_embedding.weight",
            [*fp32, Tile(dims.num_views), To(_TORCH[plan.vision.wide])],
            Attr("positions"),
        ),
        plain("post_w", VISION + "post_layernorm.weight", **one),
        plain("post_b", VISION + "post_layernorm.bias", **one),
        weight("proj", PROJECTOR + ".weight", vis, **one),
        plain("proj_b", PROJECTOR + ".bias", **one),
        Item("embedding", embedding_key, [To(_TORCH[plan.encoder.wide])], Attr("embedding")),
        weight("enc_last_kv", final_kv, enc, **one),
        plain("time_in_w", "time_mlp_in.weight", **one),
        plain("time_in_b", "time_mlp_in.bias", **one),
        plain("time_out_w", "time_mlp_out.weight", **one),
        plain("time_out_b", "time_mlp_out.bias", **one),
        plain("ada_final_w", EXPERT + "norm.dense.weight", **one),
        plain("ada_final_b", EXPERT + "norm.dense.bias", **one),
        weight("action_in", "action_in_proj.weight", F32, **one),
        plain("action_in_b", "action_in_proj.bias", **one),
        weight("action_out", "action_out_proj.weight", F32, step, **one),
        plain("action_out_b", "action_out_proj.bias", step, **one),
    ]
    return ModelWeightSpec("torch", [vision, encoder, expert], singletons)
