"""Writes the tables of `bench/results/pi05_h200.json` into README and docs/performance.md, between the marks.

    python tools/perf_tables.py            # print the tables
    python tools/perf_tables.py --docs     # put them into the pages
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "pi05_h200.json"
DOCS = (ROOT / "README.md", ROOT / "docs" / "performance.md")
MAIN = {"model": "pi05", "views": 2, "chunk": 10, "num_steps": 10, "capacity": 48, "cache_frames": 1, "image_size": None}
BAR = {  # the targets and what the hardware allows, ms and cosine
    "bf16": {"must": 11.0, "cosine": 0.9999, "bound": 4.64},
    "fp8": {"must": 8.0, "goal": 5.0, "cosine": 0.9996, "bound": 2.47},
}
NODES, OVERHEAD_MS = 1200, 0.6
LABELS = {"bf16": "BF16", "fp8": "FP8"}
# A row of the second table: what it is called, and how it differs from MAIN.
VARIANTS = {
    "1 view": {"views": 1}, "3 views": {"views": 3}, "chunk 50": {"chunk": 50}, "5 steps": {"num_steps": 5},
    "prompt capacity 200": {"capacity": 200}, "`cache_frames` 2, mean of two calls": {"cache_frames": 2},
    "pictures 480 x 640, resized on the GPU": {"image_size": [480, 640]},
}  # fmt: skip
_BEGIN, _END = "<!-- performance {} -->\n", "<!-- end performance -->"


def find(rows: list[dict[str, Any]], precision: str, **changes: Any) -> dict[str, Any] | None:
    """The last row of MAIN's configuration with these changes; a column that a row lacks has MAIN's value."""
    want = MAIN | {"precision": precision} | changes
    found = [r for r in rows if all(r.get(k, MAIN.get(k)) == v for k, v in want.items())]
    return found[-1] if found else None


def sections(data: dict[str, Any]) -> dict[str, str]:
    """The Markdown tables by the name of their mark."""
    rows = data["rows"]
    return {"short": _short(rows), "main": _main(rows), "variants": _variants(rows), "made": _made(data)}


def _short(rows: list[dict[str, Any]]) -> str:
    fp8, bf16 = (find(rows, precision)["wall_ms_p50"] for precision in ("fp8", "bf16"))
    return (
        f"- Pi0.5 at full size answers in **{fp8:.2f} ms** (FP8) or **{bf16:.2f} ms** (BF16) on one H200: two camera pictures\n"
        "  in, ten actions out, 10 denoise steps, P50 of whole calls (random weights: the time does not depend on them).\n"
    )


def _main(rows: list[dict[str, Any]]) -> str:
    lines = ["| | replay P50 / P95 / P99 ms | wall P50 ms (`predict`) | graph nodes | cosine to fp32 |", "|---|---|---|---|---|"]
    for precision, label in LABELS.items():
        r = find(rows, precision)
        if r is None:
            continue
        replay = " / ".join(f"{r[f'replay_ms_{k}']:.2f}" for k in ("p50", "p95", "p99"))
        lines.append(f"| **{label}** | **{replay}** | {r['wall_ms_p50']:.2f} | {r['nodes']:,} | {r['cosine_fp32']:.6f} |")
    for precision, label in LABELS.items():
        b = BAR[precision]
        goal = f", goal {b['goal']:g}" if "goal" in b else ""
        lines.append(f"| target, {label} | {b['must']:g}{goal} | replay + {OVERHEAD_MS} | {NODES:,} | {b['cosine']} |")
    bounds = " / ".join(f"{BAR[p]['bound']}" for p in LABELS)
    lines.append(f"| lower bound, BF16 / FP8: weights and FLOPs at measured rates | {bounds} | | | |")
    return "\n".join(lines) + "\n"


def _variants(rows: list[dict[str, Any]]) -> str:
    lines = ["| change | BF16 replay (wall) ms | FP8 replay (wall) ms |", "|---|---|---|"]
    for label, change in VARIANTS.items():
        cells = []
        for precision in LABELS:
            r = find(rows, precision, **change)
            replay = None if r is None else r.get("replay_ms_mean", r["replay_ms_p50"])
            wall = None if r is None else r["wall_ms_mean"] if "replay_ms_mean" in r else r["wall_ms_p50"]
            cells.append("-" if r is None else f"{replay:.2f} ({wall:.2f})")
        if cells != ["-", "-"]:
            lines.append(f"| {label} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def _made(data: dict[str, Any]) -> str:
    gpu, versions = data.get("gpu"), data.get("versions", {})
    name = gpu if isinstance(gpu, str) else f"{gpu['name']}, driver {gpu['driver']}, {gpu['sm_mhz']} / {gpu['mem_mhz']} MHz"
    row = next((r for p in LABELS if (r := find(data["rows"], p))), data["rows"][0])
    torch = versions.get("torch", data.get("torch", "?"))
    return f"Made with `{data.get('command', '?')}` on {name}; torch {torch}; commit {row['commit']}, {row['date']}.\n"


def fill(text: str, data: dict[str, Any]) -> str:
    """The page with each table between its marks replaced. KeyError for a mark without a table."""
    tables = sections(data)
    out, at = [], 0
    while (start := text.find("<!-- performance ", at)) >= 0:
        name = text[start + 17 : text.index(" -->", start)]
        body = start + len(_BEGIN.format(name))
        end = text.index(_END, body)
        out += [text[at:body], tables[name]]
        at = end
    return "".join(out) + text[at:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="write the tables into README.md and docs/performance.md")
    parser.add_argument("--file", type=Path, default=RESULT, help="the result file")
    args = parser.parse_args()
    data = json.loads(args.file.read_text())
    if args.docs:
        for path in DOCS:
            path.write_text(fill(path.read_text(encoding="utf-8"), data), encoding="utf-8")
    else:
        sys.stdout.write("\n".join(f"{name}\n{table}" for name, table in sections(data).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
