"""The human demonstrations inside the robosuite package as frames: recorded states and actions, cameras rendered here.

robosuite 1.4.0 (MIT) brings three teleoperated episodes of a Panda that lifts a red cube: simulator states and actions, no
pictures. Each state is put in place in the scene in which it was recorded and drawn; nothing is stepped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import NS

from ..config.settings import RobotConfig
from ..sim.libero.env_client import SimulatorProcess, SimulatorSpec
from ..sim.libero.observation import policy_state, training_image
from ..sim.libero.protocol import CAMERAS, CONTROL_HZ, Protocol
from .conversion import Converted, Progress, Target, convert_frames
from .episode_bag import EPOCH_NS
from .episodes import Frame

SUITE = "robosuite_lift"
SIZES = (32, 1024)  # px, of the rendered pictures
FRAME_S, START_S = 120.0, 600.0  # bounds of one frame and of the start, which compiles for a minute the first time
ACTION_DIMS, STATE_DIMS = 7, 8
PAUSE_NS = 2 * NS  # between episodes


class DemoFrames:
    """The demonstrations as frames. total: how many there are. The process is started by `open` and ended by `close`."""

    def __init__(self, process: SimulatorProcess):
        self._process = process
        about, arrays = process.call("recorded", FRAME_S)
        self.prompt = str(about["prompt"])
        self.recordings = [(arrays[f"actions{i}"], arrays[f"times{i}"]) for i in range(int(about["count"]))]
        self.total = sum(len(actions) for actions, _ in self.recordings)

    def __iter__(self) -> Iterator[Frame]:
        begin = EPOCH_NS
        for number, (actions, times) in enumerate(self.recordings):
            for step, action in enumerate(actions):
                yield self._frame(number, step, action, begin + round(float(times[step]) * NS))
            begin += round(float(times[-1]) * NS) + PAUSE_NS

    def _frame(self, number: int, step: int, action: np.ndarray, at_ns: int) -> Frame:
        _, seen = self._process.call("recorded_frame", FRAME_S, demonstration=number, step=step)
        images = tuple(training_image(seen[f"picture{i}"]) for i in range(len(CAMERAS)))
        state = policy_state(seen["eef_pos"], seen["eef_quat"], seen["gripper_qpos"])
        # The keyboard's actions go up to 3.75; the controller cuts them to its input range, which is what moved the arm
        # (robosuite controllers/base_controller.py, scale_action).
        moved = np.clip(action, -1.0, 1.0).astype(np.float32)
        times = np.full(2 + len(images), at_ns, np.int64)
        return Frame(number, self.prompt, state, moved, images, times, times[1:])


def check_robot(robot: RobotConfig) -> None:
    """ConfigError unless the robot is one of the demonstrations': two cameras, 8 state and 7 action dimensions, 20 Hz."""
    have = len(robot.cameras), len(robot.state), len(robot.actions), robot.control_hz
    want = len(CAMERAS), STATE_DIMS, ACTION_DIMS, float(CONTROL_HZ)
    if have != want:
        words = "{} cameras, {} state and {} action dimensions at {:g} Hz"
        raise ConfigError(f"robot {robot.name}", expected=words.format(*want), found=words.format(*have),
                          hint="--robot panda_lift fits")  # fmt: skip


def convert_demonstrations(
    robot: RobotConfig, target: Target, *, size: int = 224, python: Path | None = None, gl: str = "egl", node: str,
    on_progress: Progress | None = None,
) -> Converted:  # fmt: skip
    """Render and write the demonstrations. ConfigError says what is missing for that (`make libero`)."""
    check_robot(robot)
    if not SIZES[0] <= size <= SIZES[1]:
        raise ConfigError("--size", expected=f"{SIZES[0]}..{SIZES[1]} px", found=size)
    protocol = Protocol("demonstrations", size, 0, 1, {SUITE: 1}, 1, 0, False)
    spec = SimulatorSpec(SUITE, protocol, gl=gl, python=python, start_s=START_S)
    with tempfile.TemporaryDirectory(prefix="flashrt-demo-") as log:
        process = SimulatorProcess(spec, Path(log) / "simulator.log")
        try:
            frames = DemoFrames(process)
            return convert_frames(
                frames, robot, target, fps=float(CONTROL_HZ), total=frames.total, node=node, on_progress=on_progress
            )
        finally:
            process.close()
