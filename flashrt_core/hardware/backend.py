"""Attention interface between pipelines and hardware: what each attention site looks like and how it is run.

A pipeline names a site and a layer; the backend owns the kernels and the slots. Everything that crosses is an int
(pointer, dimension, stream), so a run can be recorded into a graph. Pointers are stable for the backend's lifetime.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Protocol, runtime_checkable

from ..errors import ConfigError, OpError, nearest


class UnknownSite(ConfigError, KeyError):
    """An attention site that the specification does not have; a KeyError for callers that treat sites as a mapping."""

    __str__ = Exception.__str__  # KeyError's own would show the message as a repr

    def __init__(self, name: str, known: tuple[str, ...]):
        super().__init__(f"attention site {name!r}", found="no such site", hint=nearest(str(name), known))


@dataclass
class SiteSpec:
    """One attention site: a group of layers with equal shapes.

    Sequence lengths are in rows; max_kv_seq=None means self-attention (max_q_seq). batch_axis: position of the batch in
    the slot tensors. extra: hardware-specific values, read by that hardware's backend only.
    ConfigError (a ValueError) when a number is not positive or the heads cannot be grouped.
    """

    num_layers: int
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    max_q_seq: int
    max_kv_seq: int | None = None
    batch_axis: int = 1
    sliding_window: int | None = None  # reserved for sliding-window models
    causal: bool = False
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.max_kv_seq is None:
            self.max_kv_seq = self.max_q_seq
        for name in ("num_layers", "num_q_heads", "num_kv_heads", "head_dim", "max_q_seq", "max_kv_seq"):
            _positive(name, getattr(self, name))
        if self.sliding_window is not None:
            _positive("sliding_window", self.sliding_window)
        if self.num_kv_heads > self.num_q_heads or self.num_q_heads % self.num_kv_heads:
            expected = f"a divisor of num_q_heads={self.num_q_heads}"
            raise ConfigError("SiteSpec.num_kv_heads", expected=expected, found=self.num_kv_heads)


@dataclass
class AttentionSpec:
    """All attention sites of a model, by name, in the order they were added."""

    sites: dict[str, SiteSpec] = field(default_factory=dict)

    def add_site(self, name: str, **kwargs: object) -> AttentionSpec:
        """Add SiteSpec(**kwargs) under `name` and return self. ConfigError for a duplicate name or an unknown field."""
        if name in self.sites:
            raise ConfigError(f"attention site {name!r}", expected="a name used once", found="a duplicate")
        known = [f.name for f in fields(SiteSpec)]
        for key in kwargs:
            if key not in known:
                raise ConfigError(f"SiteSpec.{key}", found="no such field", hint=nearest(key, known))
        self.sites[name] = SiteSpec(**kwargs)
        return self

    def site(self, name: str) -> SiteSpec:
        """The site called `name`; UnknownSite (a KeyError) when there is none."""
        try:
            return self.sites[name]
        except KeyError:
            raise UnknownSite(name, tuple(self.sites)) from None


@runtime_checkable
class AttentionBackend(Protocol):
    """What a pipeline needs from a hardware's attention."""

    def sites(self) -> tuple[str, ...]:
        """Names of the sites."""
        ...

    def get_slot_ptrs(self, site: str, layer_idx: int) -> dict[str, int]:
        """Device pointers of the slots of one layer: keys Q, K, V and what the hardware adds (O, logits)."""
        ...

    def run(self, site: str, layer_idx: int, q_seq: int, *, kv_seq: int | None = None, stream: int = 0) -> int:
        """Attend over the slots; returns the output pointer, valid until the next run of the same site and layer."""
        ...

    def head_dim(self, site: str) -> int:
        """Width of one head of `site`."""
        ...

    def num_q_heads(self, site: str) -> int:
        """Query heads of `site`."""
        ...

    def num_kv_heads(self, site: str) -> int:
        """Key/value heads of `site`."""
        ...


class AttentionBackendBase:
    """Accessors and argument checks from an AttentionSpec; a hardware adds `get_slot_ptrs` and `run`."""

    def __init__(self, spec: AttentionSpec):
        self._spec = spec

    @property
    def spec(self) -> AttentionSpec:
        """The specification given at construction."""
        return self._spec

    def sites(self) -> tuple[str, ...]:
        """Names of the sites, in the order they were added."""
        return tuple(self._spec.sites)

    def head_dim(self, site: str) -> int:
        """Width of one head of `site`; UnknownSite when there is none."""
        return self._spec.site(site).head_dim

    def num_q_heads(self, site: str) -> int:
        """Query heads of `site`; UnknownSite when there is none."""
        return self._spec.site(site).num_q_heads

    def num_kv_heads(self, site: str) -> int:
        """Key/value heads of `site`; UnknownSite when there is none."""
        return self._spec.site(site).num_kv_heads

    def get_slot_ptrs(self, site: str, layer_idx: int) -> dict[str, int]:
        """Given by the hardware's backend."""
        raise NotImplementedError(f"{type(self).__name__}.get_slot_ptrs")

    def run(self, site: str, layer_idx: int, q_seq: int, *, kv_seq: int | None = None, stream: int = 0) -> int:
        """Given by the hardware's backend."""
        raise NotImplementedError(f"{type(self).__name__}.run")

    def check_run(self, site: str, layer_idx: int, q_seq: int, kv_seq: int | None) -> tuple[SiteSpec, int]:
        """(site, kv_seq) of a valid run. kv_seq=None means q_seq and is allowed for self-attention sites only.

        OpError names the argument, its value and the range; UnknownSite when there is no such site.
        """
        spec = self._spec.site(site)
        if kv_seq is None:
            if spec.max_kv_seq != spec.max_q_seq:
                raise OpError(f"attention[{site}]", "kv_seq", None, "must be given: keys and queries differ in length")
            kv_seq = q_seq
        _in_range(site, "layer_idx", layer_idx, 0, spec.num_layers - 1)
        _in_range(site, "q_seq", q_seq, 1, spec.max_q_seq)
        _in_range(site, "kv_seq", kv_seq, 1, spec.max_kv_seq)
        return spec, kv_seq


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"SiteSpec.{name}", expected="an integer >= 1", found=value)


def _in_range(site: str, name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise OpError(f"attention[{site}]", name, value, f"must be in {low}..{high}")
