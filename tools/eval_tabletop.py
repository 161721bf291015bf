"""Measures what README and docs state about the bundled policy and writes it to `bench/results/tabletop_eval.json`.

    python tools/eval_tabletop.py --jobs 2            # everything, about 25 minutes on two cores
    python tools/eval_tabletop.py --only fp32 fp8     # some runs; the others in the file stay
    python tools/eval_tabletop.py --show              # print the tables of the file, run nothing
    python tools/eval_tabletop.py --docs              # write them into README.md and docs/demo.md

A run that is in the file already (same checkpoint, version, seeds) is not repeated; --again repeats it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_tables import LATENCIES_MS, fill, sections

from flashrt_core import __version__
from flashrt_core.inspect import inspect_checkpoint
from flashrt_core.runtime.chunk import SPLICES
from flashrt_ros.evaluation.closed_loop import ABLATIONS, Episode, LoopSettings
from flashrt_ros.evaluation.metrics import compare_paired
from flashrt_ros.evaluation.rollout import Rollout, checkpoint_folder, run_seeds
from flashrt_ros.evaluation.summary import summarise

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "tabletop_eval.json"
DOCS = (ROOT / "README.md", ROOT / "docs" / "demo.md")
SEED = 500_000
KEPT = ("successes", "episodes", "success_rate", "success_wilson95", "errors", "tick_misses", "ticks", "boundary",
        "model_latency_ms", "wall_s")  # fmt: skip


def plan(args: argparse.Namespace) -> dict[str, tuple[Rollout, int]]:
    """Every run by name: what to run and how many episodes."""
    base = {"checkpoint": args.checkpoint}
    runs = {p: (Rollout(precision=p, **base), args.episodes) for p in ("fp32", "fp8")}
    for splice in SPLICES:
        for ms in LATENCIES_MS:
            loop = LoopSettings(splice=splice, latency_ms=ms)
            runs[f"latency/{splice}/{ms}"] = Rollout(loop=loop, **base), args.latency_episodes
    for name in ABLATIONS:
        runs[f"ablation/{name}"] = Rollout(ablation=name, **base), args.ablation_episodes
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200, help="of the fp32 and fp8 runs")
    parser.add_argument("--latency-episodes", type=int, default=100, help="of each latency and splice")
    parser.add_argument("--ablation-episodes", type=int, default=40, help="of each ablation")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="runs whose name starts so")
    parser.add_argument("--again", action="store_true", help="repeat runs that are in the file")
    parser.add_argument("--show", action="store_true", help="print the file's tables only")
    parser.add_argument(
        "--docs", action="store_true", help="write the file's tables into README.md and docs/, run nothing"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="default: the bundled policy")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    data = json.loads(args.out.read_text()) if args.out.exists() else {"runs": {}}
    if not (args.show or args.docs):
        measure(args, data)
    if args.docs:
        for path in DOCS:
            path.write_text(fill(path.read_text(encoding="utf-8"), data), encoding="utf-8")
    print("\n\n".join(sections(data).values()))
    return 0


def measure(args: argparse.Namespace, data: dict) -> None:
    """Do the runs that are missing; the file is written after each."""
    digest = str(inspect_checkpoint(checkpoint_folder(args.checkpoint))["digest"])
    for name, (what, episodes) in plan(args).items():
        if args.only and not name.startswith(tuple(args.only)):
            continue
        stamp = {"checkpoint_sha256": digest, "version": __version__, "seed": SEED, "n": episodes}
        old = data["runs"].get(name, {})
        if not args.again and {k: old.get(k) for k in stamp} == stamp:
            continue
        start, done = time.monotonic(), []
        for episode in run_seeds(what, range(SEED, SEED + episodes), args.jobs):
            done.append(episode)
            wins = sum(e.success for e in done)
            print(f"\r{name}: {wins}/{len(done)} of {episodes}  ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        data["runs"][name] = stamp | row(done, what, time.monotonic() - start)
        compare(data)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")


def row(episodes: list[Episode], what: Rollout, wall_s: float) -> dict[str, object]:
    """One run's entry: the figures, and the outcome and length of each seed."""
    r = summarise(episodes, what, SEED, wall_s)
    data = {k: r[k] for k in KEPT} | {"machine": r["machine"], "threads": what.threads}
    data["success_by_seed"] = "".join("1" if e.success else "0" for e in episodes)
    data["mean_steps"] = round(sum(e.steps for e in episodes) / len(episodes), 2)
    data["loop"] = asdict(what.loop)
    return data


def compare(data: dict) -> None:
    """What pairing by seed says about FP8 against fp32."""
    a, b = (data["runs"].get(name, {}).get("success_by_seed", "") for name in ("fp32", "fp8"))
    if a and len(a) == len(b):
        data["fp8_vs_fp32"] = compare_paired([c == "1" for c in a], [c == "1" for c in b]).to_json()


if __name__ == "__main__":
    sys.exit(main())
