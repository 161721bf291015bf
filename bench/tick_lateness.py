"""Tick lateness of the control loop with the policy worker idle and at full rate: prints a table, writes JSON.

    python bench/tick_lateness.py                    50 Hz, the bundled policy in its own process, 3 x 20 s each way
    python bench/tick_lateness.py --in-process       also with the policy in the control process, for comparison

Lateness is the time from a tick's deadline (steady clock) to its beginning. Idle and busy turns alternate, so that what
others do on the machine meets both. The cameras (2 x 112 x 112 at 60 Hz) and joint states (100 Hz) come from a second
thread of the process, as they do in the node, in every turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from flashrt_core.runtime.clock import SteadyClock
from flashrt_core.runtime.rtc import AsyncChunkRunner
from flashrt_ros.config.config_file import load_robot
from flashrt_ros.config.settings import NodeConfig
from flashrt_ros.control.guard import Guard
from flashrt_ros.control.health import Health
from flashrt_ros.control.loop import ControlLoop
from flashrt_ros.control.ticker import TickThread
from flashrt_ros.inputs.observation import ObservationBuilder
from flashrt_ros.sim.tabletop import POLICY_DIR
from flashrt_ros.worker.interface import (
    InProcessWorker,
    PolicyWorker,
    Script,
    ScriptedWorker,
    SubprocessWorker,
    WorkerSpec,
)

HERE = Path(__file__).resolve().parent
PERCENTILES = (50, 99, 99.9, 100)
QUIET = 0.05  # share of the machine that others may use in a turn that counts as quiet


class Feeder:
    """Puts images and joint states into the slots, as the node's subscriptions do."""

    def __init__(self, inputs: ObservationBuilder):
        self._inputs, self._stop = inputs, threading.Event()
        self._frames = np.random.default_rng(0).integers(0, 255, (4, 112, 112, 3), dtype=np.uint8)
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def start(self) -> None:
        self.put(0)
        self.put(1)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def put(self, k: int) -> None:
        """Joint state of step k at 100 Hz; images on three of five steps, which is 60 Hz."""
        stamp = 1 + k * 10_000_000
        names = self._inputs.robot.state_names
        state = [0.001 * (k % 100), 0.0, 0.2, 0.0, 0.0, 0.0, 0.04, -0.04]
        self._inputs.put_state(names, state, stamp)
        if k % 5 in (0, 1, 3):
            for view in self._inputs.views:
                image = self._frames[k % 4].reshape(-1)
                self._inputs.put_image(view, 112, 112, "rgb8", 336, image, stamp)

    def _run(self) -> None:
        start, k = time.monotonic(), 0
        while not self._stop.is_set():
            k += 1
            self.put(k)
            time.sleep(max(0.0, start + 0.01 * k - time.monotonic()))


def one_turn(worker: PolicyWorker, hz: float, seconds: float) -> dict[str, object]:
    """Run the control loop for `seconds`; lateness and cost of every tick in seconds."""
    robot = dataclasses.replace(load_robot("tabletop"), control_hz=hz)
    clock = SteadyClock()
    plan = worker.info.horizon
    config = dataclasses.replace(
        NodeConfig(control_hz=hz).runner_config(robot), start_next_at=1 if plan < 100 else plan
    )
    runner = AsyncChunkRunner(worker, config, clock=clock)
    inputs = ObservationBuilder(robot, image_size=112, clock=clock, prompt="pick up the red block")
    quiet = logging.getLogger("bench")
    quiet.disabled = True
    loop = ControlLoop(robot, inputs, runner, Guard(robot, 1 / hz), Health(logger=quiet), [], clock, worker)
    late, cost = [], []

    def tick(late_s: float, skipped: int) -> None:
        begin = time.perf_counter()
        loop.tick(late_s, skipped)
        late.append(late_s)
        cost.append(time.perf_counter() - begin)

    feeder, ticker = Feeder(inputs), TickThread(tick, 1 / hz)
    feeder.start()
    loop.activate()
    before = cpu_times()
    ticker.start()
    time.sleep(seconds)
    others = others_share(before, cpu_times())
    ticker.stop()
    feeder.stop()
    stats = loop.stats()
    runner.close()
    return {
        "late": late, "cost": cost, "skipped": ticker.skipped, "late_half": ticker.late_half, "others": others,
        "requests": stats["chunks_completed"], "index_errors": loop.counters.index_errors, "seconds": seconds,
    }  # fmt: skip


def all_turns(args: argparse.Namespace, kinds: dict[str, PolicyWorker]) -> tuple[dict[str, list], int]:
    """Rounds of one turn of each kind. Rounds in which others used the machine are dropped and made again, up to
    `--tries`; then the quietest are taken. Returns the turns by kind and how many rounds were dropped."""
    rounds = []
    for _ in range(max(args.tries, args.rounds)):
        long_enough = round(args.hz * args.seconds) + 1000  # one chunk for the whole turn: nobody is asked again
        idle = ScriptedWorker(Script(constant=0.0, horizon=long_enough), sleep=None)
        idle.start()
        one = {"idle": one_turn(idle, args.hz, args.seconds)}
        one |= {name: one_turn(worker, args.hz, args.seconds) for name, worker in kinds.items()}
        rounds.append((max(turn["others"] for turn in one.values()), one))
        if sum(others <= QUIET for others, _ in rounds) >= args.rounds:
            break
    kept = [one for _, one in sorted(rounds, key=lambda r: r[0])[: args.rounds]]
    return {name: [one[name] for one in kept] for name in kept[0]}, len(rounds) - len(kept)


