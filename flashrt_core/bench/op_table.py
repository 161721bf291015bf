"""Where the time of a captured graph goes: each distinct call timed as a graph of its own, over the addresses it really has."""

from __future__ import annotations

from typing import Any

from ..ops.schema import Code, Dim
from ..ops.table import OPS, Epilogue
from ..types import BF16, E4M3, F32

# Measured ceilings of one H200 (docs/performance.md); on another GPU the last column is a comparison with an H200.
READ_TB_S = 4.46
RATE = {F32: 50e12, BF16: 780e12, E4M3: 1450e12}  # FLOP/s by input dtype: fp32 without tensor cores

_SIZES = ("M", "L", "steps", "D", "mlp", "KV", "cache_rows")  # of a call that is no row of the op table


def op_rows(machine: Any, launches: list[tuple[str, dict[str, Any]]], replays: int = 20) -> list[dict[str, Any]]:
    """One row per distinct (op, shape): count, us each, total ms, bytes of compulsory traffic, GB/s, share of the slower ceiling.

    All calls of a row are captured in order into one graph, so that weights come from memory as in the model's own graph.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, values in launches:
        groups.setdefault(label(name, values), []).append({"op": name, **values})
    rows = []
    for text, calls in groups.items():
        graph = machine.ctx.graph("row")
        name = calls[0]["op"]

        def record(stream: int, name: str = name, calls: list[dict[str, Any]] = calls) -> None:
            for c in calls:
                getattr(machine.ops, name)(**{k: v for k, v in c.items() if k not in ("op", "stream")}, stream=stream)

        graph.capture(0, record)
        us = 1000 * timed_ms(machine, lambda graph=graph: graph.replay(0), replays) / len(calls)
        moved, flops, rate = cost(name, calls[0])
        bound_us = 1e6 * max(moved / (READ_TB_S * 1e12), flops / rate)
        rows.append(
            {
                "op": name, "shape": text, "count": len(calls), "us": round(us, 3), "total_ms": round(us * len(calls) / 1000, 4),
                "bytes": moved, "gb_s": round(moved / us / 1000, 1), "ceiling": round(bound_us / us, 4),
            }
        )  # fmt: skip
    return sorted(rows, key=lambda r: -r["total_ms"])


def cost(name: str, v: dict[str, Any]) -> tuple[int, int, float]:
    """(compulsory bytes, FLOPs, FLOP/s of its inputs' dtype) of a call."""
    if name in OPS:
        return OPS[name].bytes_moved(v), OPS[name].flops(v), RATE.get(v.get("a_dtype", v.get("dtype")), RATE[BF16])
    return 0, 0, RATE[BF16]  # no row says what it moves


def label(name: str, values: dict[str, Any]) -> str:
    """`M=10 N=2560 K=1024 none e4m3->bf16`."""
    op = OPS.get(name)
    if op is None:
        return " ".join([name, *(f"{k}={v}" for k, v in values.items() if k in _SIZES)])
    words = [f"{a.name}={values[a.name]}" for a in op.args if isinstance(a, Dim) and a.name not in ("rows", "vocab")]
    for a in op.args:
        if isinstance(a, Code) and a.name == "epilogue":
            words.append(Epilogue(values[a.name]).name.lower())
        elif isinstance(a, Code):
            words.append(f"{a.name.removesuffix('dtype')}{'f32 bf16 f16 e4m3 i8 u8 i32'.split()[values[a.name]]}")
    return f"{name} {' '.join(words)}"


def timed_ms(machine: Any, call: Any, repeats: int) -> float:
    """Median milliseconds of `call` by events on the machine's stream."""
    times = []
    for _ in range(repeats + 3):
        begin, end = machine.ctx.event(), machine.ctx.event()
        begin.record()
        call()
        end.record()
        times.append(end.ms_since(begin))
    return sorted(times[3:])[repeats // 2]
