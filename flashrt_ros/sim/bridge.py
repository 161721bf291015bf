"""The tabletop task as a ROS node: cameras, joint states, prompt and /clock out, one command per control step in.

`python -m flashrt_ros.sim.bridge --episodes 20 --seed 500000` drives a policy node that is running (it configures it when
needed). Logic is in `lockstep.py`, `commands.py` and `pacer.py`; here are the messages.
"""

from __future__ import annotations

import argparse
import array
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String

from flashrt_core.errors import ConfigError, FlashRTError

from ..bags.event_log import EventWriter
from ..config.config_file import load_robot
from ..config.settings import RobotConfig
from ..convert import doubles, to_time
from ..evaluation.metrics import percentiles
from .commands import Command, CommandLedger
from .lockstep import SHOT_PX, Lockstep, SimEpisode, Stage
from .operator import NodeOperator
from .pacer import Pacer

PROMPT_AGAIN_STEPS = 10
FIRST_S, LOOK_S = 3.0, 0.01  # wall time that simulated time stands still for an episode's first command; steps in it
PATIENCE_S, LOCKSTEP_S = 0.5, 20.0  # wall time that simulated time waits for a command; then the step is held
RESULTS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
OUT, STREAM = QoSProfile(depth=10), QoSProfile(depth=3)
COMMANDS_IN = QoSProfile(depth=100)  # deeper than the node's: a stopped executor thread must not cost a command


class SimBridge(Node):
    """Publishes what a robot of `robot`'s file would, for a TabletopEnv or anything like it, and takes its commands."""

    def __init__(
        self, robot: RobotConfig, env, policy_node: str, ledger: CommandLedger, *, camera_hz: float, rate: float,
        name: str = "tabletop_sim", lockstep: bool = False,
    ):  # fmt: skip
        """lockstep: simulated time also at rate 1."""
        super().__init__(name)
        self._env, self._ledger, self._robot = env, ledger, robot
        every = env.control_hz / camera_hz
        if not (camera_hz > 0 and every >= 1 and abs(every - round(every)) < 1e-6):
            raise ConfigError("camera_hz", expected=f"{env.control_hz} divided by a whole number", found=camera_hz)
        self._every, self._period_ns = round(every), round(1e9 / env.control_hz)
        self.sim_time, self._now_ns = rate != 1.0 or lockstep, time.time_ns()
        self.patience_s = LOCKSTEP_S if lockstep else PATIENCE_S
        self._images = {c.view: self.create_publisher(Image, c.topic, STREAM) for c in robot.cameras}
        self._state = self.create_publisher(JointState, robot.topics.state, OUT)
        self._clock = self.create_publisher(Clock, "/clock", OUT)
        prompt = robot.topics.prompt.replace("~", f"/{policy_node}", 1)
        self._prompt = self.create_publisher(String, prompt, OUT)
        self._results = self.create_publisher(String, "~/episode", RESULTS)
        self.create_subscription(
            Float64MultiArray, robot.topics.forward, lambda message, info: self._on_command(message, info), COMMANDS_IN
        )
        self._messages = {view: Image(encoding="rgb8") for view in self._images}
        self._shown: tuple[int, ...] = ()  # what the newest pictures show
        self._steps = 0
        self.render_ms: list[float] = []

    def _on_command(self, message: Float64MultiArray, info: dict) -> None:
        now = time.time_ns()
        writer = bytes(info["publisher_gid"]["data"])
        values = np.frombuffer(message.data, np.float64).astype(np.float32)
        if values.shape == (7,):
            self._ledger.put(
                writer, Command(info["publication_sequence_number"] - 1, values, info["source_timestamp"], now)
            )

    def say_prompt(self, prompt: str) -> None:
        self._prompt.publish(String(data=prompt))

    def say_result(self, row: dict[str, object]) -> None:
        self._results.publish(String(data=json.dumps(row, allow_nan=False)))

    def publish(self, episode: SimEpisode | None, behind: bool) -> None:
        """Pictures when they are due, the state of the same moment, and last the time: a tick in simulated time then sees
        both, and the state never runs ahead of the pictures."""
        self._now_ns = self._now_ns + self._period_ns if self.sim_time else time.time_ns()
        stamp = to_time(self._now_ns)
        # A step that is late leaves the pictures to the next one: pacing goes first. Simulated time waits for them.
        if self._steps % self._every == 0 and (self.sim_time or not behind):
            self._publish_images(episode, stamp)
        state = JointState(name=list(self._robot.state_names), position=doubles(self._env.state()))
        state.header.stamp = stamp
        self._state.publish(state)
        self._clock.publish(Clock(clock=stamp))
        self._steps += 1

    def _publish_images(self, episode: SimEpisode | None, stamp) -> None:
        shown = (-1 if episode is None else episode.seed, self._env.steps)
        if shown != self._shown:  # a scene that stands still is drawn once
            start = time.perf_counter()
            images = self._env.observe()["images"]
            self.render_ms.append((time.perf_counter() - start) * 1e3)
            self._shown = shown
            for view, picture in zip(self._images, images, strict=True):
                message = self._messages[view]
                message.height, message.width = picture.shape[:2]
                message.step = 3 * message.width
                data = array.array("B")
                data.frombytes(np.ascontiguousarray(picture).data.cast("B"))
                message.data = data
        for view, publisher in self._images.items():
            message = self._messages[view]
            message.header.stamp, message.header.frame_id = stamp, view
            publisher.publish(message)