def cpu_times() -> tuple[float, float, float]:
    """(all CPU seconds of the machine, busy ones, ours with our children alive), since boot or start."""
    hertz = os.sysconf("SC_CLK_TCK")
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    ours = 0
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    for pid in [os.getpid(), *(int(p) for c in children for p in c.read_text().split())]:
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ours += int(stat[11]) + int(stat[12])
    return sum(fields) / hertz, (sum(fields) - fields[3] - fields[4]) / hertz, ours / hertz


def others_share(before: tuple[float, ...], after: tuple[float, ...]) -> float:
    """Share of the machine that was used by processes that are not ours."""
    total, busy, ours = (b - a for a, b in zip(before, after, strict=True))
    return max(0.0, (busy - ours) / total) if total else 0.0


def summary(turns: list[dict[str, object]]) -> dict[str, object]:
    """Figures of all turns of one kind together."""
    late, cost = (np.concatenate([t[name] for t in turns]) for name in ("late", "cost"))
    return {
        "ticks": len(late),
        "lateness_ms": {f"p{p:g}": round(float(np.percentile(late, p)) * 1e3, 4) for p in PERCENTILES},
        "cost_ms": {f"p{p:g}": round(float(np.percentile(cost, p)) * 1e3, 4) for p in PERCENTILES},
        "later_than_half_period": sum(t["late_half"] for t in turns),
        "skipped": sum(t["skipped"] for t in turns),
        "requests_per_s": round(sum(t["requests"] for t in turns) / sum(t["seconds"] for t in turns), 2),
        "index_errors": sum(t["index_errors"] for t in turns),
        "others_cpu_share": round(float(np.mean([t["others"] for t in turns])), 4),
    }


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Alternate idle and busy turns."""
    spec = WorkerSpec(checkpoint=str(POLICY_DIR), hardware="host", threads=args.threads, nice=args.nice)
    kinds: dict[str, PolicyWorker] = {"busy": SubprocessWorker(spec)}
    if args.in_process:
        kinds["in_process"] = InProcessWorker(spec)
    for worker in kinds.values():
        worker.start()
    turns, dropped = all_turns(args, kinds)
    for worker in kinds.values():
        worker.close()
    out = {name: summary(t) for name, t in turns.items()}
    idle = out["idle"]["lateness_ms"]
    ratios = {
        name: {p: round(out[name]["lateness_ms"][p] / idle[p], 3) for p in ("p50", "p99", "p99.9")} for name in kinds
    }
    quiet = max(o["others_cpu_share"] for o in out.values()) <= QUIET
    return {
        "benchmark": "tick_lateness", "clock": "CLOCK_MONOTONIC", "hz": args.hz, "seconds_per_turn": args.seconds,
        "rounds": args.rounds, "rounds_dropped": dropped, "quiet_machine": quiet,
        "worker": {"threads": args.threads, "nice": args.nice},
        "cpus": os.cpu_count(), "cpu": cpu_name(), "python": platform.python_version(), "commit": commit(),
        "figures": out, "ratio_to_idle": ratios,
    }  # fmt: skip


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def table(result: dict[str, object]) -> str:
    lines = [f"{'lateness, ms':14}{'P50':>9}{'P99':>9}{'P99.9':>9}{'max':>9}{'> T/2':>8}{'req/s':>8}{'others CPU':>12}"]
    for name, f in result["figures"].items():
        values = "".join(f"{v:9.3f}" for v in f["lateness_ms"].values())
        lines.append(
            f"{name:14}{values}{f['later_than_half_period']:8d}{f['requests_per_s']:8.1f}{f['others_cpu_share']:12.1%}"
        )
    for name, r in result["ratio_to_idle"].items():
        lines.append(f"{name + ' / idle':14}" + "".join(f"{v:9.2f}" for v in r.values()))
    for name, f in result["figures"].items():
        lines.append(f"tick cost {name}: P50 {f['cost_ms']['p50']:.3f} ms, P99 {f['cost_ms']['p99']:.3f} ms")
    lines.append(f"{result['hz']:g} Hz, {result['cpus']} CPUs, {result['cpu']}, commit {result['commit']}")
    lines.append(
        f"{result['rounds']} rounds of {result['seconds_per_turn']:g} s, {result['rounds_dropped']} dropped for others' use"
    )
    if not result["quiet_machine"]:
        lines.append("The machine was not quiet: these figures are not those of the goal.")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hz", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one turn (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind (default 3)")
    parser.add_argument("--tries", type=int, default=10, help="rounds to make in search of quiet ones (default 10)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the policy (default 1)")
    parser.add_argument("--nice", type=int, default=5, help="added to the worker's niceness (default 5, as the node does)")
    parser.add_argument("--in-process", action="store_true", help="also measure with the policy in this process")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "tick_lateness.json")
    args = parser.parse_args(argv)
    result = measure(args)
    print(table(result))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
