"""Records the bundled policy on the tabletop task as a bag, in simulated time and without ROS: something to replay.

`python -m flashrt_ros.replay.demo_recording recording --episodes 2`. Topics, types and rates are those that `make ros-demo`
records. The policy's noise at tick k is that of a replay with the same --noise, so that a replay of the same policy with
calls that take no time (`--latency 0 --splice none --replan-ticks 5`) serves exactly what was recorded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flashrt_core.errors import FlashRTError
from flashrt_core.runtime.clock import NS

from ..bags.episode_bag import write_frames
from ..bags.episodes import Frame
from ..config.config_file import load_robot
from ..evaluation.closed_loop import LoopSettings, run_episode
from .settings import TICKS_PER_SEED

START_NS, PAUSE_NS = 1_700_000_000 * NS, 2 * NS


def record_demo(
    path: Path, predict: Callable[..., np.ndarray], seeds: Sequence[int], *, noise: int = 0, max_steps: int = 120
) -> dict[str, int]:
    """Write episodes of the seeds in closed loop into a bag that did not exist; returns messages per topic.

    predict: `VLAModel.predict`. noise: seed of its noise, as --seed of a replay. max_steps: ticks of an episode at most.
    """
    return write_frames(path, demo_frames(predict, seeds, noise, max_steps), load_robot("tabletop"))


def demo_frames(
    predict: Callable[..., np.ndarray], seeds: Sequence[int], noise: int, max_steps: int
) -> Iterator[Frame]:
    """Every tick as a Frame; memory: the pictures of one episode."""
    from ..sim.tabletop import TabletopEnv

    env = TabletopEnv()
    env.max_steps = min(env.max_steps, max_steps)
    period, begin, ticks = round(NS / env.control_hz), START_NS, 0
    for number, seed in enumerate(seeds):
        seen: list[dict[str, object]] = []

        def seeded(images, *, prompt: str, state: np.ndarray, seed: int, first: int = ticks) -> np.ndarray:
            return predict(images, prompt=prompt, state=state, seed=noise * TICKS_PER_SEED + first + env.steps)

        def watch(env, obs: object, episode: object, seen: list = seen) -> None:
            seen.append(env.observe())

        episode = run_episode(env, seeded, seed, LoopSettings(), watch=watch)
        if episode.error is not None:
            raise RuntimeError(episode.error)
        for k, (what, action) in enumerate(zip(seen, episode.commands, strict=True)):
            times = np.full(2 + len(what["images"]), begin + k * period, np.int64)
            yield Frame(number, episode.prompt, what["state"], action, tuple(what["images"]), times, times[1:])
        ticks += len(seen)
        begin += len(seen) * period + PAUSE_NS


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for a folder that exists or numbers that cannot be."""
    from ..evaluation.rollout import load_policy

    parser = argparse.ArgumentParser(prog="demo_recording", description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="BAG", help="folder to make")
    parser.add_argument("--episodes", type=int, default=2, metavar="N")
    parser.add_argument("--seed", type=int, default=500_000, help="of the first episode")
    parser.add_argument("--noise", type=int, default=0, help="seed of the policy's noise")
    parser.add_argument("--checkpoint", metavar="DIR", help="default: the bundled policy")
    args = parser.parse_args(argv)
    try:
        predict = load_policy(args.checkpoint).predict
        counts = record_demo(args.out, predict, range(args.seed, args.seed + args.episodes), noise=args.noise)
    except FlashRTError as error:
        sys.stderr.write(f"demo_recording: {error}\n")
        return 2
    sys.stdout.write(f"wrote {args.out}: {sum(counts.values())} messages\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
