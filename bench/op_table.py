"""Where the time of a captured graph goes: each distinct call timed as a graph of its own, over the addresses it really has."""

from __future__ import annotations

from typing import Any

from flashrt_core.hardware.hopper import denoise_loop
from flashrt_core.ops.schema import Code, Dim
from flashrt_core.ops.table import OPS, Epilogue

READ_TB_S = 4.46  # measured, one H200 (docs/performance.md)
RATE = {0: 50e12, 1: 780e12, 3: 1450e12}  # FLOP/s by input dtype code: fp32 without tensor cores, BF16, E4M3


def op_rows(machine: Any, launches: list[tuple[str, dict[str, Any]]], replays: int = 20) -> list[dict[str, Any]]:
    """One row per distinct (op, shape): count, us each, total ms, GB/s of compulsory traffic, % of the slower ceiling.

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
            dict(op=name, shape=text, count=len(calls), us=us, total_ms=us * len(calls) / 1000, gb_s=moved / us / 1000,
                 ceiling=bound_us / us)
        )  # fmt: skip
    return sorted(rows, key=lambda r: -r["total_ms"])


def cost(name: str, v: dict[str, Any]) -> tuple[int, int, float]:
    """(compulsory bytes, FLOPs, FLOP/s of its inputs' dtype) of a call."""
    if name in OPS:
        return OPS[name].bytes_moved(v), OPS[name].flops(v), RATE[v.get("a_dtype", v.get("dtype", 1))]
    return *denoise_loop.cost(v), RATE[v["act_dtype"]]


def label(name: str, values: dict[str, Any]) -> str:
    """`M=10 N=2560 K=1024 none e4m3->bf16`."""
    if name not in OPS:
        return f"{name} " + " ".join(f"{k}={v}" for k, v in values.items() if k in ("M", "L", "steps", "cache_rows", "act_dtype"))
    op = OPS[name]
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


def print_rows(rows: list[dict[str, Any]], top: int = 30) -> None:
    print(f"{'total ms':>8} {'us':>8} {'count':>5} {'GB/s':>6} {'% ceil':>6}  call")
    for r in rows[:top]:
        print(f"{r['total_ms']:8.3f} {r['us']:8.2f} {r['count']:5d} {r['gb_s']:6.0f} {100 * r['ceiling']:6.1f}  {r['shape']}")
    print(f"{sum(r['total_ms'] for r in rows):8.3f} sum of {sum(r['count'] for r in rows)} calls")
