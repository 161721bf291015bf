"""The command line of the demo over DDS: progress, table of figures, exit codes as `flashrt`'s."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from flashrt_core.errors import FlashRTError

from .cli import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_OK
from .commands._console import open_console
from .commands._progress import EpisodeProgress
from .commands.demo import result_table
from .config.settings import NodeConfig
from .ros_demo.run import RosDemo, run_ros_demo


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flashrt_ros.ros_demo",
        description="The bundled policy on the tabletop task over DDS: simulation, policy node and recorder as processes.",
    )
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--seed", type=int, default=500_000, help="seed of the first episode (default 500000)")
    parser.add_argument("--out", type=Path, default=Path("ros-demo-out"), metavar="DIR", help="default ros-demo-out")
    parser.add_argument(
        "--splice", default=NodeConfig.splice,
        help=f"none, linear, quintic, temporal_fusion (default {NodeConfig.splice}, the node's)",
    )  # fmt: skip
    parser.add_argument("--replan-ticks", type=int, default=5, metavar="N", help="actions between requests (default 5)")
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="X",
        help="times real time (default 1); otherwise the node follows /clock and the simulation waits for its commands",
    )  # fmt: skip
    parser.add_argument(
        "--lockstep", action="store_true",
        help="simulated time waits for every message and for the policy: the same actions at any --rate",
    )  # fmt: skip
    parser.add_argument("--camera-hz", type=float, default=20.0, metavar="HZ", help="20 (default), 10, 5")
    parser.add_argument("--checkpoint", metavar="DIR", help="a checkpoint trained on this task (default: the bundled)")
    parser.add_argument("--robot", default="tabletop", help="robot file by name or path")
    parser.add_argument("--domain", type=int, help="ROS domain, 1..101 (default: a free one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 done; 1 actions were lost or repeated; 2 bad input or a failed process; 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: the processes are ended in order
    console = open_console()
    fields = {k: v for k, v in vars(args).items() if k != "out" and v is not None}
    try:
        what = RosDemo(**fields)
        progress = EpisodeProgress(console, what.episodes)
        with progress:
            output = run_ros_demo(
                what, args.out, on_phase=progress.phase, on_episode=progress.episode_done,
                command=shlex.join(["python", "-m", "flashrt_ros.ros_demo", *words]),
            )  # fmt: skip
    except KeyboardInterrupt:
        sys.stderr.write("ros-demo: interrupted\n")
        return EXIT_INTERRUPTED
    except FlashRTError as error:
        sys.stderr.write(f"ros-demo: {error}\n")
        return EXIT_ERROR
    r = output.result
    table = result_table(r)
    a, late, age = r["actions"], r["tick_lateness_ms"], r["image_age_ms"]
    delay = r["transport_delay_ms"]["command"]
    table.add_row("lost or repeated actions", f"[bold]{r['lost_or_repeated_actions']}[/]  of {a['published']} published, "
                  f"{a['applied']} executed, {a['surplus']} after an episode's end; {r['held_steps']} steps held")  # fmt: skip
    for name, values in (
        ("tick lateness, as published", late),
        ("image age at the request", age),
        ("transport, commands", delay),
    ):
        text = "  ".join(f"{k.upper()} {v:.2f}" for k, v in values.items() if v is not None)
        table.add_row(name, f"{text} ms" if text else "-")
    console.print(table)
    console.print("wrote " + ", ".join(str(f) for f in output.files))
    return 1 if r["lost_or_repeated_actions"] else EXIT_OK


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
