"""Pi0.5 as one plain PyTorch module for training: SigLIP tower, Gemma prefix, adaRMS action expert, flow matching.

Module names spell the key names of openpi's PyTorch checkpoints, so `state_dict()` is the file. Written from the model's
facts (openpi models/gemma.py, models/siglip.py, models_pytorch/pi0_pytorch.py), independent of the inference engine.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelSize:
    """Sizes of one model; the defaults are the bundled policy's."""

    vocab_size: int = 640
    prompt_capacity: int = 48
    image_size: int = 112
    patch_size: int = 14
    num_views: int = 2
    vision_width: int = 128
    vision_mlp: int = 512
    vision_layers: int = 4
    vision_heads: int = 2
    prefix_width: int = 192
    prefix_mlp: int = 768
    expert_width: int = 128
    expert_mlp: int = 512
    layers: int = 4
    heads: int = 4
    head_dim: int = 64
    action_dim: int = 32  # the model's; the robot's is smaller
    robot_dim: int = 7
    horizon: int = 10

    def profile_dims(self) -> dict[str, object]:
        """The `dims` object of flashrt_profile.json."""
        stack = {"num_layers": self.layers, "num_heads": self.heads, "num_kv_heads": 1, "head_dim": self.head_dim}
        return {
            "vision": {
                "image_size": self.image_size, "patch_size": self.patch_size, "width": self.vision_width,
                "mlp_dim": self.vision_mlp, "num_layers": self.vision_layers, "num_heads": self.vision_heads,
            },
            "prefix": {"width": self.prefix_width, "mlp_dim": self.prefix_mlp, **stack},
            "expert": {"width": self.expert_width, "mlp_dim": self.expert_mlp, **stack},
            "vocab_size": self.vocab_size,
            "action_dim": self.action_dim,
        }  # fmt: skip

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Names(nn.Module):
    """A module that only gives its children a place in the key names."""

    def __init__(self, **children: nn.Module):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return _rms(x) * (1 + self.weight.float())


