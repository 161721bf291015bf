"""One measured configuration, and how a sweep varies it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..models.pi05.dims import Pi05Dims
from .random_model import size_named

WIDE = ("fp32", "bf16")
STAGES = ("vision", "encoder", "decoder")
# Besides, one stage in another precision than the rest: where an error comes from, what a stage's precision costs.
PRECISIONS = (*WIDE, "fp8", *(f"{p}_{stage}" for p in (*WIDE, "fp8") for stage in STAGES))
# Columns that say which configuration a row is of; two rows with equal ones are the same measurement.
KEY = ("model", "gpu", "precision", "views", "chunk", "num_steps", "prompt_len", "capacity", "cache_frames", "image_size")


@dataclass(frozen=True)
class Case:
    """precision: of every stage, or "fp8_vision": that stage alone in FP8, or "bf16_vision": that stage alone not.

    weights: "full" or "demo" (random ones of that size) or a checkpoint folder. None: as the weights have it.

    chunk, capacity: of random weights only, a checkpoint fixes them. image_size: (height, width) of the cameras' pictures,
    None for squares of the model's size.
    """

    weights: str
    precision: str
    views: int = 2
    chunk: int | None = None
    num_steps: int | None = None
    capacity: int | None = None
    prompt_len: int | None = None
    cache_frames: int = 1
    image_size: tuple[int, int] | None = None
    random: bool = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError("precision", expected=f"one of {', '.join(PRECISIONS)}", found=repr(self.precision))
        if not self.random and (self.chunk is not None or self.capacity is not None):
            raise ConfigError("chunk, capacity", expected="left out with a checkpoint, which fixes them", found="a value")
        if self.prompt_len is not None and not 3 <= self.prompt_len:
            raise ConfigError("prompt length", expected="3 or more tokens", found=self.prompt_len)

    @property
    def quantised(self) -> bool:
        return self.precision not in WIDE

    @property
    def model(self) -> str:
        """The row's `model`: "pi05" is the published size, anything else says what it is."""
        return "pi05" if self.random and self.weights == "full" else f"pi05 {Path(self.weights).name}"

    def dims(self) -> Pi05Dims:
        """Sizes of random weights, with this case's changes."""
        named = size_named(self.weights)
        changes = {"num_views": self.views, "horizon": self.chunk, "num_steps": self.num_steps, "prompt_capacity": self.capacity}
        return dataclasses.replace(named, **{k: v for k, v in changes.items() if v is not None})


def sweep(base: Case) -> list[Case]:
    """The base first, then one thing changed at a time: what the project reports beside its main figure."""
    changes: list[dict[str, object]] = [
        {"views": 1}, {"views": 3}, {"chunk": 50}, {"num_steps": 5}, {"capacity": 200, "prompt_len": 48}, {"cache_frames": 2},
        {"image_size": (480, 640)},
    ]  # fmt: skip
    if not base.random:
        changes = [c for c in changes if not {"chunk", "capacity", "views"} & c.keys()]
    return [base, *(dataclasses.replace(base, **c) for c in changes)]
