"""`flashrt bag`: what is in a recording, whether it is whole, and conversion from and to training datasets."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..bags.findings import Finding
from ..bags.survey import HINTS, Survey
from . import bag_convert
from ._console import open_console
from ._disk import disk_errors
from ._progress import CountProgress

EXIT_LOSS = 3
HELP = """look into rosbag2 recordings, check and convert them (no ROS needed)
examples:
  flashrt bag info BAG --robot tabletop     topics, rates, gaps, and what the robot file finds in it
  flashrt bag check BAG                     cut, damaged or out of order? exit code 3 when messages are lost
  flashrt bag convert BAG --robot R --out DATASET --to lerobot-v3

BAG is a rosbag2 folder or a bare .mcap or .db3 file, compressed or not. `flashrt bag COMMAND --help` says more."""

INFO = """show topics, rates, gaps, files and findings of a recording
examples:
  flashrt bag info BAG
  flashrt bag info BAG --robot tabletop --json | less

The whole bag is read and its CRCs are checked. longest gap: the longest time between two messages of a topic."""

CHECK = """find what is wrong with a recording, one line each, with what to do about it
examples:
  flashrt bag check BAG
  flashrt bag check BAG --robot tabletop    topics of the robot file that are missing count as well (F79)
  flashrt bag check BAG --allow-loss        exit code 0 although messages are lost

exit codes: 0 whole (F78, F80 and F81 are only said); 3 messages are lost (F76, F77); 2 nothing can be read, or a topic
of the robot file is missing (F79). `flashrt health --table F76 F77` explains the faults."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sub = parser.add_subparsers(dest="bag_command", metavar="COMMAND", title="commands", required=True)
    for name, text, add, run_it in (
        ("info", INFO, _add_reading, _info), ("check", CHECK, _add_check, _check),
        ("convert", bag_convert.HELP, bag_convert.add_arguments, bag_convert.run),
    ):  # fmt: skip
        first, _, rest = text.partition("\n")
        child = sub.add_parser(
            name, help=first, description=first, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add(child)
        child.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error"
        )
        child.set_defaults(run_bag=run_it)


def run(args: argparse.Namespace) -> int:
    return args.run_bag(args)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", metavar="BAG", help="rosbag2 folder, .mcap or .db3 file")
    parser.add_argument("--robot", metavar="R", help="robot file by name or path: look for its topics")
    parser.add_argument("--node", default="policy_node", help="node whose ~/topics are meant (default policy_node)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_reading(parser)
    parser.add_argument("--allow-loss", action="store_true", help="lost messages are said, but not an error")


def _survey(args: argparse.Namespace) -> Survey:
    from ..bags.survey import survey
    from ..config.config_file import load_robot

    robot = None if args.robot is None else load_robot(args.robot)
    with disk_errors(Path(args.bag)), CountProgress(open_console(), "messages", hidden=args.json) as progress:
        return survey(args.bag, robot, args.node, progress.at)


def _info(args: argparse.Namespace) -> int:
    found = _survey(args)
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
        return 0
    console = open_console()
    for file in found.files:
        crc = "CRC checked" if file["crc"] else "no CRC"
        chunks = f", {file['chunks']} chunks" if file["storage"] == "mcap" else ""
        console.print(f"{file['name']}  {file['storage']}, {file['compression']}, {file['bytes'] / 1e6:.1f} MB{chunks}, {crc}",
                      markup=False)  # fmt: skip
    total = sum(t.count for t in found.topics.values())
    console.print(f"{total} messages of {len(found.topics)} topics in {found.duration_s:.3f} s")
    console.print(_topic_table(found))
    if found.wanted:
        console.print(_robot_table(found))
    _print_findings(console, found.findings)
    return 0


def _check(args: argparse.Namespace) -> int:
    found = _survey(args)
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        console = open_console()
        _print_findings(console, found.findings, hints=True)
        total, lost = sum(t.count for t in found.topics.values()), sum(f.count for f in found.findings if f.is_loss)
        state = (
            "none lost" if not found.lost else f"{lost} lost" if lost else "messages are lost, how many is not known"
        )
        console.print(f"{total} messages read, {state}")
    if found.lost and not args.allow_loss:
        return EXIT_LOSS
    return 2 if any(f.fault == "F79" for f in found.findings) else 0


def _topic_table(found: Survey):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("topic", "type"):
        table.add_column(name, overflow="fold")
    for name in ("messages", "Hz", "longest gap", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, t in found.topics.items():
        lost = f" ({t.listed - t.count} lost)" if t.listed > t.count else ""
        at = "" if t.gap_at_ns is None else f" at {(t.gap_at_ns - found.start_ns) / 1e9:.1f} s"
        cells = (
            name, t.type, f"{t.count}{lost}", "-" if t.hz is None else f"{t.hz:.2f}", f"{t.gap_ns / 1e9:.3f} s{at}",
            f"{t.bytes / 1e6:.2f}",
        )  # fmt: skip
        table.add_row(*(Text(c) for c in cells))
    return table


def _robot_table(found: Survey):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("the robot's", "topic", "in the bag"):
        table.add_column(name, overflow="fold")
    for w in found.wanted:
        text = Text(w.problem, "yellow") if w.problem else Text(f"{w.found.count} messages")
        table.add_row(w.kind, Text(w.topic), text if w.usable or w.needed else Text("none, not needed", "dim"))
    return table


def _print_findings(console, findings: list[Finding], hints: bool = False) -> None:
    for f in findings:
        console.print(f"{f.fault}  {f.text}", style="red" if f.is_loss or f.fault == "F79" else "yellow", markup=False)
    if hints:
        for fault in sorted({f.fault for f in findings}):
            console.print(f"{fault}: {HINTS[fault]}", style="dim", markup=False)