class AdaRMSNorm(nn.Module):
    """y = rms(x) * (1 + scale) + shift; the gate goes to the residual branch. Gates start at 1: from scratch, zero stalls."""

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        with torch.no_grad():
            self.dense.bias[2 * width :] = 1.0

    def forward(self, x: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift, gate = self.dense(cond).float().chunk(3, dim=-1)
        return _rms(x) * (1 + scale) + shift, gate


def _rms(x: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def _gemma_attn(width: int, s: ModelSize) -> Names:
    return Names(
        q_proj=nn.Linear(width, s.heads * s.head_dim, bias=False),
        k_proj=nn.Linear(width, s.head_dim, bias=False),
        v_proj=nn.Linear(width, s.head_dim, bias=False),
        o_proj=nn.Linear(s.heads * s.head_dim, width, bias=False),
    )


def _gemma_mlp(width: int, hidden: int) -> Names:
    return Names(
        gate_proj=nn.Linear(width, hidden, bias=False),
        up_proj=nn.Linear(width, hidden, bias=False),
        down_proj=nn.Linear(hidden, width, bias=False),
    )


def _geglu(mlp: Names, x: Tensor) -> Tensor:
    return mlp.down_proj(F.gelu(mlp.gate_proj(x), approximate="tanh") * mlp.up_proj(x))


def _rope(x: Tensor, pos: Tensor) -> Tensor:
    """Rotate-half RoPE, theta 10000. x [B, H, S, D], pos [B, S] or [1, S]."""
    half = x.shape[-1] // 2
    freq = 10000.0 ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = pos[:, None, :, None].float() * freq  # [B, 1, S, D/2]
    cos, sin = angle.cos(), angle.sin()
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class VisionLayer(nn.Module):
    def __init__(self, s: ModelSize):
        super().__init__()
        w = s.vision_width
        self.heads = s.vision_heads
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(w, eps=1e-6), nn.LayerNorm(w, eps=1e-6)
        self.self_attn = Names(**{n: nn.Linear(w, w) for n in ("q_proj", "k_proj", "v_proj", "out_proj")})
        self.mlp = Names(fc1=nn.Linear(w, s.vision_mlp), fc2=nn.Linear(s.vision_mlp, w))

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        h = self.layer_norm1(x)
        q, k, v = (
            p(h).view(b, n, self.heads, -1).transpose(1, 2)
            for p in (self.self_attn.q_proj, self.self_attn.k_proj, self.self_attn.v_proj)
        )
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, w)
        x = x + self.self_attn.out_proj(h)
        h = F.gelu(self.mlp.fc1(self.layer_norm2(x)), approximate="tanh")
        return x + self.mlp.fc2(h)


class PrefixLayer(nn.Module):
    def __init__(self, s: ModelSize):
        super().__init__()
        self.size = s
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(s.prefix_width), RMSNorm(s.prefix_width)
        self.self_attn = _gemma_attn(s.prefix_width, s)
        self.mlp = _gemma_mlp(s.prefix_width, s.prefix_mlp)

    def keys_values(self, x: Tensor, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(normed x, K, V), K and V [B, 1, S, D]."""
        h = self.input_layernorm(x)
        k, v = self.self_attn.k_proj(h)[:, None], self.self_attn.v_proj(h)[:, None]
        return h, _rope(k, pos), v

    def forward(self, x: Tensor, h: Tensor, k: Tensor, v: Tensor, pos: Tensor, mask: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = _rope(self.self_attn.q_proj(h).view(b, n, self.size.heads, -1).transpose(1, 2), pos)
        x = x + self.self_attn.o_proj(_attend(q, k, v, mask))
        return x + _geglu(self.mlp, self.post_attention_layernorm(x))


class ExpertLayer(nn.Module):
    def __init__(self, s: ModelSize):
        super().__init__()
        self.size = s
        self.input_layernorm, self.post_attention_layernorm = AdaRMSNorm(s.expert_width), AdaRMSNorm(s.expert_width)
        self.self_attn = _gemma_attn(s.expert_width, s)
        self.mlp = _gemma_mlp(s.expert_width, s.expert_mlp)

    def forward(self, x: Tensor, cond: Tensor, pos: Tensor, prefix: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        b, n, _ = x.shape
        h, gate = self.input_layernorm(x, cond)
        q = _rope(self.self_attn.q_proj(h).view(b, n, self.size.heads, -1).transpose(1, 2), pos)
        k = torch.cat([prefix[0], _rope(self.self_attn.k_proj(h)[:, None], pos)], 2)
        v = torch.cat([prefix[1], self.self_attn.v_proj(h)[:, None]], 2)
        x = x + gate * self.self_attn.o_proj(_attend(q, k, v, mask))
        h, gate = self.post_attention_layernorm(x, cond)
        return x + gate * _geglu(self.mlp, h)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q [B, H, S, D] on one K/V head [B, 1, T, D]; mask bool [B, 1, S or 1, T]. Returns [B, S, H * D]."""
    b, heads, n, d = q.shape
    k, v = k.to(q.dtype).expand(b, heads, -1, d), v.to(q.dtype).expand(b, heads, -1, d)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.expand(b, 1, n, -1))
    return out.transpose(1, 2).reshape(b, n, heads * d)


class Pi05(nn.Module):
    """The whole policy. Images uint8 [B, V, S, S, 3], tokens int64 [B, L] padded with 0, valid int64 [B]."""

    def __init__(self, size: ModelSize):
        super().__init__()
        s = self.size = size
        grid = s.image_size // s.patch_size
        vision = Names(
            embeddings=Names(
                patch_embedding=nn.Conv2d(3, s.vision_width, s.patch_size, s.patch_size),
                position_embedding=nn.Embedding(grid * grid, s.vision_width),
            ),
            encoder=Names(layers=nn.ModuleList(VisionLayer(s) for _ in range(s.vision_layers))),
            post_layernorm=nn.LayerNorm(s.vision_width, eps=1e-6),
        )
        model = Names(
            vision_tower=Names(vision_model=vision),
            multi_modal_projector=Names(linear=nn.Linear(s.vision_width, s.prefix_width)),
            language_model=Names(
                layers=nn.ModuleList(PrefixLayer(s) for _ in range(s.layers)), norm=RMSNorm(s.prefix_width)
            ),
        )
        lm_head = nn.Linear(s.prefix_width, s.vocab_size, bias=False)
        expert = Names(layers=nn.ModuleList(ExpertLayer(s) for _ in range(s.layers)), norm=AdaRMSNorm(s.expert_width))
        self.paligemma_with_expert = Names(
            paligemma=Names(lm_head=lm_head, model=model), gemma_expert=Names(model=expert)
        )
        w = s.expert_width
        self.action_in_proj, self.action_out_proj = nn.Linear(s.action_dim, w), nn.Linear(w, s.action_dim)
        self.time_mlp_in, self.time_mlp_out = nn.Linear(w, w), nn.Linear(w, w)
        self._init(vision, lm_head)

    def _init(self, vision: Names, lm_head: nn.Linear) -> None:
        nn.init.normal_(vision.embeddings.position_embedding.weight, std=0.02)
        nn.init.normal_(lm_head.weight, std=self.size.prefix_width**-0.5)  # the forward multiplies by sqrt(width)
        with torch.no_grad():  # padded action dims carry nothing: not read, velocity 0, so they keep their noise
            self.action_in_proj.weight[:, self.size.robot_dim :] = 0
            self.action_out_proj.weight[self.size.robot_dim :] = 0
            self.action_out_proj.bias[self.size.robot_dim :] = 0

    # -- prefix -------------------------------------------------------------------------------------------------------

    def image_tokens(self, images: Tensor) -> Tensor:
        """uint8 [B, V, S, S, 3] -> [B, V * tokens, prefix width]."""
        s, model = self.size, self.paligemma_with_expert.paligemma.model
        b, v = images.shape[:2]
        g, p = s.image_size // s.patch_size, s.patch_size
        vision = model.vision_tower.vision_model
        x = images.float() / 127.5 - 1.0
        x = x.view(b * v, g, p, g, p, 3).permute(0, 1, 3, 5, 2, 4).reshape(b * v, g * g, 3 * p * p)
        conv = vision.embeddings.patch_embedding  # stride = kernel: a matrix product over patches
        x = F.linear(x, conv.weight.reshape(s.vision_width, -1), conv.bias)
        x = x + vision.embeddings.position_embedding.weight
        for layer in vision.encoder.layers:
            x = layer(x)
        x = model.multi_modal_projector.linear(vision.post_layernorm(x))
        return x.reshape(b, v * g * g, s.prefix_width)

    def prefix(
        self, images: Tensor, tokens: Tensor, valid: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
        """K/V of every layer, the mask over prefix rows bool [B, P], and the number of valid rows [B]."""
        pal = self.paligemma_with_expert.paligemma
        image = self.image_tokens(images)
        words = F.embedding(tokens, pal.lm_head.weight) * math.sqrt(self.size.prefix_width)
        x = torch.cat([image.float(), words.float()], 1)
        rows = torch.arange(x.shape[1], device=x.device)
        total = valid + image.shape[1]
        mask = rows[None] < total[:, None]  # [B, P]; images first, so valid rows are a leading block
        cache = []
        layers = pal.model.language_model.layers
        for i, layer in enumerate(layers):
            h, k, v = layer.keys_values(x, rows[None])
            cache.append((k, v))
            if i + 1 < len(layers):  # the last layer's output is never read
                x = layer(x, h, k, v, rows[None], mask[:, None, None])
        return cache, mask, total

    # -- suffix -------------------------------------------------------------------------------------------------------

    def velocity(self, x: Tensor, t: Tensor, prefix: tuple[list, Tensor, Tensor]) -> Tensor:
        """x [B, K, H, action_dim] and t [B, K] -> velocity; K draws share one prefix and do not see each other."""
        cache, mask, total = prefix
        b, k, h, _ = x.shape
        cond = F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(self._time(t)))))  # [B, K, W]
        cond = cond[:, :, None].expand(b, k, h, -1).reshape(b, k * h, -1)
        y = self.action_in_proj(x).reshape(b, k * h, -1).float()
        step = torch.arange(h, device=x.device).repeat(k)
        pos = total[:, None] + step[None]
        draw = torch.arange(k, device=x.device).repeat_interleave(h)
        own = (draw[:, None] == draw[None]).expand(b, -1, -1)
        full = torch.cat([mask[:, None].expand(b, k * h, -1), own], -1)[:, None]  # [B, 1, KH, P + KH]
        expert = self.paligemma_with_expert.gemma_expert.model
        for layer, kv in zip(expert.layers, cache, strict=True):
            y = layer(y, cond, pos, kv, full)
        y, _ = expert.norm(y, cond)
        return self.action_out_proj(y).reshape(b, k, h, -1)

    def _time(self, t: Tensor) -> Tensor:
        half = self.size.expert_width // 2
        fraction = torch.linspace(0, 1, half, device=t.device, dtype=torch.float64)
        angle = t.double()[..., None] * (2 * math.pi / (4e-3 * (4.0 / 4e-3) ** fraction))
        return torch.cat([angle.sin(), angle.cos()], -1).float()

    def loss(self, images: Tensor, tokens: Tensor, valid: Tensor, actions: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Flow-matching error. actions [B, H, 7] normalised, noise [B, K, H, 7], t [B, K]; mean over the robot's dims."""
        pad = self.size.action_dim - actions.shape[-1]
        at = t[:, :, None, None]
        x = at * noise + (1 - at) * actions[:, None]
        v = self.velocity(F.pad(x, (0, pad)), t, self.prefix(images, tokens, valid))
        target = noise - actions[:, None]
        return (v[..., : actions.shape[-1]].float() - target).square().mean()

    @torch.no_grad()
    def sample(self, images: Tensor, tokens: Tensor, valid: Tensor, noise: Tensor, steps: int = 10) -> Tensor:
        """Euler from t = 1 to 0. noise [B, H, action_dim] -> normalised actions [B, H, action_dim]."""
        prefix = self.prefix(images, tokens, valid)
        x = noise.float()[:, None]
        for i in range(steps):
            t = torch.full(x.shape[:2], 1.0 - i / steps, device=x.device)
            x = x - self.velocity(x, t, prefix).float() / steps
        return x[:, 0]
