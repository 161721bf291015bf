"""`flashrt predict`: one action chunk from picture files and a prompt."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from flashrt_core.errors import ObservationError

from ._console import open_console

HELP = """print the action chunk for camera images and a prompt
examples:
  flashrt predict --checkpoint DIR --image agentview.png wrist.png --prompt "pick up the red block" \\
      --state 0 0 0.2 3.14 0 0 0.04 -0.04
  flashrt predict --checkpoint DIR --image a.png b.png --prompt "..." --resize --json > chunk.json

Images are given in the order of the checkpoint's views (see `flashrt inspect`), the state in the robot's units."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="checkpoint folder")
    parser.add_argument("--image", required=True, nargs="+", type=Path, metavar="FILE", help="one picture a view")
    parser.add_argument("--prompt", required=True, help="what to do")
    parser.add_argument("--state", nargs="+", type=float, metavar="X", help="the robot's state, raw")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0); same seed, same actions")
    parser.add_argument("--resize", action="store_true", help="fit pictures of another size, padded with black")
    parser.add_argument("--precision", default="fp32", help="fp32 (default) or fp8 (host: emulated)")
    parser.add_argument("--hardware", default="auto", help="auto (default: the GPU, else host) or an arch, e.g. host")
    parser.add_argument("--profile", help="profile name or file, for checkpoints that do not say how they were trained")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    from flashrt_core import load_model

    from ..evaluation.rollout import check_precision, checkpoint_folder

    check_precision(args.precision)
    folder = checkpoint_folder(args.checkpoint)
    pictures = [read_image(path) for path in args.image]
    model = load_model(
        str(folder), num_views=len(pictures), hardware=args.hardware, profile=args.profile,
        use_fp8=args.precision == "fp8", image_sizes=[p.shape[:2] for p in pictures] if args.resize else None,
    )  # fmt: skip
    actions = model.predict(pictures, prompt=args.prompt, state=args.state, seed=args.seed)
    if args.json:
        print(json.dumps({"prompt": args.prompt, "seed": args.seed, "actions": actions.tolist()}))
    else:
        open_console().print(_table(actions))
    return 0


def read_image(path: Path) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a picture file. Raises ObservationError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise ObservationError(f"image {path}", expected="a picture file", found="no such file") from None
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise ObservationError(f"image {path}", expected="a picture file", found=str(error)) from None


def _table(actions: np.ndarray):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tick", justify="right", style="dim")
    for i in range(actions.shape[1]):
        table.add_column(f"a{i}", justify="right")
    for k, row in enumerate(actions):
        table.add_row(str(k), *(f"{v:+.4f}" for v in row))
    return table
