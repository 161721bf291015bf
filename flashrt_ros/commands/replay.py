"""`flashrt replay`: a policy run over recorded bags, with progress, a table of figures and a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from ._console import open_console
from ._disk import disk_errors

EXIT_WORSE, EXIT_LOSS = 1, 3
HELP = """run a policy over recorded rosbags and compare what it says with what was done
examples:
  flashrt replay recording/ --robot my_robot.yaml --checkpoint DIR      report in replay-out/
  flashrt replay recording/ --robot tabletop --latency 80               the policy takes 80 ms
  flashrt replay recording/ --robot tabletop --latency measured         as long as it takes on this machine
  flashrt replay bags/ --robot tabletop --jobs 4                        a folder of bags, in four processes
  flashrt replay recording/ --robot tabletop --compare fp32 fp8         may FP8 take the place of FP32?
  flashrt replay recording/ --robot tabletop --compare DIR_A DIR_B --margin 0.05

The policy is asked at the ticks at which the node would have asked it, with the images, state and prompt that the node
would have had (same checks, same ages, log time as the clock). Nothing is sent to a robot, the recorded robot does what it
did. --compare takes splice strategies, precisions, checkpoint folders, or key=value pairs (checkpoint, precision, splice,
profile, hardware, latency, replan_ticks) joined by commas.

