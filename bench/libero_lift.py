"""The LIBERO bridge measured on robosuite's Lift: replayed demonstrations, and latency against splice strategy.

    make libero
    python bench/libero_lift.py --episodes 20 --workers 2     about 30 minutes on two cores; goes on where it stopped
    python bench/libero_lift.py --tables                      writes the tables of docs/libero.md anew

Needs no download and no checkpoint. The result is bench/results/libero_lift.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flashrt_ros.sim.libero.env_client import SimulatorSpec
from flashrt_ros.sim.libero.plan import STRATEGIES, Condition, EvaluationPlan
from flashrt_ros.sim.libero.policies import make_policy
from flashrt_ros.sim.libero.protocol import protocol
from flashrt_ros.sim.libero.report import interval, rate
from flashrt_ros.sim.libero.results import summarise
from flashrt_ros.sim.libero.run import open_results, run_here, run_jobs

ROOT = Path(__file__).resolve().parents[1]
RESULT, PAGE = ROOT / "bench/results/libero_lift.json", ROOT / "docs/libero.md"
LATENCIES_MS = (0.0, 50.0, 100.0, 200.0)
SUITE = "robosuite_lift"
NAMES = {"demo-replay": "replayed demonstrations", "scripted": "scripted, from pictures and state"}


def measure(plan: EvaluationPlan, out: Path) -> dict[str, object]:
    """Run what is missing and summarise."""
    start = time.monotonic()
    file = open_results(plan, out)
    jobs = file.missing()
    if jobs:
        done = iter(range(1, len(jobs) + 1))
        run_jobs(file, jobs, run_here(plan, make_policy(plan.policy, SUITE)), lambda o: sys.stderr.write(
            f"{plan.policy} {next(done)}/{len(jobs)} {o.job.file_stem} {o.episode.error or o.episode.success}\n"))  # fmt: skip
    return summarise(file, time.monotonic() - start)


def tables(data: dict[str, object]) -> dict[str, str]:
    """Section name -> Markdown."""
    runs = data["runs"]
    rows = ["| policy | success | Wilson 95 % | errors | mean steps |", "| --- | --- | --- | --- | --- |"]
    for name, words in NAMES.items():
        cell = runs[name]["conditions"][0]
        rows.append(f"| {words} | {rate(cell)} | {interval(cell)} | {cell['errors']} | {cell['mean_steps_of_successes']:g} |")
    return {"success": "\n".join(rows), "latency": _grid(runs["scripted"]), "boundary": _boundary(runs["scripted"]),
            "cost": _cost(data)}  # fmt: skip


def _grid(run: dict[str, object]) -> str:
    at = {(c["splice"], c["latency_ms"]): c for c in run["conditions"]}
    head = " | ".join(f"{ms:g} ms" for ms in LATENCIES_MS)
    rows = [f"| | {head} |", "| --- |" + " --- |" * len(LATENCIES_MS)]
    for splice in STRATEGIES:
        cells = [at[splice, ms] for ms in LATENCIES_MS]
        rows.append(f"| `{splice}` | " + " | ".join(f"{rate(c)}, {_seconds(c)}" for c in cells) + " |")
    return "\n".join(rows)


def _boundary(run: dict[str, object]) -> str:
    rows = ["| 200 ms | CB1 | CB2 | CB3 | CB4 mean | CB5 / synchronous | CB6 |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for c in run["conditions"]:
        if c["latency_ms"] != 200.0 or c["splice"] == "sync":
            continue
        b = c["boundary"]
        rows.append(
            f"| `{c['splice']}` | {b['cb1_ratio']:.2f} | {b['cb2_violations']} | {1e3 * b['cb3_step_over']:.1f} mm "
            f"| {1e3 * b['cb4_mean']:.1f} mm | {b['cb5_ratio']:.2f} | {100 * b['cb6_index_law']:.0f} % |"
        )
    return "\n".join(rows)


def _cost(data: dict[str, object]) -> str:
    rows = ["| | replayed demonstrations | scripted |", "| --- | --- | --- |"]
    costs = [data["runs"][name]["cost"] for name in NAMES]
    for key, words in (
        ("steps_per_s", "control steps/s of one simulator, all included"),
        ("steps_per_s_without_reset", "the same without resets and wait steps"),
        ("physics_steps_per_s", "physics alone"),
    ):
        rows.append(f"| {words} | " + " | ".join(f"{c[key]:g}" for c in costs) + " |")
    for key, words in (("reset", "resets and wait steps"), ("physics", "physics"), ("render", "drawing"), ("policy", "policy")):
        rows.append(f"| time spent in: {words} | " + " | ".join(f"{100 * c['share'][key]:.1f} %" for c in costs) + " |")
    return "\n".join(rows)


def _seconds(cell: dict[str, object]) -> str:
    mean = cell["mean_task_s_of_successes"]
    return "-" if mean is None else f"{mean:.2f} s"


def fill(text: str, data: dict[str, object]) -> str:
    """The page with its tables made anew; each stands between `<!-- libero NAME -->` and `<!-- end libero -->`."""
    for name, table in tables(data).items():
        pattern = re.compile(rf"(<!-- libero {name} -->\n).*?(<!-- end libero -->)", re.S)
        text = pattern.sub(lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--episodes", type=int, default=20, help="per combination of splice and latency (default 20)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gl", default="egl")
    parser.add_argument("--work", type=Path, default=Path("libero-bench"), help="folder of the episodes (default libero-bench)")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--tables", action="store_true", help="only fill the tables of docs/libero.md")
    args = parser.parse_args(argv)
    if not args.tables:
        rules = protocol("openpi")
        spec = SimulatorSpec(SUITE, rules, args.gl)
        replay = EvaluationPlan(spec, "demo-replay", (0,), 3, rules.seed, workers=args.workers)
        grid = tuple(Condition(splice, ms) for splice in STRATEGIES for ms in LATENCIES_MS)
        scripted = replace(replay, policy="scripted", episodes=args.episodes, conditions=grid)
        load = os.getloadavg()[0]
        runs = {plan.policy: measure(plan, args.work / plan.policy) for plan in (replay, scripted)}
        command = f"python bench/libero_lift.py --episodes {args.episodes} --workers {args.workers}"
        command += f" --gl {args.gl}" if args.gl != "egl" else ""
        text = json.dumps({"command": command, "load_before": round(load, 2), "runs": runs}, indent=1, allow_nan=False)
        args.out.write_text(text + "\n", encoding="utf-8")
    if args.out == RESULT and PAGE.exists():
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), json.loads(RESULT.read_text())), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
