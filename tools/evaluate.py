"""Closed-loop success of a checkpoint folder under many conditions, in plain PyTorch on the CPU.

python tools/evaluate.py flashrt_ros/sim/tabletop/policy --episodes 200 --workers 2
python tools/evaluate.py flashrt_ros/sim/tabletop/policy --episodes 20 --settings base,wrong_colour
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from make_data import EVAL_SEED, make_pool  # noqa: E402
from rollout import Drive, run_policy  # noqa: E402

from flashrt_ros.sim.tabletop import COLOURS, TabletopEnv, parse_prompt  # noqa: E402


def _black(*views: int):
    def blind(observation: dict) -> dict:
        images = [np.zeros_like(im) if i in views else im for i, im in enumerate(observation["images"])]
        return {**observation, "images": images}

    return blind


def _no_state(observation: dict) -> dict:
    return {**observation, "state": np.zeros_like(observation["state"])}


# name -> (how it is driven, what is taken away or None)
SETTINGS = {
    "base": (Drive(replan=5), None),
    "replan_10": (Drive(replan=10), None),
    "delay_1": (Drive(replan=5, delay=1), None),
    "delay_2": (Drive(replan=5, delay=2), None),
    "delay_4": (Drive(replan=5, delay=4), None),
    "wide_start": (Drive(replan=5, wide=True), None),
    "wrong_colour": (Drive(replan=5), "colour"),
    "black_images": (Drive(replan=5), _black(0, 1)),
    "black_wrist": (Drive(replan=5), _black(1)),
    "black_agentview": (Drive(replan=5), _black(0)),
    "zero_state": (Drive(replan=5), _no_state),
}


def wilson(good: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success rate."""
    z, p = 1.959964, good / n
    mid, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (mid - half) / (1 + z * z / n), (mid + half) / (1 + z * z / n)


def other_colour(prompt: str) -> str:
    """The same sentence about the next block."""
    colour = parse_prompt(prompt).colour
    return prompt.replace(colour, COLOURS[(COLOURS.index(colour) + 1) % len(COLOURS)])


def run_eval(
    folder: str, setting: str, seeds: list[int], euler: int, renderer: str = "ray"
) -> list[tuple[int, bool, int]]:
    """(seed, success, steps) of some episodes; one worker's job."""
    import torch
    from policy_io import load_policy

    torch.set_num_threads(1)
    policy, env, out = load_policy(Path(folder), euler), TabletopEnv(renderer=renderer), []
    drive, change = SETTINGS[setting]
    for seed in seeds:
        env.reset(seed)
        prompt = other_colour(env.prompt) if change == "colour" else None
        episode = run_policy(env, policy, seed, drive, prompt=prompt, blind=change if callable(change) else None)
        out.append((seed, episode.success, episode.steps))
    return out


def submit(
    pool: Executor, folder: Path, settings: Iterable[str], episodes: int, euler: int = 10, renderer: str = "ray"
) -> dict[str, list[Future]]:
    """Starts an evaluation in parts of 10 episodes; read it with `collect`."""
    seeds = list(range(EVAL_SEED, EVAL_SEED + episodes))
    parts = [seeds[i : i + 10] for i in range(0, episodes, 10)]
    return {s: [pool.submit(run_eval, str(folder), s, part, euler, renderer) for part in parts] for s in settings}


def collect(futures: dict[str, list[Future]]) -> dict[str, dict[str, object]]:
    """Waits; per setting: episodes, successes, rate, Wilson interval, mean steps, failed seeds."""
    table = {}
    for setting, parts in futures.items():
        rows = [row for part in parts for row in part.result()]
        good = sum(ok for _, ok, _ in rows)
        table[setting] = {
            "episodes": len(rows),
            "successes": good,
            "rate": good / len(rows),
            "wilson95": [round(v, 4) for v in wilson(good, len(rows))],
            "mean_steps": round(float(np.mean([n for _, _, n in rows])), 1),
            "failed_seeds": [seed for seed, ok, _ in rows if not ok][:20],
        }
    return table


def show(table: dict[str, dict[str, object]]) -> str:
    """A small text table."""
    lines = [f"{'setting':<16} {'success':>9} {'rate':>6}  95 %             steps"]
    for name, row in table.items():
        low, high = row["wilson95"]
        lines.append(
            f"{name:<16} {row['successes']:>4}/{row['episodes']:<4} {row['rate']:6.3f}  {low:.3f}..{high:.3f}"
            f"  {row['mean_steps']:6.1f}  {row['failed_seeds'][:6] if row['rate'] > 0.8 else ''}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=Path, help="checkpoint folder")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--settings", default="base", help=f"comma-separated, or 'all': {', '.join(SETTINGS)}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--euler", type=int, default=10, help="denoising steps")
    parser.add_argument("--renderer", default="ray", help="ray, or gl (needs OpenGL)")
    parser.add_argument("--json", type=Path, help="also write the table here")
    args = parser.parse_args()
    begin = time.time()
    names = list(SETTINGS) if args.settings == "all" else args.settings.split(",")
    with make_pool(args.workers) as pool:
        table = collect(submit(pool, args.policy, names, args.episodes, args.euler, args.renderer))
    sys.stdout.write(f"{show(table)}\n{time.time() - begin:.0f} s\n")
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
