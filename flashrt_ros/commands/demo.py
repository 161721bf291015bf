"""`flashrt demo`: the bundled policy in closed loop, with progress and a table of figures."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from flashrt_core.errors import ConfigError

from ._console import open_console

HELP = """run the bundled policy in closed loop in the simulated tabletop task
examples:
  flashrt demo                                        20 episodes, report in demo-out/
  flashrt demo --episodes 200 --jobs 2                the whole evaluation, on two cores
  flashrt demo --latency-ms 100 --splice quintic      a slow model, chunks joined smoothly
  flashrt demo --precision fp8                        FP8 E4M3 emulated by rounding
  flashrt demo --episodes 3 --view                    watch it

Time is simulated: a tick takes as long as it takes, and --latency-ms is added exactly, so a seed gives the same
episodes again. --realtime paces the loop at 20 Hz of the wall clock with the policy on a thread of its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--seed", type=int, default=500_000, help="seed of the first episode (default 500000)")
    parser.add_argument("--precision", default="fp32", help="fp32 (default) or fp8 (emulated)")
    parser.add_argument(
        "--splice", default="none", help="how chunks are joined: none (default), linear, quintic, temporal_fusion"
    )
    parser.add_argument("--latency-ms", type=float, default=0.0, metavar="MS", help="delay added to each policy call")
    parser.add_argument("--renderer", default="ray", help="ray (default, no system library) or gl (OpenGL)")
    parser.add_argument("--view", action="store_true", help="show the episodes live, in a window or in this terminal")
    parser.add_argument("--realtime", action="store_true", help="pace ticks by the wall clock")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default demo-out")
    parser.add_argument("--checkpoint", metavar="DIR", help="a checkpoint trained on this task (default: the bundled)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads a process (default 1)")


def run(args: argparse.Namespace) -> int:
    from ..evaluation.closed_loop import LoopSettings
    from ..evaluation.demo import run_demo
    from ..evaluation.rollout import Rollout, checkpoint_folder
    from ..evaluation.view import open_view

    _check_demo_packages()
    console = open_console()
    loop = LoopSettings(splice=args.splice, latency_ms=args.latency_ms, realtime=args.realtime)
    what = Rollout(
        checkpoint=args.checkpoint, precision=args.precision, renderer=args.renderer, threads=args.threads, loop=loop
    )
    checkpoint_folder(args.checkpoint)
    watch = open_view(console) if args.view else None
    from ._progress import EpisodeProgress

    with EpisodeProgress(console, args.episodes, hidden=args.view) as progress:
        output = run_demo(
            what, episodes=args.episodes, seed=args.seed, out=args.out, jobs=args.jobs,
            on_episode=progress.episode_done, watch=watch, command=command_line(sys.argv[1:]),
        )  # fmt: skip
    console.print(result_table(output.result))
    console.print("wrote " + ", ".join(str(f) for f in output.files))
    return 0


def command_line(argv: list[str]) -> str:
    """The command that repeats this run."""
    return "flashrt " + shlex.join(argv) if argv and argv[0] == "demo" else "flashrt demo"


def _check_demo_packages() -> None:
    """Say what to install when the demo extra is missing."""
    from importlib.util import find_spec

    missing = [name for name in ("mujoco", "PIL") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "demo", expected="the packages of the demo extra", found=f"{', '.join(missing)} missing",
            hint="In the checkout, run: make demo, or pip install -e '.[demo]'",
        )  # fmt: skip


def result_table(r: dict[str, object]):
    """The figures as a rich table."""
    from rich import box
    from rich.table import Table

    def ms(values: dict[str, float | None]) -> str:
        return "  ".join(f"{k.upper()} {v:.1f}" for k, v in values.items() if v is not None) + " ms"

    def number(v: float | int | None) -> str:
        return "-" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v)

    b, (low, high) = r["boundary"], r["success_wilson95"]
    rate = "-" if r["success_rate"] is None else f"{100 * r['success_rate']:.1f} %"
    interval = f"{100 * low:.1f}-{100 * high:.1f} %"
    emulated = " emulated" if r["precision"] == "fp8" else ""
    pace = "wall clock" if r["realtime"] else f"simulated time, {r['latency_ms']:g} ms added latency"
    law = "-" if b["cb6_index_law"] is None else f"{100 * b['cb6_index_law']:.0f} %"
    errors = f", {r['errors']} with errors left out" if r["errors"] else ""
    rows = [
        ("success", f"[bold]{rate}[/]  {r['successes']}/{r['episodes']}, 95 % interval {interval}{errors}"),
        ("model latency", ms(r["model_latency_ms"])),
        ("tick misses", f"{r['tick_misses']} of {r['ticks']} control ticks"),
    ]  # fmt: skip
    if r["realtime"]:
        rows.append(("tick lateness", ms(r["tick_late_ms"])))
    rows += [
        ("chunk boundaries", f"{b['switches']} switches"),
        ("  CB1 acceleration, boundary/rest", f"{number(b['cb1_ratio'])}, median axis {number(b['cb1_ratio_median'])}"),
        ("  CB2 over the speed limit", f"{number(b['cb2_violations'])} samples"),
        ("  CB3 step over the speed limit", f"{number(b['cb3_step_over'])} m"),
        ("  CB4 disagreement of chunks", f"mean {number(b['cb4_mean'])} m, max {number(b['cb4_max'])} m"),
        ("  CB5 largest jerk", f"{number(b['cb5_jerk'])} m/s³"),
        ("  CB6 switches at the elapsed tick", law),
        ("precision, hardware", f"{r['precision']}{emulated}, {r['hardware']} ({r['machine']['cpu']})"),
        ("splice, pace", f"{r['splice']}, {pace}"),
        ("seeds, renderer, version", f"{r['seed']}+, {r['renderer']}, {r['version']}"),
    ]  # fmt: skip
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(*row)
    return table
