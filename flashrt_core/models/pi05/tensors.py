"""Names and shapes of the tensors in a Pi0.5 safetensors file (openpi naming, no `model.` in front).

Source: openpi `models_pytorch/pi0_pytorch.py` and `gemma_pytorch.py`; 812 names at the published sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import CheckpointError
from .dims import GemmaDims, Pi05Dims

if TYPE_CHECKING:
    from ...core.weight_source import FileSource
    from .profile import Pi05Profile

PALIGEMMA = "paligemma_with_expert.paligemma."
VISION = PALIGEMMA + "model.vision_tower.vision_model."
PROJECTOR = PALIGEMMA + "model.multi_modal_projector.linear"
LANGUAGE = PALIGEMMA + "model.language_model."
EXPERT = "paligemma_with_expert.gemma_expert.model."
# The embedding is tied to lm_head. openpi and converted files store lm_head alone; files saved by newer LeRobot
# releases may hold both, and then embed_tokens is what that model looks tokens up in.
EMBEDDINGS = (LANGUAGE + "embed_tokens.weight", PALIGEMMA + "lm_head.weight")
EXPERT_HEAD = "paligemma_with_expert.gemma_expert.lm_head.weight"

Shapes = dict[str, tuple[int, ...]]


def embedding_key(source: FileSource) -> str:
    """The name under which this source stores the token embedding; CheckpointError when it has neither."""
    for key in EMBEDDINGS:
        if source.has(key):
            return key
    raise CheckpointError(f"tensor {EMBEDDINGS[1]}", expected=f"it, or {EMBEDDINGS[0]}", found="neither")


def expected_tensors(dims: Pi05Dims) -> Shapes:
    """name -> shape, `[out, in]` for linear layers. The embedding appears under both of its names."""
    v, p, e = dims.vision, dims.prefix, dims.expert
    out: Shapes = dict.fromkeys(EMBEDDINGS, (dims.vocab_size, p.width))
    out[EXPERT_HEAD] = (dims.vocab_size, e.width)
    out[VISION + "embeddings.patch_embedding.weight"] = (v.width, 3, v.patch_size, v.patch_size)
    out[VISION + "embeddings.patch_embedding.bias"] = (v.width,)
    out[VISION + "embeddings.position_embedding.weight"] = (v.tokens, v.width)
    for i in range(v.num_layers):
        layer = f"{VISION}encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            out |= {f"{layer}{norm}.weight": (v.width,), f"{layer}{norm}.bias": (v.width,)}
        for name in ("q", "k", "v", "out"):
            out |= _linear(f"{layer}self_attn.{name}_proj", v.width, v.width)
        out |= _linear(layer + "mlp.fc1", v.mlp_dim, v.width)
        out |= _linear(layer + "mlp.fc2", v.width, v.mlp_dim)
    out |= {VISION + "post_layernorm.weight": (v.width,), VISION + "post_layernorm.bias": (v.width,)}
    out |= _linear(PROJECTOR, p.width, v.width)
    for i in range(p.num_layers):
        layer = f"{LANGUAGE}layers.{i}."
        out |= _gemma_layer(layer, p)
        out |= {f"{layer}{norm}.weight": (p.width,) for norm in ("input_layernorm", "post_attention_layernorm")}
    out[LANGUAGE + "norm.weight"] = (p.width,)
    for i in range(e.num_layers):
        layer = f"{EXPERT}layers.{i}."
        out |= _gemma_layer(layer, e)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            out |= _linear(f"{layer}{norm}.dense", 3 * e.width, e.width)
    out |= _linear(EXPERT + "norm.dense", 3 * e.width, e.width)
    out |= _linear("action_in_proj", e.width, dims.action_dim)
    out |= _linear("action_out_proj", dims.action_dim, e.width)
    out |= _linear("time_mlp_in", e.width, e.width)
    out |= _linear("time_mlp_out", e.width, e.width)
    return out


def unused_tensors(dims: Pi05Dims) -> tuple[str, ...]:
    """Names and patterns that a file may hold although no action depends on them (for `check_complete(ignore=...)`).

    The expert's lm_head, the second copy of the embedding, and what follows K and V in the last prefix layer.
    """
    last = f"{LANGUAGE}layers.{dims.prefix.num_layers - 1}."
    return (
        EXPERT_HEAD,
        *EMBEDDINGS,
        LANGUAGE + "norm.weight",
        last + "self_attn.q_proj.weight",
        last + "self_attn.o_proj.weight",
        last + "mlp.*",
        last + "post_attention_layernorm.weight",
    )


def check_dims(profile: Pi05Profile, source: FileSource) -> None:
    """CheckpointError naming the first tensor that contradicts the profile's sizes, or a layer that it does not count.

    Looks at headers only. Tensors that are missing altogether are the weight spec's business, except the embedding.
    """
    dims = profile.dims
    embedding_key(source)
    for key, shape in expected_tensors(dims).items():
        if source.has(key) and tuple(source.info(key).shape) != shape:
            raise CheckpointError(
                f"tensor {key}: shape",
                expected=f"{list(shape)} (profile {profile.name!r})",
                found=list(source.info(key).shape),
            )
    stacks = {"vision": VISION + "encoder.", "prefix": LANGUAGE, "expert": EXPERT}
    for part, root in stacks.items():
        count = getattr(dims, part).num_layers
        beyond = f"{root}layers.{count}."
        found = next((key for key in source.keys() if key.startswith(beyond)), None)
        if found:
            raise CheckpointError(
                f"tensor {found}",
                expected=f"{count} layers (profile {profile.name!r}, dims.{part})",
                found="more layers",
            )


def _linear(name: str, n_out: int, n_in: int) -> Shapes:
    return {f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)}


def _gemma_layer(layer: str, g: GemmaDims) -> Shapes:
    return {
        layer + "self_attn.q_proj.weight": (g.q_dim, g.width),
        layer + "self_attn.k_proj.weight": (g.kv_dim, g.width),
        layer + "self_attn.v_proj.weight": (g.kv_dim, g.width),
        layer + "self_attn.o_proj.weight": (g.width, g.q_dim),
        layer + "mlp.gate_proj.weight": (g.mlp_dim, g.width),
        layer + "mlp.up_proj.weight": (g.mlp_dim, g.width),
        layer + "mlp.down_proj.weight": (g.width, g.mlp_dim),
    }
