"""Trains the tabletop policy from nothing: expert data, then DAgger rounds, with data made while the model trains.

    python tools/train.py --out data/run --minutes 8 --workers 15 --device cuda --compile
    python tools/train.py --out data/smoke --device cpu --batch 8 --episodes 4 --rounds 1 --round-episodes 2 \\
        --round-steps 3 --check-episodes 0 --eval-episodes 2 --eval-settings base      a smoke run
    python tools/train.py --init data/run --out data/run2 ...      continue from a folder this tool wrote

Writes a checkpoint folder (tools/export.py turns it into the bundled one), metrics.json and log.txt. Episodes, seeds
and draws follow --seed; the number of updates per round also depends on the machine's speed (a round lasts until its
updates are done and its data is there), so a second run gives another policy of the same quality, not the same bits.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import evaluate  # noqa: E402
from learner import Learner, Samples  # noqa: E402
from make_data import make_jobs, make_pool, run_job  # noqa: E402
from pi05_model import ModelSize  # noqa: E402
from policy_io import Stats, load_policy, save_policy  # noqa: E402
from prompt_tokens import PromptTable, train_tokenizer  # noqa: E402


class Run:
    """One training run: the clock, the log, the growing data, the learner."""

    def __init__(self, args: argparse.Namespace, pool: ProcessPoolExecutor):
        self.args, self.pool, self.begin = args, pool, time.time()
        self.out: Path = args.out
        self.work: Path = args.work or args.out / "work"
        self.out.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(args.device)
        self.samples, self.rng = Samples(self.device), np.random.default_rng(args.seed)
        self.next_seed = args.seed * 100_000
        self.rounds: list[dict[str, object]] = []
        self.episodes = {"expert": 0, "policy": 0}
        self._log = (self.out / "log.txt").open("a")

    def say(self, text: str) -> None:
        line = f"[{time.time() - self.begin:6.1f} s] {text}"
        for stream in (sys.stdout, self._log):
            stream.write(line + "\n")
            stream.flush()

    def progress(self, done: int, steps: int) -> float:
        """0 at the start, 1 when the time or the rounds of the whole run are used up; `done` of `steps` in this round."""
        rounds = (len(self.rounds) + min(done / steps, 1.0)) / (self.args.rounds + 1)
        return max((time.time() - self.begin) / (self.args.minutes * 60), rounds)

    # -- data ---------------------------------------------------------------------------------------------------------

    def submit(self, episodes: int, policy: Path | None) -> list[tuple[Future, str]]:
        """Starts making data; seeds are handed out in order."""
        source = "expert" if policy is None else "policy"
        shard = max(1, min(25, episodes // (2 * self.args.workers) or 1))
        jobs = make_jobs(
            self.work / f"{source}{self.next_seed}", episodes, self.next_seed, policy and str(policy), shard
        )
        self.next_seed += episodes
        return [(self.pool.submit(run_job, job), source) for job in jobs]

    def absorb(self, futures: list[tuple[Future, str]], wait: bool) -> list[tuple[Future, str]]:
        """Moves finished shards to the device; returns the ones still under way."""
        left = []
        for future, source in futures:
            if not (wait or future.done()):
                left.append((future, source))
                continue
            path, _, good, count = future.result()
            self.samples.add(Path(path), source)
            self.episodes[source] += count
            Path(path).unlink()
            self._good, self._count = self._good + good, self._count + count
        return left

    # -- training -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Expert data, statistics, tokenizer, learner."""
        args, init = self.args, None
        self._good = self._count = 0
        pending = self.submit(args.episodes, None)
        if args.init:
            old = load_policy(args.init)
            pending += self.submit(args.episodes, args.init)
            init, self.state, self.actions, self.tokenizer = (
                old.model.state_dict(),
                old.state,
                old.actions,
                old.tokenizer,
            )
            self.size = old.model.size
        self.absorb(pending, wait=True)
        self.say(f"{self._count} episodes, {self._good} succeeded, {self.samples.count('expert')} expert samples")
        if not args.init:
            states, chunks = self.samples.arrays("expert")
            self.state, self.actions = Stats.of(states), _action_stats(chunks.reshape(-1, 7))
            self.tokenizer = train_tokenizer()
            self.size = ModelSize(vocab_size=PromptTable(self.tokenizer, ModelSize.prompt_capacity).spm.vocab_size())
        table = PromptTable(self.tokenizer, self.size.prompt_capacity)
        self.learner = Learner(
            self.size, table, self.state, self.actions, self.device, lr=args.lr, weight_decay=args.weight_decay,
            draws=args.draws, ema=args.ema, seed=args.seed, compile_model=args.compile, init=init,
        )  # fmt: skip

    def save(self, folder: Path) -> Path:
        save_policy(folder, self.learner.weights(), self.size, self.state, self.actions, self.tokenizer)
        return folder

    def train_round(self, steps: int, pending: list[tuple[Future, str]]) -> float:
        """At least `steps` updates, and on until the pending data has arrived or the run's time is over."""
        args, done, losses, mark = self.args, 0, [], time.time()
        last = len(self.rounds) == args.rounds  # nobody would train on what arrives after this round
        while (done < steps or (pending and not last)) and time.time() - self.begin < args.minutes * 60:
            if done % 20 == 0:
                pending = self.absorb(pending, wait=False)
            policy_part = int(args.batch * args.policy_share) if self.samples.count("policy") else 0
            parts = [self.samples.draw(args.batch - policy_part, "expert", self.rng)]
            if policy_part:
                parts.append(self.samples.draw(policy_part, "policy", self.rng))
            batch = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
            p = self.progress(done, steps)
            warm = min(1.0, (self.learner.steps + 1) / args.warmup)
            loss = self.learner.step(batch, warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(p, 1.0)))))
            losses.append(loss)
            done += 1
            if done in (10, 50) or done % 250 == 0:
                recent = torch.stack(losses[-250:]).mean().item()
                self.say(
                    f"update {self.learner.steps}: loss {recent:.4f}, {(time.time() - mark) / done * 1e3:.1f} ms/update, "
                    f"samples {self.samples.count('expert')} + {self.samples.count('policy')}, progress {p:.2f}"
                )
        self._late = pending
        return torch.stack(losses[-250:]).mean().item() if losses else float("nan")

    def go(self) -> None:
        """Round 0 trains on the expert while more expert data is made; each later round adds the last policy's states."""
        args = self.args
        self.start()
        snapshot, checks, late = args.init, {}, []
        for r in range(args.rounds + 1):
            if time.time() - self.begin > args.minutes * 60:
                break
            self._good = self._count = 0
            pending = late + self.submit(args.round_episodes, snapshot)
            before = time.time()
            loss = self.train_round(args.round_steps, pending)
            late = self._late
            entry = {"round": r, "loss": round(loss, 5), "updates": self.learner.steps, "seconds": round(time.time() - before, 1),
                     "expert_samples": self.samples.count("expert"), "policy_samples": self.samples.count("policy"),
                     "data_success": [self._good, self._count]}  # fmt: skip
            if checks:
                entry["check_of_last"] = {k: v["rate"] for k, v in evaluate.collect(checks).items()}
            self.rounds.append(entry)
            self.say(f"round {json.dumps(entry)}")
            snapshot = self.save(self.work / f"snapshot{r}")
            self.save(self.out)  # something to keep if the run is cut off
            checks = (
                evaluate.submit(self.pool, snapshot, ("base", "delay_4"), args.check_episodes)
                if args.check_episodes
                else {}
            )
        for future, _ in late:
            future.cancel()
        self.save(self.out)
        self.finish()

    def finish(self) -> None:
        """The table, by the stored (bf16-rounded) weights."""
        names = list(evaluate.SETTINGS) if self.args.eval_settings == "all" else self.args.eval_settings.split(",")
        table = evaluate.collect(evaluate.submit(self.pool, self.out, names, self.args.eval_episodes))
        self.say("evaluation of the stored weights\n" + evaluate.show(table))
        options = {k: v for k, v in vars(self.args).items() if not isinstance(v, Path)}  # folders say nothing elsewhere
        metrics = {"options": options, "rounds": self.rounds, "updates": self.learner.steps, "episodes": self.episodes,
                   "samples": {s: self.samples.count(s) for s in ("expert", "policy")}, "evaluation": table,
                   "parameters": sum(p.numel() for p in self.learner.model.parameters()),
                   "seconds": round(time.time() - self.begin, 1)}  # fmt: skip
        (self.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        self.say(f"done: {self.out}")


def _action_stats(rows: np.ndarray) -> Stats:
    """Statistics of actions [N, 7]; the unused rotations and the gripper get the action's own range, -1..1."""
    stats = Stats.of(rows)
    for dim in (3, 4, 5, 6):
        stats.q01[dim], stats.q99[dim] = -1.0, 1.0
    return stats


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/run"))
    parser.add_argument("--work", type=Path, help="scratch folder for shards and snapshots (default: OUT/work)")
    parser.add_argument("--init", type=Path, help="continue from this folder")
    parser.add_argument("--seed", type=int, default=0, help="0..3; episode seeds start at seed * 100000")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="all training ends here; the evaluation comes after"
    )
    parser.add_argument("--episodes", type=int, default=1500, help="expert episodes before the first update")
    parser.add_argument("--rounds", type=int, default=5, help="DAgger rounds")
    parser.add_argument("--round-episodes", type=int, default=1200)
    parser.add_argument("--round-steps", type=int, default=1500, help="updates per round, at least")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--draws", type=int, default=8, help="noise and time draws per sample")
    parser.add_argument("--policy-share", type=float, default=0.6, help="part of a batch that comes from DAgger")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--check-episodes", type=int, default=60, help="episodes per round check; 0: none")
    parser.add_argument("--eval-episodes", type=int, default=200)
    parser.add_argument("--eval-settings", default="all")
    parser.add_argument("--workers", type=int, default=2, help="processes that make data and evaluate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile the loss (needs a C compiler)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    if not 0 <= args.seed <= 3:
        raise SystemExit("--seed: 0..3, so that training seeds stay below the evaluation's (500000)")
    torch.set_float32_matmul_precision("high")
    with make_pool(args.workers) as pool:
        run = Run(args, pool)
        run.go()
        shutil.rmtree(run.work, ignore_errors=True)


if __name__ == "__main__":
    main()
