"""Declarative weight loading: runs a spec that says which tensor goes where through which transforms."""

from __future__ import annotations

from typing import Any

from .weight_check import check_complete, check_spec
from .weight_spec import BufferSpec, Item, LayerBlock, LoaderContext, ModelWeightSpec, WeightSource, iterate

__all__ = [
    "BufferSpec",
    "Item",
    "LayerBlock",
    "LoaderContext",
    "ModelWeightSpec",
    "WeightLoader",
    "WeightSource",
    "check_complete",
]


class WeightLoader:
    """Runs a spec. TypeError when the source has no `get`/`has` or the spec is not a ModelWeightSpec."""

    def __init__(self, source: WeightSource, *, target: Any, spec: ModelWeightSpec):
        if not isinstance(source, WeightSource):
            raise TypeError(f"WeightLoader: source must have get(key) and has(key), found {type(source).__name__}")
        if not isinstance(spec, ModelWeightSpec):
            raise TypeError(f"WeightLoader: spec must be a ModelWeightSpec, found {type(spec).__name__}")
        self.source, self.target, self.spec = source, target, spec

    def run(self) -> LoaderContext:
        """Loads everything; a second run gives the same result. Returns the context with the scale lists.

        Missing tensors and wrong shapes are found before the first one is stored (CheckpointError).
        """
        check_spec(self.source, self.spec)
        ctx = LoaderContext(source=self.source, target=self.target)
        sinks = []
        for item, _, _ in iterate(self.spec):
            if not any(item.sink is s for s in sinks):
                sinks.append(item.sink)
        for sink in sinks:
            if hasattr(sink, "begin"):
                sink.begin(self.target)
        for item, ctx.prefix, ctx.layer_idx in iterate(self.spec):
            _load(item, ctx)
        for sink in sinks:
            if hasattr(sink, "finalize"):
                sink.finalize()
        for name, values in ctx.scales.items():
            setattr(self.target, name, values)
        return ctx


def _load(item: Item, ctx: LoaderContext) -> None:
    ctx.scratch.pop("_pending_scale", None)
    if isinstance(item.key, str):
        value = ctx.source.get(ctx.subkey(item.key))
    elif hasattr(item.key, "resolve"):
        value = item.key.resolve(ctx)
    else:
        raise TypeError(f"{item.name}: key must be a str or have resolve(ctx), found {type(item.key).__name__}")
    for transform in item.transforms:
        value = transform.apply(value, ctx)
    scale = ctx.scratch.pop("_pending_scale", None)
    if item.sink is None:
        raise TypeError(f"{item.name}: an item needs a sink")
    item.sink.store(value, scale=scale)
    if scale is not None and item.scale_into is not None:
        ctx.scales.setdefault(item.scale_into, []).append(scale)
