"""Declarative weight loading: a spec says which tensor goes where through which transforms; the loader runs it.

Three layers, each duck-typed so that torch and NumPy share this file: a source (`get`, `has`), transforms (`apply`), a sink
(`store`, `finalize`). A composite key (`Cat`, `FusedQKV`, ...) has `resolve(ctx)`, and `source_keys()` to be checkable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..errors import CheckpointError, ConfigError, FlashRTError


class SinkError(FlashRTError, RuntimeError):
    """A spec sends two tensors to a sink that holds one."""


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
        from .weight_check import check_spec  # the checks know this module's classes

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


class AttrSink:
    """Sets `target.<name>` once per run; SinkError (a RuntimeError) at the second store."""

    def __init__(self, name: str):
        self.name = name
        self._target: Any = None
        self._stored = False

    def begin(self, target: Any) -> None:
        self._target, self._stored = target, False

    def store(self, tensor: Any, *, scale: float | None = None) -> None:
        if self._stored:
            raise SinkError(
                f"{type(self).__name__}({self.name!r})", expected="one tensor per run", found="a second one"
            )
        setattr(self._target, self.name, self.convert(tensor))
        self._stored = True

    def convert(self, tensor: Any) -> Any:
        """What is set for a tensor; the tensor itself unless a subclass changes it."""
        return tensor

    def finalize(self) -> None:
        return None


class ListSink:
    """Appends to a fresh list `target.<name>`, in loading order."""

    def __init__(self, name: str):
        self.name = name
        self._list: list[Any] = []

    def begin(self, target: Any) -> None:
        self._list = []
        setattr(target, self.name, self._list)

    def store(self, tensor: Any, *, scale: float | None = None) -> None:
        self._list.append(tensor)

    def finalize(self) -> None:
        return None


class CollectSink:
    """Collects in loading order; `finalize` sets `target.<name>` to what `join` makes of the parts."""

    def __init__(self, name: str):
        self.name = name
        self._target: Any = None
        self._parts: list[Any] = []

    def begin(self, target: Any) -> None:
        self._target, self._parts = target, []

    def store(self, tensor: Any, *, scale: float | None = None) -> None:
        self._parts.append(tensor)

    def join(self, parts: list[Any]) -> Any:
        raise NotImplementedError

    def finalize(self) -> None:
        setattr(self._target, self.name, self.join(self._parts))
        self._parts = []  # the joined copy is the only one kept
