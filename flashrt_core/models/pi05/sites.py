"""Activation-scale sites of Pi0.5: a name for every quantised GEMM input, and its slot in one fp32 array."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...blocks.adarms import ExpertSites
from ...blocks.gemma import GemmaSites
from ...blocks.siglip import SiglipSites
from ...ops.table import SCALE_BYTES
from .dims import Pi05Dims

VISION_GEMMS = ("qkv", "o", "fc1", "fc2")
GEMMA_GEMMS = ("qkv", "o", "gate_up", "down")


def site_names(dims: Pi05Dims) -> tuple[str, ...]:
    """All sites in slot order: vision layers, projector, encoder layers (the last has qkv only), decoder per step."""
    names = [f"vision.{i}.{g}" for i in range(dims.vision_layers) for g in VISION_GEMMS]
    names.append("vision.proj")
    last = dims.prefix.num_layers - 1
    names += [f"encoder.{i}.{g}" for i in range(last) for g in GEMMA_GEMMS]
    names.append(f"encoder.{last}.qkv")
    names += [
        f"decoder.step{k}.{i}.{g}"
        for k in range(dims.num_steps)
        for i in range(dims.expert.num_layers)
        for g in GEMMA_GEMMS
    ]
    return tuple(names)


def weight_site(site: str) -> str:
    """Whose input a site is, the same weight at every denoise step: "decoder.step3.5.o" -> "decoder.5.o"."""
    return re.sub(r"^decoder\.step\d+", "decoder", site)


def used_rows(site: str, rows: int, dims: Pi05Dims, tokens: int) -> int:
    """How many of a site's rows, from the first on, reach the actions of a prompt of `tokens`: the prefix has room for more."""
    return dims.image_tokens + tokens if site.startswith("encoder.") else rows


@dataclass(frozen=True)
class Pi05Sites:
    """Pointers into the scale array, in the shape the blocks take them."""

    vis: SiglipSites
    enc: GemmaSites
    dec: tuple[ExpertSites, ...]  # one per denoise step


def sites_at(dims: Pi05Dims, base: int) -> Pi05Sites:
    """Sites whose array of fp32 scales, one every SCALE_BYTES, starts at `base`."""
    at = {name: base + SCALE_BYTES * i for i, name in enumerate(site_names(dims))}

    def group(prefix: str, gemms: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(at[f"{prefix}.{g}"] for g in gemms)

    last = dims.prefix.num_layers - 1
    encoder = [group(f"encoder.{i}", GEMMA_GEMMS if i < last else ("qkv",)) for i in range(last + 1)]
    return Pi05Sites(
        vis=SiglipSites([group(f"vision.{i}", VISION_GEMMS) for i in range(dims.vision_layers)], at["vision.proj"]),
        enc=GemmaSites(encoder),
        dec=tuple(
            ExpertSites([group(f"decoder.step{k}.{i}", GEMMA_GEMMS) for i in range(dims.expert.num_layers)])
            for k in range(dims.num_steps)
        ),
    )
