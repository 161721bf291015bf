"""Two result files side by side: rows of the same configuration, their ratio, and what got worse by more than a margin."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.strict_json import read_json
from ..errors import ConfigError
from .case import KEY

TIMES = ("replay_ms_p50", "wall_ms_p50")
COSINE_SLACK = 1e-4  # what a change of the order of sums moves, generously
_MAX_BYTES = 32 << 20
# A row from before a column existed is of these.
_DEFAULTS: Mapping[str, Any] = {"cache_frames": 1, "image_size": None, "capacity": None}


@dataclass(frozen=True)
class Pair:
    """One figure of one configuration in both files. ratio: new / old, below 1 is faster; for nodes and cosine as well."""

    key: tuple[Any, ...]
    figure: str
    old: float
    new: float
    worse: bool

    @property
    def ratio(self) -> float:
        return self.new / self.old if self.old else float("inf")


def read_results(path: Path) -> list[dict[str, Any]]:
    """The `rows` of a result file. ConfigError when it is not one."""
    if not path.is_file():
        raise ConfigError(str(path), expected="a result file (flashrt bench --out FILE)", found="no such file")
    content = read_json(path, max_bytes=_MAX_BYTES, error=ConfigError)
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(path.name, expected='{"rows": [{...}, ...]}', found="something else")
    return rows


def write_results(path: Path, rows: Sequence[Mapping[str, Any]], **rest: Any) -> None:
    """A result file; `rest` are further top-level keys (command, gpu, versions, ops)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**rest, "rows": list(rows)}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The configuration that a row is of."""
    values = (row.get(name, _DEFAULTS.get(name)) for name in KEY)
    return tuple(tuple(v) if isinstance(v, list) else v for v in values)


def compare(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], margin: float = 0.03) -> list[Pair]:
    """Pairs of figures that both have, in the order of `new`. Worse: a time above old * (1 + margin), more graph nodes, or
    a cosine lower by more than 1e-4. Configurations that only one file has give none."""
    if not 0 <= margin < 10:
        raise ConfigError("margin", expected="0 or more, 0.03 is 3 %", found=margin)
    before = {key_of(row): row for row in old}
    pairs = []
    for row in new:
        known = before.get(key_of(row), {})
        for figure in (*TIMES, "nodes", "cosine_fp32"):
            a, b = known.get(figure), row.get(figure)
            if not isinstance(a, int | float) or not isinstance(b, int | float):
                continue
            if figure in TIMES:
                worse = b > a * (1 + margin)
            else:
                worse = b > a if figure == "nodes" else b < a - COSINE_SLACK
            pairs.append(Pair(key_of(row), figure, a, b, worse))
    return pairs
