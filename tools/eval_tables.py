"""The Markdown tables of `bench/results/tabletop_eval.json`, and how they get into README and docs."""

from __future__ import annotations

import re

from flashrt_core.runtime.chunk import SPLICES
from flashrt_ros.evaluation.closed_loop import ABLATIONS

LATENCIES_MS = (0, 50, 100, 200, 400)
LABELS = {"fp32": "fp32", "fp8": "FP8 E4M3, emulated by rounding"}
MARKED = re.compile(r"(<!-- figures (\w+) -->\n)(.*?)(<!-- end figures -->)", re.DOTALL)


def sections(data: dict) -> dict[str, str]:
    """Every table that the data is complete for, by the name that marks its place in the docs."""
    runs = data["runs"]
    made = {
        "precision": _precision(runs, data),
        "latency": _latency(runs),
        "boundary": _boundary(runs),
        "ablation": _ablation(runs),
    }
    return {name: text for name, text in made.items() if text}


def fill(text: str, data: dict) -> str:
    """`text` with the table of each `<!-- figures NAME -->` ... `<!-- end figures -->` put in. KeyError without it."""
    made = sections(data)
    return MARKED.sub(lambda m: f"{m[1]}{made[m[2]]}\n{m[4]}", text)


def percent(run: dict) -> str:
    """`99.0 % (198/200)`."""
    return f"{100 * run['success_rate']:.1f} % ({run['successes']}/{run['episodes']})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _precision(runs: dict, data: dict) -> str:
    if not {"fp32", "fp8"} <= runs.keys() or "fp8_vs_fp32" not in data:
        return ""
    rows = []
    for name, label in LABELS.items():
        r = runs[name]
        low, high = r["success_wilson95"]
        ms = r["model_latency_ms"]
        rows.append([label, percent(r), f"{100 * low:.1f}-{100 * high:.1f} %", f"{ms['p50']:.0f} / {ms['p95']:.0f} ms",
                     f"{r['mean_steps']:.1f}"])  # fmt: skip
    c = data["fp8_vs_fp32"]
    head = ["precision", "success", "Wilson 95 %", "policy latency P50 / P95, one core", "mean steps"]
    return (
        _table(head, rows)
        + f"\n\nFP8 minus fp32 on the same {c['n']} seeds: {100 * c['difference']:+.1f} points, 95 % interval "
        f"{100 * c['low']:+.1f} to {100 * c['high']:+.1f}, McNemar p = {c['p_value']:.2f}. "
        f"Machine: {runs['fp32']['machine']['cpu']}, one thread."
    )


def _latency(runs: dict) -> str:
    rows = []
    for splice in SPLICES:
        cells = [runs.get(f"latency/{splice}/{ms}") for ms in LATENCIES_MS]
        if None in cells:
            return ""
        rows.append([f"`{splice}`", *map(percent, cells)])
    return _table(["splice", *(f"{ms} ms" for ms in LATENCIES_MS)], rows)


def _boundary(runs: dict) -> str:
    names = [f"latency/{splice}/100" for splice in SPLICES]
    if not {"latency/none/0", *names} <= runs.keys():
        return ""
    base = runs["latency/none/0"]["boundary"]["cb5_jerk"]
    rows = []
    for splice, name in zip(SPLICES, names, strict=True):
        b = runs[name]["boundary"]
        cells = (
            f"{b['cb1_ratio']:.2f}", str(b["cb2_violations"]), f"{1000 * b['cb3_step_over']:.1f} mm",
            f"{1000 * b['cb4_mean']:.1f} mm", f"{b['cb5_jerk'] / base:.2f}", f"{100 * b['cb6_index_law']:.0f} %",
        )  # fmt: skip
        rows.append([f"`{splice}`", *cells])
    head = ["splice, 100 ms", "CB1", "CB2", "CB3", "CB4 mean", "CB5 / synchronous", "CB6"]
    return _table(head, rows)


def _ablation(runs: dict) -> str:
    if not {f"ablation/{n}" for n in ABLATIONS} <= runs.keys():
        return ""
    return _table(["taken away", "success"], [[n, percent(runs[f"ablation/{n}"])] for n in ABLATIONS])
