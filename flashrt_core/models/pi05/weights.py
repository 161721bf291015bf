"""Pi0.5 weights as the pointers that the blocks take, from tensors loaded under the names of the weight spec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...blocks.adarms import ExpertLayer
from ...blocks.denoise import DenoiseWeights, StepStyles
from ...blocks.gemma import GemmaLayer
from ...blocks.linear import Linear
from ...blocks.plan import Plan
from ...blocks.siglip import SiglipLayer, SiglipWeights
from ...types import DType
from .buffers import hidden_cols, patch_cols
from .dims import Pi05Dims
from .styles import precompute_styles


@dataclass(frozen=True)
class Pi05Weights:
    vis: SiglipWeights
    embedding: int
    embedding_dtype: DType
    enc: Sequence[GemmaLayer]
    dec: DenoiseWeights
    styles: Sequence[StepStyles]
    shifts: int  # the next two: what the denoise loop adds, see frontends/torch/shift_products.py
    step_out_b: int


def weights_at(t: Any, dims: Pi05Dims, plan: Plan, ptr: Callable[[Any], int], styles: int) -> Pi05Weights:
    """t: the loader's target (attributes of `frontends/torch/_pi05_spec.py`). ptr: tensor -> int. styles: see `style_array`.

    The tensors must outlive the result.
    """
    v, p, e = dims.vision, dims.prefix, dims.expert

    def lin(name: str, i: int | None, n: int, k: int, dtype: DType, bias: bool = False) -> Linear:
        def pick(attr: str) -> int:
            value = getattr(t, attr)
            return ptr(value if i is None else value[i])

        quantised = dtype == DType.E4M3
        scale = pick(f"{name}_scale") if quantised else 0
        return Linear(pick(f"{name}_w"), n, k, dtype, pick(f"{name}_b") if bias else 0, scale)

    va, ea, da = plan.vision.act, plan.encoder.act, plan.decoder.act
    vis = SiglipWeights(
        patch=lin("patch", None, v.width, patch_cols(dims), plan.vision.wide, bias=True),
        positions=ptr(t.positions),
        layers=[
            SiglipLayer(
                ln1_w=ptr(t.vis_ln1_w[i]), ln1_b=ptr(t.vis_ln1_b[i]),
                qkv=lin("vis_qkv", i, 3 * v.width, v.width, va, bias=True),
                o=lin("vis_o", i, v.width, v.width, plan.vision.heads, bias=True),
                ln2_w=ptr(t.vis_ln2_w[i]), ln2_b=ptr(t.vis_ln2_b[i]),
                fc1=lin("vis_fc1", i, hidden_cols(dims), v.width, va, bias=True),
                fc2=lin("vis_fc2", i, v.width, hidden_cols(dims), va, bias=True),
            )
            for i in range(dims.vision_layers)
        ],
        post_w=ptr(t.post_w), post_b=ptr(t.post_b),
        proj=lin("proj", None, p.width, v.width, va, bias=True),
    )  # fmt: skip
    last = p.num_layers - 1
    enc = [
        GemmaLayer(
            qkv=lin("enc_qkv", i, p.qkv_dim, p.width, ea),
            o=lin("enc_o", i, p.width, p.q_dim, ea),
            gate_up=lin("enc_gate_up", i, p.mlp_dim, p.width, ea),
            down=lin("enc_down", i, p.width, p.mlp_dim, ea),
        )
        for i in range(last)
    ]
    enc.append(GemmaLayer(qkv=lin("enc_last_kv", None, 2 * p.kv_dim, p.width, ea)))
    dec = DenoiseWeights(
        action_in=lin("action_in", None, e.width, dims.action_dim, DType.F32, bias=True),
        layers=[
            ExpertLayer(
                qkv=lin("dec_qkv", i, e.qkv_dim, e.width, da),
                o=lin("dec_o", i, e.width, e.q_dim, da),
                gate_up=lin("dec_gate_up", i, e.mlp_dim, e.width, da),
                down=lin("dec_down", i, e.width, e.mlp_dim, da),
            )
            for i in range(e.num_layers)
        ],
        action_out=lin("action_out", None, dims.action_dim, e.width, DType.F32, bias=True),
    )
    return Pi05Weights(
        vis, ptr(t.embedding), plan.encoder.wide, enc, dec, styles_at(dims, styles), ptr(t.shifts), ptr(t.step_out_b)
    )  # fmt: skip


def style_array(t: Any, dims: Pi05Dims, numpy: Callable[[Any], np.ndarray]) -> np.ndarray:
    """float32 [num_steps, 2 * layers + 1, 3, D]; see models/pi05/styles.py. numpy: tensor -> fp32 array."""
    time_mlp = tuple(numpy(x) for x in (t.time_in_w, t.time_in_b, t.time_out_w, t.time_out_b))
    dense: list[tuple[np.ndarray, np.ndarray]] = []
    for i in range(dims.expert.num_layers):
        dense.append((numpy(t.ada_attn_w[i]), numpy(t.ada_attn_b[i])))
        dense.append((numpy(t.ada_mlp_w[i]), numpy(t.ada_mlp_b[i])))
    dense.append((numpy(t.ada_final_w), numpy(t.ada_final_b)))
    return precompute_styles(dims, time_mlp, dense)


def styles_at(dims: Pi05Dims, base: int) -> list[StepStyles]:
    """Pointers into the array of `style_array` that starts at `base`."""
    layers, row = dims.expert.num_layers, 3 * dims.expert.width * 4
    out = []
    for step in range(dims.num_steps):
        first = base + step * (2 * layers + 1) * row
        pairs = [(first + 2 * i * row, first + (2 * i + 1) * row) for i in range(layers)]
        out.append(StepStyles(pairs, first + 2 * layers * row))
    return out
