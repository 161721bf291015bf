"""An evaluation over DDS: the policy node as on a robot, the simulator as another process; starts, follows and ends both."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError, DeviceError

from ...bags.event_log import EventFollower
from ...evaluation.closed_loop import Episode
from ...worker.child import Child, start
from .plan import SYNC, Condition, EvaluationPlan, Job
from .policies import POLICY_PX
from .trial import Outcome

NODE = "policy_node"
LOOK_S = 0.1
LIFT_SCRIPT = {"policy": "lift", "image_size": POLICY_PX}


def run_over_ros(plan: EvaluationPlan, progress: Callable[[str], None], rate: float = 1.0, camera_hz: float = 10.0):
    """Outcomes of episodes over DDS, one after another. rate: times real time; other than 1: simulated time (/clock), and the
    simulation waits for the node's command. Raises ConfigError for what cannot be run this way."""
    for condition in plan.conditions:
        if condition.splice == SYNC or condition.latency_ms:
            raise ConfigError(
                "--via ros", expected="a splice strategy and no added latency: the node does not wait, and time is what it is",
                found=condition.name,
            )  # fmt: skip
    for good, expected, found in (
        (plan.policy != "demo-replay", "a checkpoint or the scripted policy", plan.policy),
        (plan.workers == 1, "one simulator", f"--workers {plan.workers}"),
        (not plan.realtime, "--rate 1 for real time", "--realtime"),
    ):
        if not good:
            raise ConfigError("--via ros", expected=expected, found=found)
    if find_spec("rclpy") is None:
        hint = "Source a ROS 2 install; or make ros-build, then .venv-ros/bin/flashrt libero"
        raise ConfigError("--via ros", expected="ROS 2", found="no rclpy", hint=hint)

    def outcomes(work: list[list[Job]], log: Path) -> Iterator[Outcome]:
        jobs = [job for unit in work for job in unit]
        for condition in plan.conditions:
            some = [job for job in jobs if job.condition == condition]
            if some:
                yield from _run_condition(plan, condition, some, log, progress, rate, camera_hz)

    return outcomes


def node_words(plan: EvaluationPlan, condition: Condition, simulated: bool) -> list[str]:
    """The policy node's parameters."""
    settings: dict[str, object] = {
        "robot": "libero_panda", "splice": condition.splice, "replan_ticks": plan.replan, "use_sim_time": str(simulated).lower(),
    }  # fmt: skip
    if plan.checkpoint is None:
        settings["script"] = json.dumps(json.dumps(LIFT_SCRIPT))  # quoted: YAML must not take it for a mapping
    else:
        worker = dict(plan.worker)
        settings |= {"policy.checkpoint": plan.checkpoint, "policy.hardware": worker.get("hardware", "auto")}
        if worker.get("use_fp8") is not None:
            settings["policy.precision"] = "fp8" if worker["use_fp8"] else "full"
    return ["--ros-args", *(word for name, value in settings.items() for word in ("-p", f"{name}:={value}"))]


def sim_words(plan: EvaluationPlan, jobs: Path, log: Path, rate: float, camera_hz: float) -> list[str]:
    """The simulation's command line."""
    spec = plan.simulator
    words = [
        "--suite", spec.suite, "--protocol", spec.protocol.name, "--tasks", ",".join(map(str, plan.tasks)),
        "--episodes", plan.episodes, "--seed", plan.seed, "--jobs", jobs, "--node", NODE, "--rate", rate,
        "--camera-hz", camera_hz, "--gl", spec.gl, "--episode-timeout", spec.episode_s, "--events", log / "simulation.jsonl",
        "--log", log / "simulator.log",
    ]  # fmt: skip
    for name, value in (("sim-python", spec.python), ("assets", spec.assets), ("init-states", spec.init_states)):
        words += [f"--{name}", value] if value is not None else []
    return [str(word) for word in words]


def _run_condition(plan, condition, jobs, log: Path, progress, rate: float, camera_hz: float) -> Iterator[Outcome]:
    listed, events = log / "jobs.json", log / "simulation.jsonl"
    listed.write_text(json.dumps([[job.task, job.trial] for job in jobs]), encoding="utf-8")
    events.unlink(missing_ok=True)
    environment = {
        "ROS_DOMAIN_ID": str(random.SystemRandom().randrange(1, 102)), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str((log / "ros").absolute()),
    }  # fmt: skip
    by_seed = {job.seed(plan.seed): job for job in jobs}
    children: list[Child] = []
    try:
        for name, module, words in (
            ("node", "flashrt_ros.main", node_words(plan, condition, rate != 1.0)),
            ("simulation", "flashrt_ros.sim.libero.ros_sim", sim_words(plan, listed, log, rate, camera_hz)),
        ):
            children.append(start(name, module, words, environment=environment, log=log / f"{name}.log"))
        yield from _follow(events, children, by_seed, progress, silence_s=plan.simulator.episode_s + plan.simulator.start_s)
    finally:
        for child in reversed(children):
            child.end()


def _follow(file: Path, children: list[Child], by_seed: dict[int, Job], progress, silence_s: float) -> Iterator[Outcome]:
    follower, heard, last = EventFollower(file), time.monotonic(), time.monotonic()
    while True:
        time.sleep(LOOK_S)
        for event in follower.news():
            heard = time.monotonic()
            if event["event"] == "node":
                progress(f"{event['lifecycle']}: {event['phase']}")
            elif event["event"] == "episode":
                yield outcome(event, by_seed[event["seed"]], heard - last)
                last = heard
            elif event["event"] == "fatal":
                raise DeviceError("over DDS", expected="to run the episodes", found=event["reason"])
            elif event["event"] == "done":
                return
        for child in children:
            if not child.running and child.code != 0:
                raise DeviceError(
                    f"the {child.name} process", expected="to run", found=f"exit code {child.code}",
                    hint=f"The end of {child.log}:\n{child.last_words()}",
                )  # fmt: skip
        if time.monotonic() - heard > silence_s:
            raise DeviceError("the simulation", expected="progress", found=f"none for {silence_s:g} s")


def outcome(event: dict, job: Job, wall_s: float) -> Outcome:
    """An episode as the simulation told it. Held steps count as steps without a row; lost or repeated commands are an error."""
    commands = np.array(event["commands"], np.float32).reshape(-1, 7)
    error, audit = event["error"], event["audit"]
    wrong = audit.get("lost", 0) + audit.get("repeated", 0)
    if error is None and wrong:
        error = f"{wrong} commands lost or repeated"
    episode = Episode(
        event["seed"], event["prompt"], bool(event["success"]), int(event["steps"]), commands,
        tick_misses=int(event["missing"]), error=error,
    )  # fmt: skip
    return Outcome(job, episode, event["name"], wall_s, event["reset_s"], event["physics_s"], event["render_s"], None)
