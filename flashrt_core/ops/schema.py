"""The words of the op table: pointers, sizes, codes, numbers, relations between them, and the row itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..types import DType

Dims = Mapping[str, Any]


@dataclass(frozen=True)
class Size:
    """A size that follows from other arguments, with the words for it."""

    text: str
    of: Callable[[Dims], int]


@dataclass(frozen=True)
class Ptr:
    """A pointer argument. `dtype` is a fixed DType or the name of the code argument that gives it.

    `shape` names int arguments, or sizes that follow from them. `needed` says when it is used and must not be 0;
    an `optional` one is used when it is not 0.
    """

    name: str
    dtype: DType | str
    shape: tuple[str | int | Size, ...]
    role: str = "in"  # in | out | inout
    needed: Callable[[Dims], bool] | None = None  # None: always
    optional: bool = False
    align: int = 16

    def sizes(self, d: Dims) -> tuple[int, ...]:
        return tuple(s if isinstance(s, int) else d[s] if isinstance(s, str) else s.of(d) for s in self.shape)

    def resolve(self, d: Dims) -> DType:
        return DType(d[self.dtype]) if isinstance(self.dtype, str) else self.dtype

    def required(self, d: Dims) -> bool:
        return not self.optional and (self.needed is None or self.needed(d))


@dataclass(frozen=True)
class Dim:
    """An int argument: a size with bounds and a multiple, or a value."""

    name: str
    lo: int = 1
    hi: int = 1 << 24
    multiple: int = 1
    try_: tuple[int, ...] = ()  # values the property test draws from; () = small ones that keep the rules


@dataclass(frozen=True)
class Code:
    """An int argument that is a dtype or an enum member."""

    name: str
    allowed: tuple[int, ...]


@dataclass(frozen=True)
class Real:
    """A float argument, finite, within [lo, hi]."""

    name: str
    lo: float
    hi: float


Arg = Ptr | Dim | Code | Real


@dataclass(frozen=True)
class Rule:
    """A relation between arguments: the argument to blame, the words, and the test."""

    arg: str
    words: str
    ok: Callable[[Dims], bool]


@dataclass(frozen=True)
class Op:
    name: str
    doc: str
    args: tuple[Arg, ...]
    ref: Callable[..., Any]  # fp32 NumPy reference over arrays, same argument names
    rules: tuple[Rule, ...] = ()
    tol: Mapping[DType, float] = field(default_factory=dict)  # max abs error / max abs value, by output dtype
    flops: Callable[[Dims], int] = lambda d: 0
    sparse: Mapping[str, str] = field(default_factory=dict)  # operand -> the dim that says how many of its rows are read

    @property
    def ptrs(self) -> tuple[Ptr, ...]:
        return tuple(a for a in self.args if isinstance(a, Ptr))

    @property
    def arg_names(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.args) + ("stream",)

    def bytes_moved(self, d: Dims) -> int:
        """Compulsory traffic: each operand read or written once (inout twice)."""
        total = 0
        for p in self.ptrs:
            if p.required(d):
                n = p.resolve(d).nbytes
                rows, *rest = p.sizes(d)
                for s in (d[self.sparse[p.name]] if p.name in self.sparse else rows, *rest):
                    n *= s
                total += 2 * n if p.role == "inout" else n
        return total