class Episodes:
    """The main loop: waits for deadlines, steps, publishes, writes events."""

    def __init__(
        self, bridge: SimBridge, operator: NodeOperator, lockstep: Lockstep, pacer: Pacer, events: EventWriter | None
    ):
        self.bridge, self.operator, self.lockstep, self.pacer, self.events = bridge, operator, lockstep, pacer, events
        self._told: tuple[str, str] = ("", "")
        self.late_ms: list[float] = []  # of the steps of episodes

    def run(self, ended: threading.Event) -> int:
        """Until the last episode is over. Exit code 0, 1 when it cannot go on, 130 when told to end."""
        while not ended.is_set():
            self._wait()
            late_ms = self.pacer.step()
            self.operator.poll()
            self.lockstep.step()
            if self.lockstep.stage is Stage.RUN:
                self.late_ms.append(late_ms)
            else:
                self.pacer.start_at(self.pacer.deadline_ns)  # nothing moves between episodes: nothing to make up for
            if self.lockstep.stage is Stage.SHOW and self.bridge._steps % PROMPT_AGAIN_STEPS == 0:
                self.bridge.say_prompt(self.lockstep.episode.prompt)
            self.bridge.publish(self.lockstep.episode, self.pacer.behind)
            self._tell()
            if self.lockstep.fatal is not None:
                self._event("fatal", reason=self.lockstep.fatal)
                self.bridge.get_logger().error(self.lockstep.fatal)
                return 1
            if self.lockstep.stage is Stage.DONE:
                self._event("done", **self.figures())
                return 0
        return 130

    def figures(self) -> dict[str, object]:
        return {"step_late_ms": percentiles(self.late_ms), "render_ms": percentiles(self.bridge.render_ms),
                "stalls": self.pacer.stalls, "refusals": self.operator.refusals}  # fmt: skip

    def _wait(self) -> None:
        """Until the next deadline. The first command of an episode moves the grid: its step is half a period after it
        came, so that a command may be early or late by that much and still have a step of its own."""
        if self.lockstep.waiting_for_command and self._first_command():
            since = time.time_ns() - (self.lockstep.ledger.first_received_ns or time.time_ns())
            self.pacer.start_at(time.monotonic_ns() - since + self.pacer.period_ns // 2)
        time.sleep(self.pacer.left_s())
        if self.bridge.sim_time and self.lockstep.stage is Stage.RUN:
            self.lockstep.ledger.wait(self.bridge.patience_s)  # time is ours: it goes on when the node has had its tick

    def _first_command(self) -> bool:
        """Whether it came before this step is due. Simulated time stands still for it: the node's first tick needs no new
        time, and one that ran on would leave the node ahead of the simulation by as many commands for the whole episode."""
        ledger = self.lockstep.ledger
        if not self.bridge.sim_time:
            return ledger.wait(self.pacer.left_s())
        end = time.monotonic() + FIRST_S
        while time.monotonic() < end:
            self.operator.poll()
            if ledger.wait(LOOK_S):
                return True
        return False

    def _tell(self) -> None:
        """Progress of the node, when it changed."""
        status = self.operator.status
        now = ("", "") if status is None else (status.lifecycle, status.phase)
        if now != self._told:
            self._told = now
            self._event("node", lifecycle=now[0], phase=now[1])

    def _event(self, name: str, **fields: object) -> None:
        if self.events is not None:
            self.events.write(name, **fields)


def node_figures(operator: NodeOperator) -> dict[str, float | int | str]:
    """What the node says about the activation that has ended."""
    status = operator.status
    if status is None:
        return {}
    return {
        "commands": int(status.commands), "held": int(status.held), "chunks": int(status.chunks),
        "skipped": int(status.skipped), "rejected": int(status.rejected), "worker_deaths": int(status.worker_deaths),
        "tick_late_p50_ms": status.tick_late_p50 * 1e3, "tick_late_p99_ms": status.tick_late_p99 * 1e3,
        "tick_late_max_ms": status.tick_late_max * 1e3, "counters": dict(zip(status.counters, status.counts.tolist(), strict=True)),
    }  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bridge", description="The tabletop task as a ROS node.")
    parser.add_argument("--episodes", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=500_000, help="of the first episode")
    parser.add_argument("--robot", default="tabletop", help="robot file by name or path")
    parser.add_argument("--node", default="policy_node", help="name of the policy node")
    parser.add_argument(
        "--rate", type=float, default=1.0, help="times real time; other than 1: the node needs use_sim_time"
    )
    parser.add_argument(
        "--lockstep", action="store_true", help="simulated time at any rate; the node needs use_sim_time and lockstep"
    )
    parser.add_argument("--camera-hz", type=float, default=20.0, help="20, 10, 5, ... (default 20)")
    parser.add_argument("--renderer", default="ray", help="ray (default) or gl")
    parser.add_argument("--events", type=Path, help="write episodes and progress as JSON lines")
    parser.add_argument(
        "--shots", type=Path, metavar="DIR", help="keep a picture of each episode's first and last moment"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the episodes. Exit code 0 done, 1 the node cannot go on, 2 bad arguments, 130 interrupted."""
    words = rclpy.utilities.remove_ros_args(sys.argv if argv is None else ["bridge", *argv])[1:]
    args = build_parser().parse_args(words)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    rclpy.init(args=sys.argv if argv is None else None, signal_handler_options=SignalHandlerOptions.NO)
    try:
        return _run(args, ended)
    except FlashRTError as error:
        sys.stderr.write(f"bridge: {error}\n")
        return 2
    finally:
        rclpy.try_shutdown()


def _run(args: argparse.Namespace, ended: threading.Event) -> int:
    from .tabletop import TabletopEnv

    env = TabletopEnv(renderer=args.renderer)
    ledger, events = CommandLedger(), EventWriter(args.events) if args.events else None
    bridge = SimBridge(
        load_robot(args.robot), env, args.node, ledger, camera_hz=args.camera_hz, rate=args.rate, lockstep=args.lockstep
    )
    operator = NodeOperator(bridge, args.node)

    def shot(episode: SimEpisode, when: str) -> None:
        if args.shots is not None:
            from PIL import Image as Picture

            Picture.fromarray(env.frame(size=SHOT_PX)).save(args.shots / f"{episode.seed}-{when}.png")

    def ended_one(episode: SimEpisode) -> None:
        row = {**episode.to_json(), "node": node_figures(operator)}
        bridge.say_result({k: row[k] for k in ("seed", "prompt", "success", "steps", "missing", "audit", "error")})
        if events is not None:
            events.write("episode", **row)

    lockstep = Lockstep(
        env, ledger, operator, range(args.seed, args.seed + args.episodes),
        on_scene=lambda episode: bridge.say_prompt(episode.prompt), on_episode=ended_one, on_shot=shot,
    )  # fmt: skip
    with spinning(bridge):
        return Episodes(bridge, operator, lockstep, Pacer(1.0 / env.control_hz, args.rate), events).run(ended)


@contextmanager
def spinning(bridge: Node) -> Iterator[None]:
    """The bridge's callbacks are served in a thread of their own; at the end the bridge is destroyed."""
    executor, done = SingleThreadedExecutor(), threading.Event()
    executor.add_node(bridge)

    def serve() -> None:
        while not done.is_set():
            try:
                executor.spin_once(timeout_sec=0.2)
            except (ExternalShutdownException, ShutdownException):
                return

    thread = threading.Thread(target=serve, name="bridge-executor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        executor.shutdown(0.3)
        thread.join(1.0)
        bridge.destroy_node()


if __name__ == "__main__":
    sys.exit(main())
