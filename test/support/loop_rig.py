"""A control loop in lock step with a fake clock: scripted policy, fake robot, cameras that can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flashrt_core.runtime.clock import FakeClock, SteadyClock
from flashrt_core.runtime.executor import SimulatedExecutor
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig
from flashrt_ros.config.settings import ActionDim, CameraConfig, RobotConfig, SafetyConfig, StateDim
from flashrt_ros.control.guard import Guard
from flashrt_ros.control.health import Health, Level
from flashrt_ros.control.loop import ControlLoop
from flashrt_ros.control.tick_record import RecordingSink, TickRecord
from flashrt_ros.inputs.observation import ObservationBuilder
from flashrt_ros.worker.interface import PolicyWorker, Script, ScriptedWorker
from support.fake_robot import FakeRobot

HZ = 50.0
SIDE = 8
VIEWS = ("front", "wrist")


def arm(
    joints: int = 2, span: float = 1e6, v_max: float | None = None, a_max: float | None = None, **safety
) -> RobotConfig:
    """A robot of position joints that the state measures, with two cameras."""
    names = [f"j{i}" for i in range(joints)]
    limits = {
        "max_disagreement": 1e5,
        "anchor_gap": 10.0,
        "follow_tolerance": 1e6,
        "teleport_fraction": 0.0001,
    } | safety
    return RobotConfig(
        name="arm", control_hz=HZ, safety=SafetyConfig(**limits),
        cameras=tuple(CameraConfig(view=v, topic=f"{v}/image") for v in VIEWS),
        state=tuple(StateDim(name=n, lower=-span, upper=span) for n in names),
        actions=tuple(ActionDim(name=n, kind="position", lower=-span, upper=span, v_max=v_max, a_max=a_max) for n in names),
    )  # fmt: skip


def script(joints: int = 2, **fields) -> Script:
    """A script for `arm`: each command is the number of its tick, so the value served at tick m must be m."""
    given = {"horizon": 20, "action_dim": joints, "state_dim": joints, "views": VIEWS, "image_size": SIDE}
    return Script(**{**given, **fields})


class LoopRig:
    """`tick()` is one control period: cameras and joints report, the loop commands, the robot follows.

    The state that is reported is the number of the tick (a policy of `script` plans from it), unless `follow` is set: then it
    is the robot's. latency_s: of the simulated worker, by call. Switch inputs off with `cameras` and `joints`.
    """

    def __init__(
        self,
        latency_s: float | Callable[[int], float] | None = None,
        *,
        robot: RobotConfig | None = None,
        worker: PolicyWorker | None = None,
        play: Script | None = None,
        config: dict | None = None,
        auto_resume: bool = True,
        follow: bool = False,
        sinks: Sequence[object] = (),
        real: bool = False,
        health: Health | None = None,
    ):
        self.robot = robot or arm()
        joints = len(self.robot.actions)
        play = play or script(joints)
        self.clock = SteadyClock() if real else FakeClock(1.0)
        self.worker = worker or ScriptedWorker(play, sleep=None)
        if not self.worker.alive:
            self.worker.start()
        executor = None
        if not real:
            executor = SimulatedExecutor(play.latency_s if latency_s is None else latency_s, self.clock)
        self.config = RTCConfig(**{"target_hz": HZ, "max_tick_gap_s": 0.25, **(config or {})})
        self.runner = AsyncChunkRunner(self.worker, self.config, executor=executor, clock=self.clock)
        self.inputs = ObservationBuilder(self.robot, image_size=SIDE, clock=self.clock, prompt="go")
        self.guard = Guard(self.robot, self.config.period_s)
        self.health = health or Health(auto_resume=auto_resume)
        self.record = RecordingSink()
        self.loop = ControlLoop(
            self.robot,
            self.inputs,
            self.runner,
            self.guard,
            self.health,
            [self.record, *sinks],
            self.clock,
            self.worker,
        )
        self.arm = FakeRobot(joints, self.config.period_s)
        self.cameras, self.joints, self.follow = set(VIEWS), True, follow
        self.now = 0
        self.levels: list[Level] = []
        self._frames = np.zeros((4, SIDE, SIDE, 3), np.uint8)
        self._frames[:] = np.random.default_rng(0).integers(0, 255, self._frames.shape)

    def see(self) -> None:
        """The inputs of one period."""
        stamp = 1 + self.now * 20_000_000
        for view in self.cameras:
            image = self._frames[self.now % 4]
            self.inputs.put_image(view, SIDE, SIDE, "rgb8", 3 * SIDE, image.reshape(-1), stamp)
        if self.joints:
            values = self.arm.q if self.follow else np.full(len(self.arm.q), float(self.now))
            self.inputs.put_state(self.robot.state_names, values, stamp)

    def activate(self) -> LoopRig:
        self.see()
        self.loop.activate()
        return self

    def tick(self, late_s: float = 0.0, skipped: int = 0) -> TickRecord | None:
        self.see()
        record = self.loop.tick(late_s, skipped)
        self.levels.append(self.health.level)
        self.arm.step(None if record is None else record.command)
        if isinstance(self.clock, FakeClock):
            self.clock.advance(self.config.period_s)
        self.now += 1
        return record

    def run(self, ticks: int) -> list[float | None]:
        """Value of joint 0 in each tick, None where nothing was sent."""
        records = [self.tick() for _ in range(ticks)]
        return [None if r is None else float(r.command[0]) for r in records]

    def active(self) -> set[str]:
        return set(self.health.active)
