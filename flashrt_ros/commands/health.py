"""`flashrt health`: what can go wrong on the robot, what is done about it and what ends it."""

from __future__ import annotations

import argparse
import json

from ._console import open_console

HELP = """show what can go wrong, what is done about it and what ends it
examples:
  flashrt health            the levels: note, coast, hold, stop, exit
  flashrt health --table    every fault with its level, action, bound and counter
  flashrt health --table F01 F04

The worst active fault decides. A running node publishes its active faults in its status and on /diagnostics."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*", help="only these faults, for example F04")
    parser.add_argument("--table", action="store_true", help="list the faults, not only the levels")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--markdown", action="store_true", help="print Markdown (docs/faults.md is made of it)")
    how.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from flashrt_core.errors import ConfigError, nearest

    from ..control.faults import COLUMNS, FAULTS, fault_table, levels_markdown, table_markdown

    ids = [f"F{i.upper().removeprefix('F'):0>2}" for i in args.ids]  # f4, 4 and F04 are one
    for i in ids:
        if i not in FAULTS:
            raise ConfigError(f"fault {i!r}", found="not in the table", hint=nearest(i, FAULTS))
    table = args.table or bool(ids)
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in fault_table() if not ids or row[0] in ids]
    if args.json:
        print(json.dumps(rows if table else _levels(), indent=2))
    elif args.markdown:
        print(levels_markdown() + ("\n" + table_markdown() if table else ""), end="")
    else:
        open_console().print(_rich(rows if table else _levels()))
    return 0


def _levels() -> list[dict[str, str]]:
    from ..control.faults import Level

    return [
        {"level": f"L{x - 1}", "state": x.name.lower(), "what is done": x.action, "what ends it": x.clears}
        for x in Level
        if x > Level.OK
    ]


def _rich(rows: list[dict[str, str]]):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column in ("id", "level"))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row.values()))
    return table
