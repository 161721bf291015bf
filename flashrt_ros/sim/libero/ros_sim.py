"""A LIBERO or robosuite task as a ROS node: cameras, state, arm joints, prompt and /clock out, one command per step in.

`python -m flashrt_ros.sim.libero.ros_sim --suite robosuite_lift --episodes 5` drives a policy node that is running. The node,
its episodes and its accounts of commands are those of the tabletop simulation (sim/bridge.py); only the scene is another.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState

from flashrt_core.errors import DeviceError, FlashRTError

from ...bags.event_log import EventWriter
from ...config.config_file import load_robot
from ...convert import doubles, to_time
from ..bridge import OUT, Episodes, SimBridge, node_figures, spinning
from ..commands import CommandLedger
from ..lockstep import Lockstep, SimEpisode
from ..operator import NodeOperator
from ..pacer import Pacer
from .env_client import SimulatorEnv, SimulatorSpec
from .plan import EvaluationPlan, parse_tasks
from .protocol import PROTOCOLS, SUITES, protocol
from .trial import MAX_FAILED_STARTS

ARM = tuple(f"panda_joint{i}" for i in range(1, 8))
ARM_TOPIC = "arm/joint_states"
ROBOT, NAME = "libero_panda", "libero_sim"


class RosEnv(SimulatorEnv):
    """A simulator that breaks while it draws for the publisher ends the episode at its next step, as one that breaks there."""

    _failed: DeviceError | None = None

    def reset(self, seed: int) -> None:
        self._failed = None
        super().reset(seed)

    def observe(self) -> dict[str, object]:
        try:
            return super().observe()
        except DeviceError as error:
            self._failed = error
            side = self.spec.protocol.resolution
            return {"images": [np.zeros((side, side, 3), np.uint8)] * 2, "state": self.state()}

    def step(self, action: np.ndarray) -> None:
        if self._failed is not None:
            raise self._failed
        super().step(action)


class LiberoBridge(SimBridge):
    """Also the arm's joints, for whoever wants to see the arm; no policy reads them."""

    def __init__(self, *args, **fields):
        super().__init__(*args, name=NAME, **fields)
        self._arm = self.create_publisher(JointState, ARM_TOPIC, OUT)

    def publish(self, episode: SimEpisode | None, behind: bool) -> None:
        super().publish(episode, behind and not self.sim_time)  # simulated time waits for the pictures
        message = JointState(name=list(ARM), position=doubles(self._env.arm_joints))
        message.header.stamp = to_time(self._now_ns)
        self._arm.publish(message)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros_sim", description="A LIBERO or robosuite task as a ROS node.")
    add = parser.add_argument
    add("--suite", default="robosuite_lift", choices=SUITES)
    add("--protocol", default="openpi", choices=PROTOCOLS)
    add("--tasks", help="numbers, for example 0-3,7 (default: all)")
    add("--episodes", type=int, default=5, metavar="N", help="per task")
    add("--jobs", type=Path, metavar="FILE", help="JSON: [[task, trial], ...] instead")
    add("--seed", type=int, help="default: the protocol's")
    add("--robot", default=ROBOT, help="robot file by name or path")
    add("--node", default="policy_node", help="name of the policy node")
    add("--rate", type=float, default=1.0, help="times real time; other than 1: the node needs use_sim_time")
    add("--camera-hz", type=float, default=10.0, help="20, 10, 5, 4 (default 10)")
    add("--gl", default="egl", choices=("egl", "osmesa", "glfw"))
    for name, text in (("sim-python", "the simulator's Python"), ("assets", "LIBERO's meshes"), ("init-states", "init states")):
        add(f"--{name}", type=lambda word: Path(word) if word else None, metavar="PATH", help=text)
    add("--episode-timeout", type=float, default=1800.0, metavar="S", help="longer is an error (default 1800)")
    add("--events", type=Path, help="write episodes and progress as JSON lines")
    add("--log", type=Path, default=Path("libero_sim.log"), help="of the simulator process")
    return parser


def make_env(args: argparse.Namespace) -> tuple[RosEnv, list[int]]:
    """The environment, and the seeds of its episodes. Raises ConfigError."""
    rules = protocol(args.protocol)
    spec = SimulatorSpec(
        args.suite, rules, args.gl, args.sim_python, args.assets, args.init_states, episode_s=args.episode_timeout
    )
    seed = rules.seed if args.seed is None else args.seed
    plan = EvaluationPlan(spec, "", parse_tasks(args.tasks, args.suite), args.episodes, seed)
    wanted = None if args.jobs is None else {tuple(pair) for pair in json.loads(args.jobs.read_text(encoding="utf-8"))}
    jobs = [job for job in plan.jobs() if wanted is None or (job.task, job.trial) in wanted]
    env = RosEnv(spec, seed, args.log)
    env.plan = {job.seed(seed): (job.task, job.trial, None) for job in jobs}
    return env, list(env.plan)


def show_a_scene(env: RosEnv, seeds: list[int]) -> None:
    """Put the first scene in place that can be, so that there is something to publish from the start; one that cannot will be
    an error when its turn comes (F83). Raises the DeviceError when MAX_FAILED_STARTS in a row cannot."""
    some = seeds[:MAX_FAILED_STARTS]
    for seed in some:
        try:
            env.reset(seed)
            return
        except DeviceError:
            env.close()
            if seed == some[-1]:
                raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the episodes. Exit code 0 done, 1 the node cannot go on, 2 bad arguments, 130 interrupted."""
    words = rclpy.utilities.remove_ros_args(sys.argv if argv is None else [NAME, *argv])[1:]
    args = build_parser().parse_args(words)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    rclpy.init(args=sys.argv if argv is None else None, signal_handler_options=SignalHandlerOptions.NO)
    events = EventWriter(args.events) if args.events else None
    try:
        return _run(args, ended, events)
    except FlashRTError as error:
        sys.stderr.write(f"{NAME}: {error}\n")
        if events is not None:
            events.write("fatal", reason=str(error))
        return 2
    finally:
        rclpy.try_shutdown()


def _run(args: argparse.Namespace, ended: threading.Event, events: EventWriter | None) -> int:
    env, seeds = make_env(args)
    show_a_scene(env, seeds)
    ledger = CommandLedger()
    bridge = LiberoBridge(load_robot(args.robot), env, args.node, ledger, camera_hz=args.camera_hz, rate=args.rate)
    operator = NodeOperator(bridge, args.node)

    def ended_one(episode: SimEpisode) -> None:
        spent = {"physics_s": sum(env.step_ms) / 1e3, "render_s": sum(env.render_ms) / 1e3, "reset_s": env.reset_s}
        row = {**episode.to_json(), "node": node_figures(operator), **spent}
        bridge.say_result({k: row[k] for k in ("seed", "prompt", "success", "steps", "missing", "audit", "error")})
        if events is not None:
            task = env.plan[episode.seed][0]
            events.write("episode", name=env.tasks[task][0] if episode.error is None else "", **row)
        if episode.error is not None:
            env.close()

    lockstep = Lockstep(
        env, ledger, operator, seeds, on_scene=lambda episode: bridge.say_prompt(episode.prompt), on_episode=ended_one
    )
    try:
        with spinning(bridge):
            return Episodes(bridge, operator, lockstep, Pacer(1.0 / env.control_hz, args.rate), events).run(ended)
    finally:
        env.close()


if __name__ == "__main__":
    sys.exit(main())
