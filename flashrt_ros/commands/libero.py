"""`flashrt libero`: LIBERO and robosuite tasks with a policy, by the protocol of the reference evaluations."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

from flashrt_core.errors import ConfigError, DeviceError

from ._console import open_console

STRATEGIES = ("sync", "none", "linear", "quintic", "temporal_fusion")
STARTING = "starting simulator and policy (the simulator's first start compiles for a minute) ..."
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90", "robosuite_lift")
HELP = """evaluate a policy on LIBERO, or on robosuite's Lift, which needs no download
examples:
  make libero                                               once: the simulator, in an environment of its own
  flashrt libero --suite robosuite_lift --episodes 5        a scripted policy, to see that everything works
  flashrt libero --suite robosuite_lift --policy demo-replay --episodes 3
  flashrt libero --suite libero_spatial --checkpoint DIR --workers 4
  flashrt libero --suite libero_10 --checkpoint DIR --protocol lerobot --tasks 0-3,7
  flashrt libero --suite robosuite_lift --splice sync none quintic --latency-ms 0 100 200

Every combination of --splice and --latency-ms is run. "sync" is how the reference evaluations do it: the scene stands still
while the policy computes. The others keep moving along the running chunk, with the latency added in simulated time.
A second run with the same --out goes on where the first one stopped. Films of failures are in OUT/failures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--suite", default="robosuite_lift", metavar="NAME", help=", ".join(SUITES))
    add("--checkpoint", metavar="DIR", help="a policy with two views, an 8-d state and 7-d actions")
    add("--policy", help="checkpoint, scripted or demo-replay (default: the checkpoint if there is one, else scripted)")
    add("--protocol", default="openpi", help="openpi (default) or lerobot: steps, seeds, resolution, replan interval")
    add("--tasks", metavar="LIST", help="numbers, for example 0-3,7 (default: all of the suite)")
    add("--episodes", type=int, metavar="N", help="per task (default: the protocol's, 50 or 10; demo-replay: 3, each once)")
    add("--seed", type=int, help="default: the protocol's, 7 or 1000")
    add("--splice", nargs="+", metavar="S", help=f"{', '.join(STRATEGIES)} (default sync; over ros: none)")
    add("--latency-ms", nargs="+", type=float, default=[0.0], metavar="MS", help="added to each policy call")
    add("--replan", type=int, metavar="N", help="actions between policy calls (default: the protocol's, 5 or 10)")
    add("--realtime", action="store_true", help="pace the loop by the wall clock instead of simulated time")
    add("--via", default="inprocess", help="inprocess (default), or ros: simulator and policy node over DDS")
    add("--rate", type=float, metavar="X", help="over ros: times real time (default 1); other than 1: /clock, lock-step")
    add("--camera-hz", type=float, metavar="HZ", help="over ros: rate of the pictures (default 10)")
    add("--gl", default="egl", help="egl (default), osmesa or glfw")
    add("--workers", type=int, default=1, metavar="N", help="simulators at a time, a process each (default 1)")
    add("--ray", metavar="ADDRESS", help="run the episodes on a Ray cluster: its address, or local")
    add("--out", type=Path, default=Path("libero-out"), metavar="DIR", help="default libero-out")
    add("--retry-errors", action="store_true", help="run episodes again that ended in an error of the simulator")
    add("--episode-timeout", type=float, default=1800.0, metavar="S", help="longer is an error (default 1800)")
    add("--assets", type=Path, metavar="DIR", help="LIBERO's meshes and textures (default: ~/.cache/libero/assets)")
    add("--init-states", type=Path, metavar="DIR", help="converted init states (default: where make libero puts them)")
    add("--sim-python", type=Path, metavar="FILE", help="the simulator's Python (default: .venv-libero/bin/python)")
    add("--hardware", default="auto", help="of the checkpoint: auto (default), host or an arch string")
    add("--precision", default="auto", help="auto (default), fp8 or full")


def run(args: argparse.Namespace) -> int:
    from ..sim.libero.report import write_page
    from ..sim.libero.results import summarise
    from ..sim.libero.run import open_results, run_jobs
    from ._progress import EpisodeProgress

    plan = make_plan(args)
    console, command = open_console(), command_line(sys.argv[1:])
    start = time.monotonic()
    file = open_results(plan, args.out)
    jobs = file.missing(args.retry_errors)
    if len(jobs) < len(plan.jobs()):
        console.print(f"{len(plan.jobs()) - len(jobs)} of {len(plan.jobs())} episodes are in {file.path} already")
    if jobs:
        try:
            with EpisodeProgress(console, len(jobs), first=STARTING) as progress:
                outcomes = executor(args, plan, progress.phase)
                run_jobs(file, jobs, outcomes, lambda outcome: progress.episode_done(outcome.episode))
        except KeyboardInterrupt:
            there = len(plan.jobs()) - len(file.missing())
            console.print(f"{there} of {len(plan.jobs())} episodes are in {file.path}; the same command goes on")
            raise
    result = summarise(file, time.monotonic() - start)
    data = args.out / "result.json"
    data.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    page = write_page(args.out, result, command)
    console.print(result_table(result))
    console.print(f"wrote {page}, {data}, {file.path}")
    if not any(cell["episodes"] for cell in result["conditions"]):
        errors = [row["error"] for row in file.rows.values() if row["error"]]
        raise DeviceError(
            "libero", expected="an episode that comes to its end", found=f"{len(errors)} errors; the last: {errors[-1]}",
            hint=f"More in {args.out / 'log'}; --retry-errors runs them again",
        )  # fmt: skip
    return 0


