"""`flashrt bag convert`: recordings into LeRobot datasets, datasets into recordings, demonstrations into either."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from flashrt_core.errors import ConfigError

from ._console import open_console
from ._disk import disk_errors
from ._progress import CountProgress

EXIT_LOSS = 3
HELP = """convert recordings to LeRobot datasets and back
examples:
  flashrt bag convert BAG --robot tabletop --out data/pick                 a LeRobotDataset v3 with video
  flashrt bag convert BAG --robot tabletop --out data/pick --to lerobot-v2.1 --images png
  flashrt bag convert data/pick --robot tabletop --out bags/pick           and back: a rosbag2
  flashrt bag convert DATASET --robot tabletop --out B --view agentview=observation.images.top
  flashrt bag convert --from robosuite-demo --robot panda_lift --out bags/lift   human teleoperation, rendered

A frame is made at each command recorded on the robot's `forward` topic, of the newest image of each camera and the newest
state before it; the robot file gives their order, names and units. A prompt, or a pause of the commands, begins an episode.
State and action are kept to the last bit (float32), pictures too with --images png. The times at which everything was
recorded are kept in the columns bag_time_ns and bag_stamp_ns; `timestamp` is frame / rate, as LeRobot wants it.

The output appears when it is whole. exit codes: 0 done; 3 messages of the source are lost and nothing was written
(--allow-loss writes what is there); 2 bad input, said in one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="?", type=Path, help="bag or LeRobotDataset folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--robot", required=True, metavar="R", help="robot file by name or path")
    parser.add_argument("--to", choices=("bag", "lerobot-v2.1", "lerobot-v3"),
                        help="default: lerobot-v3 from a bag, bag from anything else")  # fmt: skip
    parser.add_argument("--from", dest="origin", choices=("auto", "bag", "lerobot", "robosuite-demo"), default="auto",
                        help="what SOURCE is (default: look); robosuite-demo needs none")  # fmt: skip
    parser.add_argument(
        "--images", choices=("video", "png"), default="video", help="how a dataset keeps pictures (default video)"
    )
    parser.add_argument("--codec", choices=("h264", "av1"), default="h264", help="of the video (default h264)")
    parser.add_argument("--task", default="", help="what is done, for a bag without a prompt")
    parser.add_argument("--fps", type=float, default=0.0, help="rate of the recorded commands (default: the robot's)")
    parser.add_argument(
        "--gap-s", type=float, default=1.0, metavar="S", help="a longer pause begins an episode (default 1)"
    )
    parser.add_argument(
        "--view", action="append", default=[], metavar="VIEW=KEY", help="a dataset's name for a camera's pictures"
    )
    parser.add_argument("--node", default="policy_node", help="node whose ~/topics are meant (default policy_node)")
    parser.add_argument("--size", type=int, default=224, metavar="PX", help="side of rendered pictures (default 224)")
    parser.add_argument(
        "--sim-python", type=Path, metavar="FILE", help="Python that has robosuite (default: of `make libero`)"
    )
    parser.add_argument(
        "--gl", default="egl", choices=("egl", "osmesa", "glfw"), help="how robosuite draws (default egl)"
    )
    parser.add_argument("--force", action="store_true", help="replace a bag or dataset that is there")
    parser.add_argument("--allow-loss", action="store_true", help="write although messages of the source are lost")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    with disk_errors(args.out):
        return _convert(args)


def _convert(args: argparse.Namespace) -> int:
    from ..bags.conversion import Target, convert_bag, convert_dataset, is_dataset
    from ..bags.episodes import FrameOptions
    from ..config.config_file import load_robot

    robot = load_robot(args.robot)
    origin = args.origin
    if origin != "robosuite-demo":
        if args.source is None:
            raise ConfigError("SOURCE", expected="a bag or a dataset", found="none")
        if origin == "auto":
            origin = "lerobot" if is_dataset(args.source) else "bag"
    kind = args.to or ("lerobot-v3" if origin == "bag" else "bag")
    target = Target(args.out, kind, args.images, args.codec, args.force)
    console = open_console()
    with CountProgress(console, "frames", hidden=args.json) as progress:
        if origin == "bag":
            options = FrameOptions(args.task, args.gap_s, args.fps, args.node)
            result = convert_bag(
                args.source, robot, target, options, allow_loss=args.allow_loss, on_progress=progress.at
            )
        elif origin == "lerobot":
            result = convert_dataset(
                args.source, robot, target, keys=_views(args.view), node=args.node, on_progress=progress.at
            )
        else:
            from ..bags.robosuite_demo import convert_demonstrations

            result = convert_demonstrations(
                robot,
                target,
                size=args.size,
                python=args.sim_python,
                gl=args.gl,
                node=args.node,
                on_progress=progress.at,
            )
    if args.json:
        print(json.dumps(result.to_json(), indent=2))
        return 0 if result.kept else EXIT_LOSS
    for f in result.findings:
        console.print(f"{f.fault}  {f.text}", style="red" if f.is_loss else "yellow", markup=False)
    for reason, count in result.skipped.items():
        console.print(f"{count} commands gave no frame: {reason}", style="yellow", markup=False)
    counts = ", ".join(f"{n} {name}" for name, n in result.counts.items())
    if not result.kept:
        console.print(
            "nothing written: messages of the source are lost; --allow-loss writes what is there", style="red"
        )
        return EXIT_LOSS
    console.print(f"wrote {args.out}  {counts}", markup=False)
    return 0


def _views(pairs: list[str]) -> dict[str, str]:
    out = {}
    for pair in pairs:
        view, equals, key = pair.partition("=")
        if not (view and equals and key):
            raise ConfigError("--view", expected="VIEW=KEY", found=repr(pair))
        out[view] = key
    return out
