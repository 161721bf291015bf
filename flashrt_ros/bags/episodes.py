"""From a recording to episodes of frames: at each recorded command, the newest images and state before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from flashrt_core.errors import ConfigError, ObservationError
from flashrt_core.runtime.clock import NS

from ..config.settings import RobotConfig
from .findings import BagError
from .messages import MessageCodec
from .reading import BagReader
from .recorder_topics import full_name
from .robot_topics import NODE, judge_topics

RATE_TOLERANCE = 0.2  # share by which the commands' rate may differ from the robot's
NO_TASK = "no prompt yet"
RATE_SAMPLE = 50  # commands that the rate is measured on


@dataclass(frozen=True)
class Frame:
    """What a policy saw and what was commanded then. images: uint8 RGB [H, W, 3], in the order of the robot's views.

    times_ns: int64 [2 + V], log times of the command, the state and each image; stamps_ns: int64 [1 + V], header stamps of
    the state and each image. episode: counted from 0. state: float32 [S]; action: float32 [A].
    """

    episode: int
    task: str
    state: np.ndarray
    action: np.ndarray
    images: tuple[np.ndarray, ...]
    times_ns: np.ndarray
    stamps_ns: np.ndarray


@dataclass
class FrameOptions:
    """task: for recordings without a prompt. gap_s: a longer pause of the commands begins an episode."""

    task: str = ""
    gap_s: float = 1.0
    fps: float = 0.0  # 0: the robot's
    node: str = NODE

    def __post_init__(self) -> None:
        if not self.gap_s > 0:
            raise ConfigError("--gap-s", expected="> 0 s", found=self.gap_s)
        if not 0 <= self.fps <= 1000:
            raise ConfigError("--fps", expected="0 (the robot's) to 1000 Hz", found=self.fps)


@dataclass
class _Newest:
    """The newest value of one input: its log time and stamp in ns."""

    value: np.ndarray
    at_ns: int
    stamp_ns: int


@dataclass
class BagFrames:
    """The frames of an open bag, once. skipped: commands that gave no frame, by reason."""

    bag: BagReader
    robot: RobotConfig
    options: FrameOptions
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        problems = judge_topics(self.bag.topics, self.robot, self.options.node)
        if problems:
            raise BagError("F79", f"bag {self.bag.path.name}", expected=f"the topics of robot {self.robot.name}",
                           found="; ".join(f.text.split(": ", 1)[1] for f in problems))  # fmt: skip
        name = full_name
        node, topics = self.options.node, self.robot.topics
        self._views = {name(camera.topic, node): camera.view for camera in self.robot.cameras}
        self._state_topic, self._prompt_topic = name(topics.state, node), name(topics.prompt, node)
        self.command_topic = name(topics.forward, node)
        if self.command_topic not in self.bag.topics:
            raise BagError(
                "F79", f"bag {self.bag.path.name}", expected=f"commands on {self.command_topic}", found="none"
            )
        self.fps = self.options.fps or self.robot.control_hz
        self._codec = MessageCodec(self.robot)
        self._newest: dict[str, _Newest] = {}
        self._task, self._episode = self.options.task, -1
        self._fresh = True  # the next frame begins an episode
        self._last_ns: int | None = None
        self._periods: list[int] = []
        self._last_command_ns: int | None = None

    def topics(self) -> set[str]:
        """What is read of the bag."""
        return {*self._views, self._state_topic, self._prompt_topic, self.command_topic}

    def __iter__(self) -> Iterator[Frame]:
        for message in self.bag:
            topic = message.topic
            try:
                if topic in self._views:
                    view = self._views[topic]
                    self._put(view, message.log_time_ns, *self._codec.image(message, view))
                elif topic == self._state_topic:
                    self._put("", message.log_time_ns, *self._codec.state(message))
                elif topic == self._prompt_topic:
                    self._prompt(self._codec.text(message))
                elif topic == self.command_topic:
                    frame = self._frame(self._codec.command(message), message.log_time_ns)
                    if frame is not None:
                        yield frame
            except ObservationError as error:
                self.skipped[f"unusable message on {topic}: {_reason(error, topic)}"] += 1
        if self._episode < 0:
            self._refuse()

    def _refuse(self) -> None:
        """No frame at all: say why, by the most frequent reason."""
        commands = self.bag.topics[self.command_topic].count
        reasons = "; ".join(f"{n} x {reason}" for reason, n in self.skipped.most_common(2))
        hint = "Say what was done: --task 'pick up the red block'" if NO_TASK in self.skipped else None
        raise ConfigError(f"frames of {commands} commands", expected="at least one", found=reasons or "none", hint=hint)

    def _put(self, name: str, at_ns: int, value: np.ndarray, stamp_ns: int) -> None:
        self._newest[name] = _Newest(value, at_ns, stamp_ns)

    def _prompt(self, text: str) -> None:
        """A prompt begins an episode, the same one again too."""
        self._task, self._fresh = text or self.options.task, True

    def _frame(self, action: np.ndarray, at_ns: int) -> Frame | None:
        self._check_rate(at_ns)
        names = ["", *self.robot.views] if self.robot.state else list(self.robot.views)
        for name in names:
            reason = self._stale(name, at_ns)
            if reason:
                self.skipped[reason] += 1
                return None
        if not self._task:
            self.skipped[NO_TASK] += 1
            return None
        if self._fresh or at_ns - self._last_ns > self.options.gap_s * NS:
            self._episode, self._fresh = self._episode + 1, False
        self._last_ns = at_ns
        state = self._newest.get("") or _Newest(np.zeros(0, np.float32), at_ns, at_ns)
        seen = [state, *(self._newest[v] for v in self.robot.views)]
        return Frame(
            self._episode, self._task, state.value, action, tuple(n.value for n in seen[1:]),
            np.array([at_ns, *(n.at_ns for n in seen)], np.int64), np.array([n.stamp_ns for n in seen], np.int64),
        )  # fmt: skip

    def _stale(self, name: str, at_ns: int) -> str:
        """Why the newest value cannot be what a policy saw, or ""."""
        word = f"camera {name}" if name else "state"
        if name not in self._newest:
            return f"before the first of {word}"
        safety = self.robot.safety
        limit = safety.max_obs_age_s if name else safety.max_state_age_s
        return f"{word} older than {limit:g} s" if at_ns - self._newest[name].at_ns > limit * NS else ""

    def _check_rate(self, at_ns: int) -> None:
        """Frames of a dataset are one period apart: a bag of another rate would be read in slow motion."""
        if self._last_command_ns is not None and len(self._periods) < RATE_SAMPLE:
            self._periods.append(at_ns - self._last_command_ns)
            if len(self._periods) == RATE_SAMPLE:
                period = float(np.median(self._periods)) / NS
                if abs(period * self.fps - 1) > RATE_TOLERANCE:
                    hz = 1 / period if period else float("inf")
                    raise ConfigError("rate of the commands", expected=f"{self.fps:g} Hz", found=f"{hz:.1f} Hz",
                                      hint="--fps sets another one")  # fmt: skip
        self._last_command_ns = at_ns


def _reason(error: ObservationError, topic: str) -> str:
    """What is wrong with a message, without its topic."""
    if error.thing != topic:
        return str(error)
    return str(error.found) if error.expected is None else f"{error.found}, expected {error.expected}"
