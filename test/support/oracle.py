"""An independent fp32 Pi0.5: `transformers`' SigLIP and Gemma layers, a plain adaRMS expert, a plain Euler loop.

Shares no code with `flashrt_core`: it is built from a state dict with openpi's names and computes in the order of the
published implementation (openpi models_pytorch/pi0_pytorch.py), half-split RoPE and unfolded norms included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GemmaConfig, SiglipVisionConfig
from transformers.models.gemma.modeling_gemma import GemmaDecoderLayer
from transformers.models.siglip.modeling_siglip import SiglipVisionModel

PALIGEMMA = "paligemma_with_expert.paligemma."
EXPERT = "paligemma_with_expert.gemma_expert.model."
HIDDEN = -2.3819763e38  # openpi's mask value


@dataclass
class Trace:
    """Every stage of one forward."""

    vision: Tensor | None = None  # [V * T, width] projected tokens
    keys: list[Tensor] = field(default_factory=list)  # per prefix layer [valid, hd], half-split order
    values: list[Tensor] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)  # actions after each Euler step [H, 32]


class OraclePi05:
    """dims: the project's sizes object, read for numbers only."""

    def __init__(self, state: dict[str, Tensor], dims):
        self.d = dims
        self.w = {k: v.float() for k, v in state.items()}
        v, p = dims.vision, dims.prefix
        self.vision = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=v.width, intermediate_size=v.mlp_dim, num_hidden_layers=v.num_layers,
                num_attention_heads=v.num_heads, image_size=v.image_size, patch_size=v.patch_size,
                hidden_act="gelu_pytorch_tanh", layer_norm_eps=v.ln_eps, vision_use_head=False,
                attn_implementation="eager",
            )
        ).eval()  # fmt: skip
        self._fill(self.vision, PALIGEMMA + "model.vision_tower.vision_model.", drop="vision_model.")
        config = GemmaConfig(
            hidden_size=p.width, intermediate_size=p.mlp_dim, num_hidden_layers=p.num_layers,
            num_attention_heads=p.num_heads, num_key_value_heads=p.num_kv_heads, head_dim=p.head_dim,
            hidden_act="gelu_pytorch_tanh", hidden_activation="gelu_pytorch_tanh", rms_norm_eps=p.rms_eps,
            rope_theta=p.rope_theta, attn_implementation="eager", vocab_size=dims.vocab_size,
        )  # fmt: skip
        self.prefix = nn.ModuleList(GemmaDecoderLayer(config, i) for i in range(p.num_layers)).eval()
        self._fill(self.prefix, PALIGEMMA + "model.language_model.layers.")

    def _fill(self, module: nn.Module, prefix: str, drop: str = "") -> None:
        own = {name: self.w[prefix + name.removeprefix(drop)] for name, _ in module.named_parameters()}
        missing, unexpected = module.load_state_dict(own, strict=False)
        assert not unexpected and not [m for m in missing if "position_ids" not in m], (missing, unexpected)

    def lin(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.w[name + ".weight"], self.w.get(name + ".bias"))

    # ---- prefix

    def encode_images(self, images: Tensor) -> Tensor:
        """images float [V, S, S, 3] in [-1, 1] -> projected tokens [V, T / pool^2, width]."""
        x = self.vision(pixel_values=images.permute(0, 3, 1, 2)).last_hidden_state  # post_layernorm included
        x = self.lin(PALIGEMMA + "model.multi_modal_projector.linear", x)
        f, g = self.d.pool, self.d.vision.grid
        if f > 1:
            x = F.avg_pool2d(x.transpose(1, 2).unflatten(2, (g, g)), f).flatten(2).transpose(1, 2)
        return x

    def prefill(self, x: Tensor, trace: Trace) -> DynamicCache:
        n = x.shape[0]
        cache, h, position = DynamicCache(), x[None], torch.arange(n)[None]
        cos, sin = self.angles(torch.arange(n))
        rope = (cos.repeat(1, 2)[None], sin.repeat(1, 2)[None])  # half-split: both halves turn by the same angle
        mask = torch.zeros(1, 1, n, n)  # bidirectional
        for layer in self.prefix:
            out = layer(h, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True,
                        position_embeddings=rope)  # fmt: skip
            h = out[0] if isinstance(out, tuple) else out
        for layer in cache.layers:
            trace.keys.append(layer.keys[0].transpose(0, 1).flatten(1))
            trace.values.append(layer.values[0].transpose(0, 1).flatten(1))
        return cache

    # ---- suffix

    def time_condition(self, t: float) -> Tensor:
        half = self.d.expert.width // 2
        fraction = torch.linspace(0.0, 1.0, half, dtype=torch.float64)
        period = 4e-3 * (4.0 / 4e-3) ** fraction
        angle = t * 2 * math.pi / period
        emb = torch.cat([angle.sin(), angle.cos()]).float()
        return F.silu(self.lin("time_mlp_out", F.silu(self.lin("time_mlp_in", emb))))

    def ada_norm(self, x: Tensor, name: str, cond: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift, gate = self.lin(name + ".dense", cond).chunk(3)
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.d.expert.rms_eps)
        return normed * (1 + scale) + shift, gate

    def angles(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """cos, sin [rows, hd/2] in float64 and then rounded: in fp32 the angle itself is off by 3e-5 at position 500."""
        hd = self.d.expert.head_dim
        freq = 1.0 / self.d.expert.rope_theta ** (torch.arange(0, hd, 2, dtype=torch.float64) / hd)
        angle = position[:, None].double() * freq
        return angle.cos().float(), angle.sin().float()

    def rotate(self, x: Tensor, position: Tensor) -> Tensor:
        """x [H, heads, hd]: half-split rotation."""
        hd = x.shape[-1]
        cos, sin = (t[:, None] for t in self.angles(position))
        a, b = x[..., : hd // 2], x[..., hd // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def velocity(self, x: Tensor, t: float, cache: DynamicCache) -> Tensor:
        e, cond = self.d.expert, self.time_condition(t)
        h, rows = self.lin("action_in_proj", x), x.shape[0]
        n = cache.layers[0].keys.shape[2]
        position = torch.arange(n, n + rows)
        for i in range(e.num_layers):
            at = f"{EXPERT}layers.{i}."
            y, gate = self.ada_norm(h, at + "input_layernorm", cond)
            q, k, v = (self.lin(f"{at}self_attn.{p}_proj", y) for p in "qkv")
            q = self.rotate(q.view(rows, e.num_heads, e.head_dim), position).transpose(0, 1)
            k = self.rotate(k.view(rows, e.num_kv_heads, e.head_dim), position).transpose(0, 1)
            v = v.view(rows, e.num_kv_heads, e.head_dim).transpose(0, 1)
            keys = torch.cat([cache.layers[i].keys[0], k], 1).repeat_interleave(e.num_heads // e.num_kv_heads, 0)
            values = torch.cat([cache.layers[i].values[0], v], 1).repeat_interleave(e.num_heads // e.num_kv_heads, 0)
            weights = torch.softmax(q @ keys.transpose(1, 2) / math.sqrt(e.head_dim), -1)
            y = (weights @ values).transpose(0, 1).reshape(rows, -1)
            h = h + gate * self.lin(at + "self_attn.o_proj", y)
            y, gate = self.ada_norm(h, at + "post_attention_layernorm", cond)
            y = F.gelu(self.lin(at + "mlp.gate_proj", y), approximate="tanh") * self.lin(at + "mlp.up_proj", y)
            h = h + gate * self.lin(at + "mlp.down_proj", y)
        y, _ = self.ada_norm(h, EXPERT + "norm", cond)
        return self.lin("action_out_proj", y)

    @torch.no_grad()
    def run(self, images: Tensor, ids: list[int], noise: Tensor) -> tuple[Tensor, Trace]:
        """images [V, S, S, 3] float in [-1, 1], valid token ids, noise [H, 32] -> normalised actions [H, 32], all stages."""
        trace = Trace()
        tokens = self.encode_images(images).flatten(0, 1)
        trace.vision = tokens
        words = F.embedding(torch.tensor(ids), self.w[PALIGEMMA + "lm_head.weight"]) * math.sqrt(self.d.prefix.width)
        cache = self.prefill(torch.cat([tokens, words]), trace)
        x, dt = noise.clone(), -1.0 / self.d.num_steps
        for k in range(self.d.num_steps):
            x = x + dt * self.velocity(x, 1.0 + k * dt, cache)
            trace.steps.append(x)
        return x, trace
