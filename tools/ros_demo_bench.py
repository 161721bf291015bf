"""Puts a run over DDS and the in-process run of the same seeds into bench/results/ros_demo.json and docs/ros_demo.md.

    make ros-demo OUT=ros-demo-out && flashrt demo --realtime --out demo-out
    python tools/ros_demo_bench.py ros-demo-out/result.json demo-out/result.json --load 1.2
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOC = ROOT / "bench/results/ros_demo.json", ROOT / "docs/ros_demo.md"
MARKED = re.compile(r"(<!-- ros figures -->\n)(.*?)(<!-- end ros figures -->)", re.DOTALL)
KEPT = (
    "episodes", "successes", "success_rate", "success_wilson95", "errors", "model_latency_ms", "tick_misses", "ticks", "boundary",
    "lost_or_repeated_actions", "actions", "held_steps", "start_ticks", "most_commands_waiting", "tick_lateness_ms",
    "node_tick_late_ms", "skipped_ticks", "image_age_ms", "transport_delay_ms", "tick_late_ms", "sim", "bag", "ros", "splice",
    "replan_ticks", "realtime", "seed", "version", "wall_s", "machine",
)  # fmt: skip


def bench(ros: dict, in_process: dict, load: float) -> dict:
    """What is kept of both results. load: the machine's load average before the run, for the reader."""
    if [r["seed"] for r in ros["rows"]] != [r["seed"] for r in in_process["rows"]]:
        raise SystemExit("the two results are of different seeds")
    out = {name: {k: r[k] for k in KEPT if k in r} for name, r in (("dds", ros), ("in_process", in_process))}
    for name, r in (("dds", ros), ("in_process", in_process)):
        out[name]["success_by_seed"] = "".join("01"[row["success"]] for row in r["rows"])
        out[name]["mean_steps"] = round(sum(row["steps"] for row in r["rows"]) / len(r["rows"]), 2)
    return {"load_average_before": load, **out}


def table(data: dict) -> str:
    """The figures as Markdown."""
    dds, own = data["dds"], data["in_process"]
    late, age, command = dds["tick_lateness_ms"], dds["image_age_ms"], dds["transport_delay_ms"]["command"]
    image = dds["transport_delay_ms"]["agentview/image"]
    a = dds["actions"]

    def ms(values: dict, *names: str) -> str:
        return " / ".join(f"{values[n]:.1f}" for n in names) + " ms"

    rows = [
        ("success", f"{dds['successes']} of {dds['episodes']}; in one process, same seeds: {own['successes']}"),
        ("mean steps", f"{dds['mean_steps']:.1f}; in one process: {own['mean_steps']:.1f}"),
        ("lost or repeated action indices", str(dds["lost_or_repeated_actions"])),
        ("commands published / executed / after an episode's end", f"{a['published']} / {a['applied']} / {a['surplus']}"),
        ("control steps without a command (held)", f"{dds['held_steps']} of {dds['ticks']}"),
        ("tick lateness as published, P50 / P99 / P99.9 / max", ms(late, "p50", "p99", "p999", "max")),
        ("image age at the request, P50 / P95 / P99", ms(age, "p50", "p95", "p99")),
        ("transport of commands, P50 / P95 / P99", ms(command, "p50", "p95", "p99")),
        ("transport of images to the recorder, P50 / P95 / P99", ms(image, "p50", "p95", "p99")),
        ("policy latency, P50 / P95 / P99", ms(dds["model_latency_ms"], "p50", "p95", "p99")),
        ("drawing both cameras, P50 / P95", ms(dds["sim"]["render_ms"], "p50", "p95")),
        ("control step of the simulation late, P50 / P99", ms(dds["sim"]["step_late_ms"], "p50", "p99")),
        ("switches at the row of the elapsed ticks (CB6)", f"{100 * dds['boundary']['cb6_index_law']:.0f} %"),
    ]  # fmt: skip
    lines = ["| figure | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines) + (
        f"\n\nMachine: {dds['machine']['cpu']}, 2 cores shared with other work; load average before the run "
        f"{data['load_average_before']:g}. Seeds {dds['seed']} on, version {dds['version']}."
    )


def fill(text: str, data: dict) -> str:
    """The page with the table put in."""
    return MARKED.sub(lambda m: f"{m[1]}{table(data)}\n{m[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ros", type=Path, help="result.json of make ros-demo")
    parser.add_argument("in_process", type=Path, help="result.json of flashrt demo, same seeds")
    parser.add_argument("--load", type=float, required=True, help="load average before the run over DDS")
    args = parser.parse_args()
    data = bench(*(json.loads(f.read_text()) for f in (args.ros, args.in_process)), args.load)
    RESULTS.write_text(json.dumps(data, indent=1) + "\n")
    DOC.write_text(fill(DOC.read_text(encoding="utf-8"), data), encoding="utf-8")


if __name__ == "__main__":
    main()
