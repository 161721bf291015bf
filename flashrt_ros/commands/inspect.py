"""`flashrt inspect`: what is in a checkpoint and how it will be read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from ._console import open_console

HELP = """show what is in a checkpoint and how it will be read
examples:
  flashrt inspect path/to/checkpoint
  flashrt inspect path/to/checkpoint --profile my_profile.json --json | less

Each decision (layout, views, statistics, state in the prompt, delta or absolute actions) is shown with its source.
Exit code 2 when the checkpoint has problems, each on a line of its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="checkpoint folder or .safetensors file")
    parser.add_argument("--profile", help="profile name or file, for checkpoints that do not say how they were trained")
    parser.add_argument("--no-digest", action="store_true", help="do not read all bytes for the sha256")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    from flashrt_core.inspect import inspect_checkpoint

    from ..evaluation.rollout import checkpoint_folder

    checkpoint_folder(args.checkpoint)
    report = inspect_checkpoint(args.checkpoint, args.profile, digest=not args.no_digest)
    if args.json:
        print(json.dumps(report, indent=2, default=str))
    else:
        console = open_console()
        console.print(_table(report))
        for problem in report["problems"]:
            console.print("problem: ", problem, style="red", markup=False, soft_wrap=True, sep="")
    return 2 if report["problems"] else 0


def _table(report: dict[str, object]):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for name, value, source in rows(report):
        table.add_row(Text(name), Text(value), Text(source))
    return table


def rows(report: dict[str, object]) -> Iterator[tuple[str, str, str]]:
    """(name, value, where it comes from) for each line of the table; parts that could not be read are left out."""
    yield "checkpoint", str(report["path"]), ""
    if weights := report.get("weights"):
        yield "files", ", ".join(f"{f['name']} ({_size(f['bytes'])})" for f in weights["files"]), ""
        kinds = ", ".join(f"{d['parameters']:,} {name}" for name, d in weights["dtypes"].items())
        yield "parameters", f"{weights['parameters']:,} in {weights['tensors']} tensors", kinds
    if digest := report.get("digest"):
        yield "sha256", str(digest), ""
    if manifest := report.get("manifest"):
        yield "manifest", str(manifest), ""
    if profile := report.get("profile"):
        yield "profile", str(profile["name"]), ""
        for name, entry in profile["decisions"].items():
            yield f"  {name}", _value(entry["value"]), str(entry["source"])
        for part, sizes in profile["dims"].items():
            if isinstance(sizes, dict):
                yield f"  {part}", ", ".join(f"{k} {v}" for k, v in sizes.items()), ""
    if tensors := report.get("tensors"):
        yield "tensors", "names and shapes agree with the profile", str(tensors["embedding"])
    if stats := report.get("norm_stats"):
        for part in ("state", "actions"):
            sizes = {k: len(v) for k, v in stats[part].items()}
            yield f"statistics, {part}", ", ".join(f"{k} [{n}]" for k, n in sizes.items()), str(stats["source"])
    if tokenizer := report.get("tokenizer"):
        yield "tokenizer", f"{tokenizer['pieces']:,} pieces, begin id {tokenizer['bos_id']}", str(tokenizer["path"])
    yield "problems", str(len(report["problems"])) if report["problems"] else "none", ""


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