Bags are rosbag2 (mcap, sqlite3) and need no ROS install. Exit codes: 0 done; 1 B is worse than A by more than --margin, or
it is not shown that it is not; 2 bad input, said before a model is loaded; 3 the recording has losses (--allow-loss)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help="rosbag2 folder or file, or a folder of bags")
    parser.add_argument("--robot", required=True, help="robot file by name or path: topics, joints, limits")
    parser.add_argument("--checkpoint", metavar="DIR", help="checkpoint folder (default: the bundled policy)")
    parser.add_argument("--policy", default="pi05", help="policy file by name or path (default pi05)")
    parser.add_argument("--profile", help="profile name or file, for checkpoints that do not say how they were trained")
    parser.add_argument("--precision", help="fp32, fp8 or auto (default: the policy file's)")
    parser.add_argument("--hardware", help="auto, host or an arch (default: the policy file's)")
    parser.add_argument(
        "--latency", default="0", metavar="MS",
        help="of each request: a number of ms (default 0), a range as 40..120 drawn from the seed, or measured",
    )  # fmt: skip
    parser.add_argument("--splice", help="none, linear, quintic, temporal_fusion (default: the node's); all are reported")
    parser.add_argument("--replan-ticks", type=int, metavar="N", help="actions between requests (default: half a chunk)")
    parser.add_argument("--prompt", default="", help="the task in words, where the bag does not say it")
    parser.add_argument("--command-topic", default="", metavar="TOPIC", help="recorded commands (default: the robot file's)")
    parser.add_argument("--gap-s", type=float, default=0.5, metavar="S", help="a pause so long ends an episode (default 0.5)")
    parser.add_argument("--node", default="policy_node", metavar="NAME", help="node that ~ stands for in topic names")
    parser.add_argument("--seed", type=int, default=0, help="of the policy's noise and of drawn latencies (default 0)")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two policies, precisions or splice strategies")
    parser.add_argument("--margin", type=float, default=0.05, help="how much larger B's error may be (default 0.05: 5 %%)")
    parser.add_argument("--allow-loss", action="store_true", help="a cut or damaged recording is no failure")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes for several bags (default 1)")
    parser.add_argument("--ray", metavar="ADDRESS", help="play the bags on a Ray cluster (auto, local or its address)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="PyTorch threads a process (default 1)")
    parser.add_argument("--rerun", action="store_true", help="write replay.rrd for the Rerun viewer too")
    parser.add_argument("--out", type=Path, default=Path("replay-out"), metavar="DIR", help="default replay-out")


def run(args: argparse.Namespace) -> int:
    from ..replay.compare import variant
    from ..replay.replay import How, compare, replay
    from ._replay_progress import ReplayProgress

    console = open_console()
    settings = settings_from(args)
    line = "flashrt " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["replay"] else "flashrt replay"
    progress = ReplayProgress(console)
    how = How(args.jobs, args.ray, args.rerun, progress.phase, progress.tick, progress.bag_done)
    with disk_errors(args.out), progress:
        if args.compare:
            a, b = args.compare
            sides = variant(a, settings), variant(b, settings)
            output = compare(args.bags, sides, (a, b), args.margin, args.out, how, line)
        else:
            output = replay(args.bags, settings, args.out, how, line)
    console.print(result_table(output.played.result, output.played.timing))
    console.print(boundary_table(output.played.result))
    for lost in output.played.result["bags"]:
        for f in lost["findings"]:
            console.print(f"{lost['bag']}: {f['fault']} {f['text']}", style="yellow", markup=False)
    if output.verdict is not None:
        console.print(output.verdict.sentence, style="green" if output.verdict.passes else "red", markup=False)
    console.print("wrote " + ", ".join(str(f) for f in output.files))
    if output.lost:
        names = ", ".join(output.lost)
        sys.stderr.write(f"flashrt replay: messages are missing in {names}: see above (--allow-loss accepts this)\n")
        return EXIT_LOSS
    return EXIT_WORSE if output.verdict is not None and not output.verdict.passes else 0


def settings_from(args: argparse.Namespace):
    """ReplaySettings of a command line. Raises ConfigError."""
    from dataclasses import replace

    from ..config.config_file import load_node, load_policy, load_robot
    from ..replay.compare import PRECISIONS, choose
    from ..replay.settings import Latency, ReplaySettings

    robot, policy = load_robot(args.robot), load_policy(args.policy)
    given = {k: getattr(args, k) for k in ("checkpoint", "profile", "hardware") if getattr(args, k)}
    if args.precision:
        given["precision"] = choose("precision", args.precision, PRECISIONS)
    node = {"control_hz": robot.control_hz, "worker": "inprocess", "prompt": args.prompt}
    node |= {k: v for k, v in (("splice", args.splice), ("replan_ticks", args.replan_ticks)) if v is not None}
    return ReplaySettings(
        robot, replace(policy, **given), load_node(**node), Latency(args.latency), args.seed, args.node, args.command_topic,
        gap_s=args.gap_s, threads=args.threads, allow_loss=args.allow_loss,
    )  # fmt: skip


def result_table(r: Mapping, timing: Mapping):
    """The figures as a rich table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def ms(values: Mapping[str, float | None]) -> str:
        return "  ".join(f"{k.upper()} {v:.1f}" for k, v in values.items() if v is not None) + " ms"

    def share(v: float | None) -> str:
        return "-" if v is None else f"{100 * v:.3g} %"

    error, asked = r["action_error"]["all"], r["not_asked"]
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for key, words in (("served", "served commands"), ("chunk", "whole chunks"), ("first", "the first step")):
        e = error[key]
        table.add_row(f"error of {words}", f"[bold]{share(e['mae'])}[/]  P99 {share(e['p99'])}, max {share(e['max'])}, normalised")
    reasons = ", ".join(f"{k} {v}" for part in asked.values() for k, v in part.items())
    table.add_row("requests", f"{r['requests']} in {r['ticks']} ticks, {r['episodes']} episode(s), {r['duration_s']:.1f} s")
    if r["compared_ticks"] < r["ticks"]:
        table.add_row("recorded commands", f"in {r['compared_ticks']} of them, at the robot file's {r['control_hz']:g} Hz")
    table.add_row("ticks that could not ask", reasons or "none")
    unusable = ", ".join(f"{k} {v}" for part in (r["refused_messages"], r["unreadable_messages"]) for k, v in part.items())
    if unusable:
        table.add_row("messages not used", Text(unusable))
    for fault, why in r["reasons"].items():
        table.add_row("", Text(f"{fault}: {why}", "yellow"))
    table.add_row("model latency", f"{ms(timing['model_latency_ms'])}, {timing['hardware']}")
    table.add_row("observation to action", f"{ms(r['observation_to_action_ms'])} in the bag's time, latency {r['latency_ms']}")
    limits = r["limits"]
    outside, changed = sum(limits["rows_outside_range"].values()), sum(limits["commands_changed_by_the_guard"].values())
    table.add_row("limits", f"{outside} numbers of {limits['rows']} rows outside their range, {changed} changed by the guard")
    if r["runner"]:
        table.add_row("runner", ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in r["runner"].items()))
    if r["faults"]:
        table.add_row("noted", ", ".join(f"{k} {v}" for k, v in r["faults"].items()))
    table.add_row("speed", f"{timing['ticks_per_s']} ticks/s, {timing['wall_s']:.1f} s")
    worst = sorted(r["action_error"]["joints"].items(), key=lambda j: -(j[1]["chunk"]["mae_normalised"] or 0))[:4]
    table.add_row("largest chunk errors", ", ".join(f"{n} {share(j['chunk']['mae_normalised'])}" for n, j in worst))
    return table


def boundary_table(r: Mapping):
    """CB1-CB6, a column per splice strategy."""
    from rich import box
    from rich.table import Table

    from ..evaluation.html import short_number
    from ..replay.page import BOUNDARY_ROWS

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("chunk boundaries", style="dim")
    for name in r["boundary"]:
        table.add_column(name, justify="right")
    table.add_column("goal", style="dim")
    for key, name, words, goal in BOUNDARY_ROWS:
        table.add_row(f"{name:3} {words}", *(short_number(v[key]) for v in r["boundary"].values()), goal)
    return table
