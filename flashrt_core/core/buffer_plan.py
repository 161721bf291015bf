"""Buffers of a pipeline as data: names, dtypes and shapes, allocated once and never again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..types import DType


@dataclass(frozen=True)
class BufferRow:
    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.nbytes


@dataclass
class BufferPlan:
    """Rows in order of declaration. Printing one gives the table."""

    rows: dict[str, BufferRow] = field(default_factory=dict)

    def add(self, name: str, dtype: DType, *shape: int) -> None:
        if name in self.rows:
            raise ConfigError(f"buffer {name!r}", expected="a name used once", found="a duplicate")
        self.rows[name] = BufferRow(name, dtype, shape)

    @property
    def nbytes(self) -> int:
        return sum(r.nbytes for r in self.rows.values())

    def allocate(self, ctx: Any, prefix: str = "") -> dict[str, Any]:
        """One `ctx.buffer` per row (exec.Ctx); the context owns them."""
        return {name: ctx.buffer(prefix + name, row.nbytes) for name, row in self.rows.items()}

    def __str__(self) -> str:
        lines = [
            f"{r.name:<20} {r.dtype.name:<5} {'x'.join(map(str, r.shape)):<20} {r.nbytes:>14,}"
            for r in self.rows.values()
        ]
        return "\n".join([*lines, f"{'total':<47} {self.nbytes:>14,}"])
