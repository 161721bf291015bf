"""Closed-loop success of the bundled policy on a GPU over the 200 seeds of the CPU's recorded run, paired seed by seed.

    python tools/eval_gpu.py --jobs 16                  # bf16 and fp8 -> bench/results/tabletop_eval_h200.json

The reference is bench/results/tabletop_eval.json (tools/eval_tabletop.py). Each process holds a policy of its own on the GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_tabletop import RESULT, SEED, row

from flashrt_core.bench.facts import commit, gpu_facts, today
from flashrt_core.inspect import inspect_checkpoint
from flashrt_ros.evaluation.metrics import compare_paired
from flashrt_ros.evaluation.rollout import GPU_PRECISIONS, Rollout, checkpoint_folder, run_seeds

OUT = RESULT.with_name("tabletop_eval_h200.json")
LEAST = -0.02  # success may be this much below the CPU's


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", default="hopper", help="arch string of the GPU")
    parser.add_argument("--precision", nargs="+", default=list(GPU_PRECISIONS))
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=16, help="processes")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    reference = json.loads(RESULT.read_text())["runs"]["fp32"]
    digest = str(inspect_checkpoint(checkpoint_folder(None))["digest"])
    if reference["checkpoint_sha256"] != digest or reference["seed"] != SEED:
        parser.error(f"{RESULT.name} is of another policy or other seeds: run tools/eval_tabletop.py first")
    data: dict[str, Any] = {"gpu": gpu_facts(), "commit": commit(), "date": today(), "runs": {}}
    ok = True
    for precision in args.precision:
        what, start, done = Rollout(precision=precision, hardware=args.hardware), time.monotonic(), []
        for episode in run_seeds(what, range(SEED, SEED + args.episodes), args.jobs):
            done.append(episode)
        wall = time.monotonic() - start
        entry = {"checkpoint_sha256": digest, "seed": SEED, "hardware": args.hardware} | row(done, what, wall)
        host = reference["success_by_seed"][: args.episodes]
        pairs = compare_paired([c == "1" for c in host], [e.success for e in done]).to_json()
        entry["against_host_fp32"] = pairs
        data["runs"][precision] = entry
        ok = ok and pairs["difference"] >= LEAST and not entry["errors"]
        ms = entry["model_latency_ms"]
        sys.stdout.write(
            f"{precision} on {args.hardware}: {entry['successes']}/{entry['episodes']}, host fp32 {host.count('1')}/{len(host)}, "
            f"difference {100 * pairs['difference']:+.1f} points; predict P50 {ms['p50']:.2f} ms; {wall:.0f} s\n"
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
