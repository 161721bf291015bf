"""A three-joint arm with two cameras for tests: its configuration, its messages and a rig that ticks on a fake clock."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from flashrt_core.runtime.clock import NS, FakeClock
from flashrt_ros.config.settings import ActionDim, CameraConfig, RobotConfig, SafetyConfig, StateDim
from flashrt_ros.control.health import Health, Level
from flashrt_ros.inputs.observation import Observation, ObservationBuilder

JOINTS = ("shoulder", "elbow", "wrist")
PERIOD_S = 0.02
SIDE = 16


def camera(view: str, **changes) -> CameraConfig:
    return CameraConfig(**{"view": view, "topic": f"{view}/image", "resize": "exact", **changes})


def arm(**changes) -> RobotConfig:
    """Position commands for three joints in -1..1 rad, 1 rad/s, 5 rad/s^2, and a gripper that is open (0) or shut (1)."""
    parts = dict(
        name="arm", control_hz=1 / PERIOD_S, cameras=(camera("front"), camera("hand")),
        state=tuple(StateDim(j, -1.0, 1.0) for j in JOINTS),
        actions=(*(ActionDim(j, "position", -1.0, 1.0, 1.0, 5.0) for j in JOINTS),
                 ActionDim("gripper", "discrete", 0.0, 1.0, values=(0.0, 1.0))),
        safety=SafetyConfig(),
    )  # fmt: skip
    return RobotConfig(**{**parts, **changes})


def with_safety(robot: RobotConfig, **changes) -> RobotConfig:
    return dataclasses.replace(robot, safety=dataclasses.replace(robot.safety, **changes))


class Rig:
    """Cameras at 25 Hz and a moving state at 50 Hz into an ObservationBuilder, its faults into a Health, all by fake time.

    paused: sources that publish nothing ("front", "hand", "state"). stamp_offset_ns: added to the stamps of a source.
    picture(view): the pixels to publish. joints: what the robot reports; `moving` makes it swing.
    """

    def __init__(self, robot: RobotConfig | None = None, *, prompt: str = "stack the blocks", **builder):
        self.robot = robot or arm()
        self.clock = FakeClock(10_000.0)
        self.log = ListLogger()
        self.obs = ObservationBuilder(
            self.robot, image_size=SIDE, clock=self.clock, prompt=prompt, logger=self.log, **builder
        )
        self.health = Health(logger=self.log, auto_resume=self.robot.safety.auto_resume)
        self.random = np.random.default_rng(0)
        self.paused: set[str] = set()
        self.stamp_offset_ns: dict[str, int] = {}
        self.moving = True
        self.joints = np.zeros(3)
        self.names = list(JOINTS)
        self.ticks = 0
        self.reports = []

    def picture(self, view: str) -> np.ndarray:
        return self.random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)

    def stamp(self, source: str) -> int:
        return self.clock.now_ns() + self.stamp_offset_ns.get(source, 0)

    def send_image(self, view: str, **changes):
        pixels = self.picture(view)
        fields = dict(
            height=SIDE, width=SIDE, encoding="rgb8", step=3 * SIDE, data=pixels.tobytes(), stamp_ns=self.stamp(view)
        )
        return self.obs.put_image(view, **{**fields, **changes})

    def send_state(self, **changes):
        fields = dict(names=self.names, positions=list(self.joints), stamp_ns=self.stamp("state"))
        return self.obs.put_state(**{**fields, **changes})

    def publish(self) -> None:
        if self.ticks % 2 == 0:
            for view in self.robot.views:
                if view not in self.paused:
                    self.send_image(view)
        if "state" not in self.paused:
            self.send_state()

    def tick(self) -> Level:
        """One control period: messages arrive, then the inputs are judged."""
        if self.moving:
            self.joints = 0.5 * np.sin(0.05 * self.ticks + np.arange(3))
        self.publish()
        self.ticks += 1
        self.clock.advance(PERIOD_S)
        now = self.clock.now_ns()
        self.reports = self.obs.faults(now)
        self.health.report(self.reports, now)
        return self.health.cycle(now)

    def run(self, seconds: float) -> Level:
        level = self.health.level
        for _ in range(round(seconds / PERIOD_S)):
            level = self.tick()
        return level

    def until(self, fault: str, level: Level, limit_s: float = 5.0) -> float:
        """Seconds until `fault` is active at `level`; fails after `limit_s`."""
        start = self.clock.now_ns()
        while self.health.active.get(fault) != level:
            self.tick()
            spent = (self.clock.now_ns() - start) / NS
            assert spent <= limit_s, f"{fault} not at {level.name} after {spent:.2f} s: {self.health.active}"
        return (self.clock.now_ns() - start) / NS

    def still_good(self, seconds: float = 1.0) -> None:
        """After a fault: everything works again."""
        assert self.run(seconds) == Level.OK and isinstance(self.snapshot(), Observation)

    def snapshot(self):
        return self.obs.snapshot(self.clock.now_ns())

    def ids(self) -> set[str]:
        return {r.id for r in self.reports}


def running_rig() -> Rig:
    """A rig with everything as it should be for longer than a second."""
    rig = Rig()
    rig.still_good(1.2)
    return rig


class ListLogger(logging.Logger):
    """Keeps its lines."""

    def __init__(self):
        super().__init__("test")
        self.lines: list[str] = []

    def handle(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