def make_plan(args: argparse.Namespace):
    """The evaluation as the options say it. Raises ConfigError."""
    from ..evaluation.rollout import checkpoint_folder
    from ..sim.libero.env_client import SimulatorSpec
    from ..sim.libero.plan import Condition, EvaluationPlan, parse_tasks
    from ..sim.libero.policies import check_policy
    from ..sim.libero.protocol import DEMONSTRATIONS, check_suite, protocol

    rules, suite = protocol(args.protocol), check_suite(args.suite)
    policy = args.policy or ("checkpoint" if args.checkpoint else "scripted" if suite == "robosuite_lift" else "checkpoint")
    check_policy(policy, args.checkpoint)
    if args.checkpoint is not None:
        checkpoint_folder(args.checkpoint)
    via = _via(args)
    spec = SimulatorSpec(
        suite, rules, args.gl, args.sim_python, args.assets, args.init_states, episode_s=args.episode_timeout
    )
    splices = args.splice or ["none" if args.via == "ros" else "sync"]
    fp8 = {"auto": (), "fp8": (("use_fp8", True),), "full": (("use_fp8", False),)}
    if args.precision not in fp8:
        raise ConfigError("precision", expected="auto, fp8 or full", found=repr(args.precision))
    episodes = DEMONSTRATIONS.get(suite, rules.episodes) if policy == "demo-replay" else rules.episodes
    return EvaluationPlan(
        spec, policy, parse_tasks(args.tasks, suite), episodes if args.episodes is None else args.episodes,
        rules.seed if args.seed is None else args.seed, args.checkpoint,
        (("hardware", args.hardware), *fp8[args.precision]),
        tuple(Condition(s, ms) for s in splices for ms in args.latency_ms), args.replan, args.realtime, args.workers,
        via,
    )  # fmt: skip


def _via(args: argparse.Namespace) -> str:
    """How simulator and policy are joined, in words. Raises ConfigError for options that would have no effect."""
    if args.via not in ("inprocess", "ros"):
        raise ConfigError("via", expected="inprocess or ros", found=repr(args.via))
    if args.via == "ros":
        if args.ray is not None:
            raise ConfigError("--via ros", expected="this machine", found=f"--ray {args.ray}")
        return f"ros, {_rate(args):g} times real time, pictures at {_camera_hz(args):g} Hz"
    for name in ("rate", "camera_hz"):
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')}", expected="--via ros with it", found=f"--via {args.via}")
    return args.via


def _rate(args: argparse.Namespace) -> float:
    return 1.0 if args.rate is None else args.rate


def _camera_hz(args: argparse.Namespace) -> float:
    return 10.0 if args.camera_hz is None else args.camera_hz


def executor(args: argparse.Namespace, plan, progress):
    """Where the episodes run: here, on a Ray cluster, or over DDS."""
    if args.via == "ros":
        from ..sim.libero.ros_run import run_over_ros

        return run_over_ros(plan, progress, _rate(args), _camera_hz(args))
    if args.ray is not None:
        from ..sim.libero.ray_run import run_on_ray

        return run_on_ray(plan, args.ray, progress)
    from ..sim.libero.env_client import look
    from ..sim.libero.policies import make_policy, worker_spec
    from ..sim.libero.run import run_here

    if plan.checkpoint is not None:  # a missing simulator is said before minutes of loading
        look(plan.simulator, args.out / "log/simulator0.log")
    return run_here(plan, make_policy(plan.policy, plan.simulator.suite, worker_spec(plan), progress))


def command_line(argv: list[str]) -> str:
    """The command that repeats this run."""
    return "flashrt " + shlex.join(argv) if argv and argv[0] == "libero" else "flashrt libero"


def result_table(result: dict[str, object]):
    """The figures as a rich table: a row per condition and task."""
    from rich import box
    from rich.table import Table

    from ..evaluation.html import milliseconds, short_number
    from ..sim.libero.report import interval, rate

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "success", "95 % interval", "mean steps", "seconds", "policy P50", "CB1", "CB4 mean"):
        table.add_column(name, justify="left" if not name else "right")
    for cell in result["conditions"]:
        b, gap = cell["boundary"], cell["boundary"]["cb4_mean"]
        table.add_row(
            f"[bold]{cell['splice']}, {cell['latency_ms']:g} ms[/]", f"[bold]{rate(cell)}[/]", interval(cell),
            short_number(cell["mean_steps_of_successes"]), short_number(cell["mean_task_s_of_successes"]),
            milliseconds(cell["model_latency_ms"]["p50"]), short_number(b["cb1_ratio"]),
            "-" if gap is None else f"{1e3 * gap:.1f} mm",
        )  # fmt: skip
        if len(cell["tasks"]) > 1:
            for t in cell["tasks"]:
                table.add_row(f"  {t['task']} {t['name'].replace('_', ' ')[:60]}", rate(t), interval(t), "", "", "", "", "")
    cost = result["cost"]
    share = ", ".join(f"{k} {100 * v:.1f} %" for k, v in cost["share"].items() if v is not None)
    table.caption = f"{short_number(cost['steps_per_s'])} control steps/s a simulator; {share} of the time"
    return table
