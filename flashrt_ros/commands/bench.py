"""`flashrt bench`: latency of a policy on this machine, replay and wall clock apart, and what became better or worse."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashrt_core.errors import ConfigError

from ._console import open_console

HELP = """latency of replay and of predict on this machine, as a table and as JSON
examples:
  flashrt bench                                           the bundled policy
  flashrt bench --random full --out h200.json             Pi0.5 at its published sizes, random weights
  flashrt bench --random full --sweep --compare old.json  every reported configuration; exit code 3 when one got slower
  flashrt bench --from new.json --compare old.json        two files, nothing is run

replay is the captured CUDA graph between two events; wall is a whole predict: pictures in, actions out.
"""
EXIT_SLOWER = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", metavar="DIR", help="default: the bundled policy")
    weights.add_argument("--random", metavar="SIZE", help="random weights of these sizes: full, demo or tiny")
    weights.add_argument("--from", dest="source", type=Path, metavar="FILE", help="run nothing, take the rows of a result file")
    parser.add_argument("--hardware", default="auto", help="auto (default: the GPU, else host) or an arch, e.g. host")
    parser.add_argument("--precision", nargs="+", metavar="P", help="fp32, bf16, fp8 (default: what the hardware has)")
    parser.add_argument("--views", type=int, help="cameras (default: 2, or the checkpoint's)")
    parser.add_argument("--chunk", type=int, help="actions of a chunk (random weights)")
    parser.add_argument("--num-steps", type=int, help="denoise steps")
    parser.add_argument("--capacity", type=int, help="rows reserved for the prompt (random weights)")
    parser.add_argument("--prompt-len", type=int, help="tokens of the prompt (random weights; default: the capacity)")
    parser.add_argument("--cache-frames", type=int, default=1, help="run images and prompt on every n-th call only")
    parser.add_argument("--image-size", metavar="HxW", help="of the cameras' pictures, e.g. 480x640 (default: the model's)")
    parser.add_argument("--sweep", action="store_true", help="also 1 and 3 views, chunk 50, 5 steps, capacity 200, cached frames")
    parser.add_argument("--replays", type=int, default=200, help="measured calls of each kind (default 200)")
    parser.add_argument("--warmup", type=int, default=30, help="calls before the first measured one (default 30)")
    parser.add_argument("--autotune", type=int, default=3, help="0 off, 3 default, 5 thorough")
    parser.add_argument("--threads", type=int, help="of PyTorch, on the host")
    parser.add_argument("--no-ops", action="store_true", help="leave out the table of ops (GPU)")
    parser.add_argument("--no-exact", action="store_true", help="leave out the comparison with fp32")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the result file")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of tables")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="an earlier result file; exit code 3 when a row is worse")
    parser.add_argument("--margin", type=float, default=0.03, help="how much slower still counts as equal (default 0.03)")


def run(args: argparse.Namespace) -> int:
    from flashrt_core.bench.compare import compare, read_results, write_results

    old = read_results(args.compare) if args.compare else None  # before minutes are spent on the other side
    ops: dict[str, Any] = {}
    if args.source:
        rows = read_results(args.source)
    else:
        rows, ops, rest = _measure(args)
        if args.out:
            write_results(args.out, rows, **rest)
    if args.json:
        import json

        print(json.dumps({"rows": rows}, allow_nan=False))
    else:
        console = open_console()
        _print_ops(console, ops)
        console.print(_rows_table(rows))
    if old is None:
        return 0
    pairs = compare(old, rows, args.margin)
    if not pairs:
        raise ConfigError(
            args.compare.name, expected="a row of the same GPU and configuration", found="none", hint="Compare like with like"
        )
    if not args.json:
        console.print(_pairs_table(pairs, args.margin))
    return EXIT_SLOWER if any(p.worse for p in pairs) else 0


def _measure(args: argparse.Namespace) -> tuple[list[dict], dict[str, list[dict]], dict[str, Any]]:
    """(rows, per-op tables by precision, further keys of the result file) of every case asked for."""
    from flashrt_core.bench.case import sweep
    from flashrt_core.bench.facts import gpu_facts, versions
    from flashrt_core.bench.run import Effort, run_case

    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    effort = Effort(args.replays, args.warmup, not args.no_ops, not args.no_exact, args.autotune)
    rows, ops = [], {}
    for base in _cases(args):
        for n, case in enumerate(sweep(base) if args.sweep else [base]):
            this = effort if n == 0 else dataclasses.replace(effort, ops=False)
            done = run_case(case, args.hardware, this, say=lambda text, c=case: _say(f"{c.precision}: {text}"))
            rows.append(done.row)
            if done.ops:
                ops[case.precision] = done.ops
            _say(f"{case.precision}: {_line(done.row)}")
    command = "flashrt " + shlex.join(sys.argv[1:]) if len(sys.argv) > 1 else "flashrt bench"
    return rows, ops, {"command": command, "gpu": gpu_facts(), "versions": versions(), "ops": ops}


def _cases(args: argparse.Namespace) -> list[Any]:
    from flashrt_core.bench.case import Case
    from flashrt_core.hardware import detect_arch

    from ..evaluation.rollout import checkpoint_folder

    for name in ("replays", "warmup"):
        if not 1 <= getattr(args, name) <= 1_000_000:
            raise ConfigError(f"--{name}", expected="1 or more", found=getattr(args, name))
    arch = detect_arch() if args.hardware == "auto" else args.hardware
    precisions = args.precision or (["fp32", "fp8"] if arch == "host" else ["bf16", "fp8"])
    weights = args.random or str(checkpoint_folder(args.checkpoint))
    return [
        Case(
            weights, precision, views=args.views or 2, chunk=args.chunk, num_steps=args.num_steps, capacity=args.capacity,
            prompt_len=args.prompt_len, cache_frames=args.cache_frames, image_size=_size(args.image_size),
            random=args.random is not None,
        )
        for precision in precisions
    ]  # fmt: skip


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit()):
        raise ConfigError("--image-size", expected="rows x columns, for example 480x640", found=repr(text))
    return int(height), int(width)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _line(row: dict[str, Any]) -> str:
    replay = "" if row["replay_ms_p50"] is None else f"replay P50 {row['replay_ms_p50']:.3f} ms, "
    return f"{_setting(row)}: {replay}wall P50 {row['wall_ms_p50']:.3f} ms"


def _setting(row: Mapping[str, Any]) -> str:
    views = "1 view" if row["views"] == 1 else f"{row['views']} views"
    return ", ".join([views, f"chunk {row['chunk']}", f"{row['num_steps']} steps", *_others(row)])


def _others(row: Mapping[str, Any]) -> list[str]:
    """What few rows have: frames that are kept, pictures of another size."""
    frames, size = row.get("cache_frames", 1), row.get("image_size")
    words = [f"cache {frames}"] if frames > 1 else []
    return words + ([f"{size[0]}x{size[1]}"] if size else [])


def _table(columns: list[str], rows: list[list[str]], left: int = 1):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < left else "right", no_wrap=i > 0)
    for row in rows:
        table.add_row(*row)
    return table


def _rows_table(rows: list[dict[str, Any]]):
    columns = ["model", "precision", "views", "chunk", "steps", "prompt", "other", "replay ms\nP50 / P95 / P99",
               "wall ms\nP50 / P95", "nodes", "cosine"]  # fmt: skip
    lines = []
    for r in rows:
        replay = [r.get(f"replay_ms_{k}") for k in ("p50", "p95", "p99")]
        lines.append([
            r["model"], r["precision"], *(str(r[k]) for k in ("views", "chunk", "num_steps")),
            f"{r['prompt_len']}/{r.get('capacity', '?')}", " ".join(_others(r)),
            "-" if replay[0] is None else " / ".join(f"{v:.3f}" for v in replay if v is not None),
            f"{r['wall_ms_p50']:.3f} / {r.get('wall_ms_p95', float('nan')):.3f}",
            str(r["nodes"] or "-"), "-" if r["cosine_fp32"] is None else f"{r['cosine_fp32']:.6f}",
        ])  # fmt: skip
    return _table(columns, lines, left=2)


def _print_ops(console: Any, ops: dict[str, list[dict[str, Any]]], top: int = 30) -> None:
    for precision, rows in ops.items():
        console.print(f"\n{precision}: ops of one replay, each row timed alone over its real addresses")
        lines = [
            [r["shape"], f"{r['total_ms']:.3f}", f"{r['us']:.2f}", str(r["count"]), f"{r['bytes']:,}", f"{r['gb_s']:.0f}",
             f"{100 * r['ceiling']:.0f} %"]
            for r in rows[:top]
        ]  # fmt: skip
        lines.append(["sum", f"{sum(r['total_ms'] for r in rows):.3f}", "", str(sum(r["count"] for r in rows)), "", "", ""])
        console.print(_table(["call", "ms", "us each", "count", "bytes", "GB/s", "of ceiling"], lines))


def _pairs_table(pairs: list[Any], margin: float):
    from flashrt_core.bench.case import KEY

    lines = []
    for p in pairs:
        word = "WORSE" if p.worse else "better" if p.ratio < 1 - margin and p.figure != "cosine_fp32" else ""
        row = dict(zip(KEY, p.key, strict=True))
        setting = f"{row['precision']} {_setting(row)}, prompt {row['prompt_len']}/{row['capacity']}"
        lines.append([setting, p.figure, f"{p.old:.6g}", f"{p.new:.6g}", f"{p.ratio:.3f}", word])
    return _table(["configuration", "figure", "before", "now", "ratio", ""], lines, left=2)
