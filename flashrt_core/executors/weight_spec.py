"""The words of declarative weight loading: items, blocks, specs and the context that transforms see.

Everything is duck-typed so that torch and NumPy share it: a source has `get` and `has`, a transform `apply(x, ctx)`, a
sink `store` and `finalize`, a composite key `resolve(ctx)` and (to be checkable) `source_keys()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..errors import CheckpointError, ConfigError


@runtime_checkable
class WeightSource(Protocol):
    """Where tensors come from. `keys()` is optional; with it, errors can say what is there instead."""

    def get(self, key: str) -> Any: ...

    def has(self, key: str) -> bool: ...


@dataclass
class Item:
    """One logical weight: read `key`, apply `transforms` in order, `store` in `sink`.

    key: a name with optional `{prefix}` and `{i}`, or a composite. scale_into: name of the list on the target that
    receives the scale which a transform (`Quant`) left behind. shape: expected shape of the stored tensor, or for a
    composite `{key template: shape}`; dtypes: accepted safetensors dtype names. Both are checked by `check_complete`
    and by the loader before anything is stored; None checks nothing.
    """

    name: str
    key: Any
    transforms: list[Any] = field(default_factory=list)
    sink: Any = None
    scale_into: str | None = None
    shape: tuple[int, ...] | dict[str, tuple[int, ...]] | None = None
    dtypes: tuple[str, ...] | None = None


@dataclass
class LayerBlock:
    """`items` for each of `num_layers` layers, layer by layer; `{prefix}` is prefix_fmt with `{i}` filled in."""

    prefix_fmt: str
    num_layers: int
    items: list[Item]
    name: str = ""


@dataclass
class BufferSpec:
    """A buffer that a frontend allocates at load. shape: ints or names in `ModelWeightSpec.dims`."""

    attr: str
    shape: tuple[int | str, ...]
    dtype: str
    init: str = "empty"

    def resolved_shape(self, dims: dict[str, Any]) -> tuple[int, ...]:
        """The shape as ints; ConfigError for a name that `dims` does not have."""
        for n in self.shape:
            if isinstance(n, str) and n not in dims:
                raise ConfigError(f"buffer {self.attr}", expected=f"a size among {sorted(dims)}", found=n)
        return tuple(int(dims[n]) if isinstance(n, str) else n for n in self.shape)


@dataclass
class ModelWeightSpec:
    """All weights of one frontend. Singletons are loaded first, then the blocks, both in order."""

    framework: str
    blocks: list[LayerBlock] = field(default_factory=list)
    singletons: list[Item] = field(default_factory=list)
    buffers: list[BufferSpec] = field(default_factory=list)
    dims: dict[str, Any] = field(default_factory=dict)


@dataclass
class LoaderContext:
    """What transforms and composites see. scratch["_pending_scale"] carries a scale from `Quant` to the loader."""

    source: WeightSource
    target: Any
    prefix: str = ""
    layer_idx: int = -1
    scales: dict[str, list[float]] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)

    def subkey(self, template: str) -> str:
        """The template with `{prefix}` and `{i}` of the current layer."""
        return subkey(template, self.prefix, self.layer_idx)


def subkey(template: str, prefix: str, layer_idx: int) -> str:
    """The template with `{prefix}` and `{i}` filled in; CheckpointError for any other placeholder."""
    if "{" not in template:
        return template
    try:
        return template.format(prefix=prefix, i=layer_idx)
    except (KeyError, IndexError, ValueError) as exc:
        raise CheckpointError(f"key template {template!r}", expected="{prefix} and {i} only", found=str(exc)) from None


def iterate(spec: ModelWeightSpec) -> Iterator[tuple[Item, str, int]]:
    """(item, prefix, layer) in loading order; layer -1 for singletons."""
    for item in spec.singletons:
        yield item, "", -1
    for block in spec.blocks:
        for i in range(block.num_layers):
            for item in block.items:
                yield item, block.prefix_fmt.format(i=i), i
