"""The demo over DDS: simulation, policy node and recorder as processes, 20 episodes, `result.json`, report and bag.

`python -m flashrt_ros.ros_demo --episodes 20 --seed 500000 --out ros-demo-out` (command line: `cli_ros_demo.py`). The
processes find each other by a ROS domain number drawn for this run and on this machine only. This process has no part in
the traffic: it starts them, follows the simulation's event file, and ends them.

That no action is lost or repeated is counted by index at both ends, see `sim/commands.py` (DDS publication number against
the node's own count) and `witnesses.py` (executed commands against the recorded ones and their chunks).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from flashrt_core.errors import ConfigError, DeviceError

from ..bags.event_log import EventFollower
from ..bags.recorder_topics import full_name
from ..config.config_file import load_robot
from ..config.settings import NodeConfig
from ..evaluation.closed_loop import Episode, LoopSettings
from ..evaluation.demo import FILM_EPISODES, MAX_SEED, DemoOutput, write_files
from ..evaluation.rollout import Rollout
from ..evaluation.summary import CONTROL_HZ
from ..worker.child import Child, start
from .domain import DOMAINS, free_domain
from .ros_summary import page_parts, ros_summary
from .witnesses import RosEpisode, join, read_frames, read_recording

NODE = "policy_node"
RESULTS_TOPIC = "/tabletop_sim/episode=std_msgs/msg/String"
SILENCE_S = 120.0  # without any event of the simulation: something hangs
LOOK_S = 0.1
FOLDERS = ("bag", "shots", "log")


@dataclass(frozen=True)
class RosDemo:
    """What is run. rate: times real time (other than 1: simulated time). lockstep: simulated time that waits for every
    message and for the policy: the same actions at any rate. camera_hz: of both cameras. splice, replan_ticks: of the
    node. checkpoint: None = the bundled one."""

    episodes: int = 20
    seed: int = 500_000
    splice: str = NodeConfig.splice
    replan_ticks: int = 5
    rate: float = 1.0
    lockstep: bool = False
    camera_hz: float = 20.0
    checkpoint: str | None = None
    robot: str = "tabletop"
    domain: int = field(default_factory=free_domain)

    def __post_init__(self) -> None:
        if not 1 <= self.episodes <= 10_000:
            raise ConfigError("episodes", expected="1..10000", found=self.episodes)
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError("seed", expected=f"0..{MAX_SEED}", found=self.seed)
        if not 0.01 <= self.rate <= 1000:
            raise ConfigError("rate", expected="0.01..1000", found=self.rate)
        if self.domain not in DOMAINS:
            raise ConfigError("domain", expected="1..101", found=self.domain)

    @property
    def simulated(self) -> bool:
        return self.lockstep or self.rate != 1.0

    @property
    def loop(self) -> LoopSettings:
        return LoopSettings(splice=self.splice, realtime=True, replan_ticks=self.replan_ticks)


class Processes:
    """The three processes of a run, ended in any case: a context manager.

    The kernel ends them too, should this process die.
    """

    def __init__(self, what: RosDemo, out: Path):
        self._what, self._out = what, out
        self.children: dict[str, Child] = {}

    def start(self) -> None:
        """The recorder first: it must miss nothing."""
        w, out = self._what, self._out
        self._start("recorder", "flashrt_ros.bags.recorder", [
            "--out", str(out / "bag"), "--robot", w.robot, "--node", NODE, "--topic", RESULTS_TOPIC,
            "--events", str(out / "log" / "recorder.jsonl"),
        ])  # fmt: skip
        settings = {
            "robot": w.robot, "splice": w.splice, "replan_ticks": w.replan_ticks, "policy.hardware": "host",
            "policy.precision": "full", "use_sim_time": str(w.simulated).lower(),
            "lockstep": str(w.lockstep).lower(),
        }  # fmt: skip
        if w.checkpoint:
            settings["policy.checkpoint"] = w.checkpoint
        self._start("node", "flashrt_ros.main", [
            "--ros-args", *(word for name, value in settings.items() for word in ("-p", f"{name}:={value}")),
        ])  # fmt: skip
        self._start("simulation", "flashrt_ros.sim.bridge", [
            "--episodes", str(w.episodes), "--seed", str(w.seed), "--robot", w.robot, "--node", NODE, "--rate", str(w.rate),
            "--camera-hz", str(w.camera_hz), "--events", str(out / "log" / "simulation.jsonl"), "--shots", str(out / "shots"),
            *(["--lockstep"] if w.lockstep else []),
        ])  # fmt: skip

    def _start(self, name: str, module: str, words: list[str]) -> None:
        log = self._out / "log"
        environment = {
            "ROS_DOMAIN_ID": str(self._what.domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str((log / "ros").absolute()),
        }  # fmt: skip
        self.children[name] = start(name, module, words, environment=environment, log=log / f"{name}.log")

    def check(self) -> None:
        """Raises DeviceError when one has ended that should not have."""
        for child in self.children.values():
            if not child.running and child.code != 0:
                raise DeviceError(
                    f"the {child.name} process", expected="to run", found=f"exit code {child.code}",
                    hint=f"The end of {child.log}:\n{child.last_words()}",
                )  # fmt: skip

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *exc: object) -> None:
        for name in ("simulation", "node", "recorder"):  # the recorder last: it keeps what the others still say
            if name in self.children:
                self.children[name].end()


def run_ros_demo(
    what: RosDemo,
    out: Path,
    *,
    on_phase: Callable[[str], None] = lambda text: None,
    on_episode: Callable[[Episode], None] = lambda episode: None,
    command: str = "",
) -> DemoOutput:
    """Run the episodes over DDS and write result.json, report.html, demo.gif and bag/ into `out`.

    on_phase: what goes on before the first episode. on_episode: outcome of each, without its chunks. Raises ConfigError
    for bad numbers or missing packages, DeviceError when a process fails. The processes are gone when it returns or raises.
    """
    _check_packages()
    _prepare(out)
    began, rows, sim = time.monotonic(), [], {}
    with Processes(what, out) as processes:
        processes.start()
        follower, heard = EventFollower(out / "log" / "simulation.jsonl"), time.monotonic()
        while not sim:
            time.sleep(LOOK_S)
            for event in follower.news():
                heard = time.monotonic()
                if event["event"] == "node" and not rows:
                    on_phase(f"{event['lifecycle']}: {event['phase']}")
                elif event["event"] == "episode":
                    rows.append(event)
                    on_episode(_outcome(event))
                elif event["event"] == "fatal":
                    raise DeviceError("the policy node", expected="to run the episodes", found=event["reason"],
                                      hint=f"Its log is {out / 'log' / 'node.log'}")  # fmt: skip
                elif event["event"] == "done":
                    sim = {k: v for k, v in event.items() if k != "event"}
            if not sim:
                processes.check()
            if time.monotonic() - heard > SILENCE_S:
                raise DeviceError("the simulation", expected="progress", found=f"none for {SILENCE_S:g} s")
    wall_s = time.monotonic() - began
    on_phase("reading the bag")
    return _finish(what, out, rows, sim, wall_s, command)


def _finish(what: RosDemo, out: Path, rows: list[dict], sim: dict, wall_s: float, command: str) -> DemoOutput:
    robot = load_robot(what.robot)
    recording = read_recording(out / "bag", robot, NODE)
    runs = [join(row, recording, 1.0 / CONTROL_HZ, what.simulated) for row in rows]
    _add_pictures(runs, rows, out, full_name(robot.cameras[0].topic, NODE))
    recorder = next((e for e in EventFollower(out / "log" / "recorder.jsonl").news() if e["event"] == "recorded"), {})
    rollout = Rollout(checkpoint=what.checkpoint, loop=what.loop, shots=True)
    settings = {"rmw": "rmw_fastrtps_cpp", "rate": what.rate, "camera_hz": what.camera_hz, "domain": what.domain}
    result = ros_summary(runs, rows, rollout, what.seed, wall_s, sim, recorder.get("topics", {}), settings)
    episodes = [r.episode for r in runs]
    files = write_files(out, result, episodes, command, page_parts(result, runs))
    return DemoOutput(result, episodes, (*files, out / "bag"))


def _add_pictures(runs: list[RosEpisode], rows: list[dict], out: Path, camera: str) -> None:
    """First and last moment of every episode, and a film of the first few as the camera's messages show them."""
    import numpy as np
    from PIL import Image

    for run in runs:
        for when in ("first", "last"):
            file = out / "shots" / f"{run.episode.seed}-{when}.png"
            if file.exists():
                with Image.open(file) as picture:
                    run.episode.shots[when] = np.asarray(picture.convert("RGB"))
    spans = [(r["started_ns"], r["ended_ns"]) for r in rows[:FILM_EPISODES]]
    for run, frames in zip(runs, read_frames(out / "bag", camera, spans), strict=False):
        run.episode.frames = frames


def _outcome(event: dict) -> Episode:
    return Episode(event["seed"], event["prompt"], bool(event["success"]), int(event["steps"]), error=event["error"])


def _prepare(out: Path) -> None:
    """Make the folder and remove what an earlier run left in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
        for name in ("shots", "log"):
            (out / name).mkdir()
    except OSError as error:
        raise ConfigError("out", expected="a folder that can be written", found=f"{out}: {error.strerror}") from None


def _check_packages() -> None:
    needed = ("rclpy", "rosbags", "mujoco", "PIL")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "ros-demo", expected="ROS 2 and the packages of the demo and bag extras", found=f"{', '.join(missing)} missing",
            hint="In the checkout, run: make ros-demo, or pip install -e '.[demo,bag]' beside a ROS 2 install",
        )  # fmt: skip

