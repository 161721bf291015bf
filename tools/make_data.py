"""Makes training data: episodes of the noisy expert, or of a policy with the expert's labels (DAgger), as .npz shards.

python tools/make_data.py --episodes 2000 --seed 0 --out data/expert
python tools/make_data.py --episodes 1000 --seed 100000 --policy data/run/policy --out data/dagger1
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

from prompt_tokens import all_prompts  # noqa: E402
from rollout import Drive, run_expert, run_policy  # noqa: E402

from flashrt_ros.sim.tabletop import TabletopEnv  # noqa: E402

EVAL_SEED = 500_000  # seeds from here on belong to evaluation


@dataclass(frozen=True)
class Job:
    """One shard: seeds first..first+count-1, driven by the expert or by the policy in `policy`."""

    first: int
    count: int
    out: str
    policy: str | None = None
    euler: int = 5
    horizon: int = 10


def expert_drive(rng: np.random.Generator) -> Drive:
    """Half of the episodes start wide; bursts leave the expert's path."""
    return Drive(wide=rng.random() < 0.5, burst=float(rng.choice([0.0, 0.04, 0.08])), stride=2, extra=6)


def policy_drive(rng: np.random.Generator) -> Drive:
    """Every replan interval and delay up to 200 ms that the demo can meet, wide starts, and starts in mid-task."""
    delay = int(rng.choice([0, 0, 1, 2, 3, 4]))
    return Drive(
        replan=int(rng.integers(max(2, delay), 7)),
        delay=delay,
        wide=rng.random() < 0.45,
        burst=float(rng.choice([0.0, 0.0, 0.06])),
        lead=int(rng.integers(0, 40)) if rng.random() < 0.4 else 0,
        extra=6,
    )


def run_job(job: Job) -> tuple[str, int, int, int]:
    """Writes one shard; returns (path, samples, successes, episodes)."""
    env, policy = TabletopEnv(), None
    if job.policy is not None:
        import torch
        from policy_io import load_policy

        torch.set_num_threads(1)
        policy = load_policy(Path(job.policy), job.euler)
    images, states, chunks, prompts, good = [], [], [], [], 0
    index = {p: i for i, p in enumerate(all_prompts())}
    for seed in range(job.first, job.first + job.count):
        rng = np.random.default_rng([13, seed])
        if policy is None:
            episode = run_expert(env, seed, expert_drive(rng), job.horizon)
        else:
            episode = run_policy(env, policy, seed, policy_drive(rng), label=True, horizon=job.horizon)
        good += episode.success
        if policy is None and not episode.success:
            continue
        images += episode.images
        states += episode.states
        chunks += episode.chunks
        prompts += [index[episode.prompt]] * len(episode.images)
    np.savez(
        job.out, images=np.stack(images), state=np.stack(states), chunk=np.stack(chunks),
        prompt=np.asarray(prompts, np.int64),
    )  # fmt: skip
    return job.out, len(images), good, job.count


def make_jobs(out: Path, episodes: int, seed: int, policy: str | None = None, shard: int = 50) -> list[Job]:
    """Shards of `shard` episodes. Seeds stay below the evaluation's."""
    if seed + episodes > EVAL_SEED:
        raise ValueError(f"seed {seed} + {episodes} episodes reaches the evaluation seeds ({EVAL_SEED}...)")
    out.mkdir(parents=True, exist_ok=True)
    return [
        Job(first, min(shard, seed + episodes - first), str(out / f"{first:06d}.npz"), policy)
        for first in range(seed, seed + episodes, shard)
    ]


def make_pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes that start clean (a forked CUDA context would not work)."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="first episode seed; episode i uses seed + i")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--policy", help="checkpoint folder that drives; without it the expert does")
    parser.add_argument("--out", type=Path, default=Path("data/expert"))
    args = parser.parse_args()
    begin, samples, good, total = time.time(), 0, 0, 0
    with make_pool(args.workers) as pool:
        jobs = make_jobs(args.out, args.episodes, args.seed, args.policy)
        for future in as_completed([pool.submit(run_job, job) for job in jobs]):
            _, n, ok, count = future.result()
            samples, good, total = samples + n, good + ok, total + count
            sys.stdout.write(f"{total}/{args.episodes} episodes, {samples} samples, {good} succeeded\n")
    sys.stdout.write(f"{time.time() - begin:.0f} s -> {args.out}\n")


if __name__ == "__main__":
    main()
