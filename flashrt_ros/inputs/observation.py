"""From the newest messages to one observation for the policy, or to the faults that forbid it.

Ages count from receipt by the node's clock; stamps only say whether images belong together (rules R1, R11).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from flashrt_core.runtime.clock import NS, Clock

from ..config.settings import RobotConfig, SafetyConfig
from ..control.faults import FAULTS, FaultReport, Level
from .image_decode import check_pillow
from .image_slot import Frame, ImageSlot
from .input_rules import InputRules, apart_s
from .prompt_slot import PromptSlot
from .state_slot import State, StateSlot

# Faults with which no request may be made. Refused messages are not among them: the last good one may still be fresh.
BLOCKING = frozenset({"F01", "F02", "F04", "F11", "F15", "F19", "F27"})


@dataclass(frozen=True)
class Observation:
    """What the policy gets. images: uint8 [S, S, 3] per view, in the policy's order; state: float32 [state dims]; read-only.

    received_ns: oldest receipt of what is in it, node's clock: its age. stamps: ROS time in ns by view, and "state".
    seq: number of the snapshot, from 1.
    """

    images: tuple[np.ndarray, ...]
    state: np.ndarray
    prompt: str
    received_ns: int
    stamps: dict[str, int] = field(default_factory=dict)
    seq: int = 0

    def __deepcopy__(self, memo: dict) -> Observation:
        """Itself: nothing in it changes (its arrays are read-only), and the control tick has better things to do."""
        return self

    def age_s(self, now_ns: int) -> float:
        """Seconds since the oldest part was received."""
        return (now_ns - self.received_ns) / NS

    @property
    def stamp_ns(self) -> int:
        """The oldest image stamp: what the chunk made from it is aligned to."""
        return min((s for name, s in self.stamps.items() if name != "state"), default=0)


class ObservationBuilder:
    """The slots of one robot and the rules between them.

    Messages are put by one thread (each put returns None or the fault for which it was refused); `faults` and `snapshot`
    are called by the control thread, both bounded and without waiting.
    """

    def __init__(
        self,
        robot: RobotConfig,
        *,
        image_size: int,
        clock: Clock,
        views: Sequence[str] | None = None,
        prompt: str = "",
        prompt_check: Callable[[str], None] | None = None,
        logger: logging.Logger | None = None,
    ):
        """image_size: S of the policy. views: the policy's views in its order (default: the cameras' order); ConfigError
        when they are not the robot's (F13)."""
        self.views = tuple(robot.views if views is None else views)
        robot.check_views(self.views)
        self.robot, self._clock = robot, clock
        if any(c.transport == "compressed" for c in robot.cameras):
            check_pillow()
        cameras = {c.view: c for c in robot.cameras}
        self.images = {view: ImageSlot(cameras[view], image_size, clock) for view in self.views}
        self.state_slot = StateSlot(robot.state, robot.safety, clock, robot.topics.state)
        self.prompt_slot = PromptSlot(prompt, prompt_check, robot.topics.prompt)
        self._log = logger or logging.getLogger(__name__)
        self._refused: dict[str, str] = {}
        self._last_now: int | None = None
        self._seq = 0
        self._used: dict[str, int] = {}
        self._rules = InputRules(robot, self.images, self.state_slot, clock.now_ns())

    # ---- messages in

    def put_image(
        self, view: str, height: int, width: int, encoding: str, step: int, data: object, stamp_ns: int,
        ros_now_ns: int | None = None,
    ) -> FaultReport | None:  # fmt: skip
        """`ImageSlot.put` of a view."""
        return self._note(view, self.images[view].put(height, width, encoding, step, data, stamp_ns, ros_now_ns))

    def put_compressed(
        self, view: str, data: object, stamp_ns: int, ros_now_ns: int | None = None
    ) -> FaultReport | None:
        """`ImageSlot.put_compressed` of a view."""
        return self._note(view, self.images[view].put_compressed(data, stamp_ns, ros_now_ns))

    def put_state(
        self, names: Sequence[str], positions: Sequence[float], stamp_ns: int, velocities: Sequence[float] = (),
        efforts: Sequence[float] = (),
    ) -> FaultReport | None:  # fmt: skip
        """`StateSlot.put`."""
        return self._note("state", self.state_slot.put(names, positions, stamp_ns, velocities, efforts))

    def put_prompt(self, text: str) -> FaultReport | None:
        """`PromptSlot.put`."""
        return self._note("prompt", self.prompt_slot.put(text))

    def _note(self, source: str, report: FaultReport | None) -> FaultReport | None:
        """One log line when a source starts or stops being refused, or is refused for another reason."""
        fault = "" if report is None else report.id
        if fault != self._refused.get(source, ""):
            self._refused[source] = fault
            if report is not None:
                self._log.warning("refused: %s", report)
            else:
                self._log.info("%s accepted again", source)
        return report

    # ---- settings and state

    @property
    def safety(self) -> SafetyConfig:
        """The limits in force; may be replaced at run time."""
        return self._rules.safety

    @safety.setter
    def safety(self, value: SafetyConfig) -> None:
        self._rules.safety = self.state_slot.safety = value

    @property
    def state(self) -> State | None:
        """The newest state, whatever its age."""
        return self.state_slot.state

    @property
    def prompt(self) -> str:
        return self.prompt_slot.text

    @property
    def counters(self) -> Counter[str]:
        """Refused messages and bad stamps by fault id, all inputs together."""
        slots = [*self.images.values(), self.state_slot, self.prompt_slot]
        return sum((slot.counters for slot in slots), Counter())

    def reset(self) -> None:
        """Forget all messages (simulated time went back, another episode); the prompt and the counters stay."""
        for slot in (*self.images.values(), self.state_slot):
            slot.reset()
        self._used.clear()
        self._rules.reset(self._clock.now_ns())

    def status(self, now_ns: int) -> dict[str, dict[str, float | None]]:
        """Age (s, None before the first) and rate (Hz) of every view, and the age of the state."""
        out: dict[str, dict[str, float | None]] = {}
        for view, slot in self.images.items():
            frame = slot.frame
            age = None if frame is None else (now_ns - frame.received_ns) / NS
            out[view] = {"age_s": age, "hz": slot.hz(now_ns)}
        state = self.state
        out["state"] = {"age_s": None if state is None else (now_ns - state.received_ns) / NS}
        return out

    # ---- faults and observations out

    def faults(self, now_ns: int) -> list[FaultReport]:
        """What is wrong with the inputs now. Called once per control period: single events are reported once."""
        events = [self.state_slot.take_teleport(), self.prompt_slot.take_reject()]
        found = [*self._conditions(now_ns), *(e for e in events if e is not None)]
        if self.prompt_slot.refusal:
            found.append(FaultReport("F86", f"no prompt: {self.prompt_slot.refusal}", self.prompt_slot.topic, Level.HOLD))
        return found

    def snapshot(self, now_ns: int) -> Observation | list[FaultReport]:
        """The observation for a request made now, or the faults that forbid one.

        An empty list: nothing is wrong, but not every view has a new frame since the last snapshot, near the others in
        time: ask again in the next period.
        """
        reports = self._conditions(now_ns)
        teleport = self.state_slot.teleport
        blocking = [r for r in reports if r.id in BLOCKING or (_level(r) >= Level.COAST and r.id in ("F10", "F12"))]
        if teleport is not None:
            blocking.append(teleport)
        if not self.prompt_slot.text:
            blocking.append(FaultReport("F86", "no prompt yet", self.prompt_slot.topic))
        if blocking:
            return blocking
        frames = {view: slot.frame for view, slot in self.images.items()}
        state = self.state_slot.state
        if any(f is None for f in frames.values()) or (state is None and self.robot.state):
            return []  # forgotten by a reset between the checks and here
        fresh_ns = self._rules.safety.fresh_obs_s * NS
        if any(f.seq == self._used.get(v) or now_ns - f.received_ns > fresh_ns for v, f in frames.items()):
            return []
        if apart_s(list(frames.values())) > self._rules.safety.max_skew_s:
            return []
        self._used = {view: f.seq for view, f in frames.items()}
        self._seq += 1
        return self._observation(frames, state)

    def _observation(self, frames: dict[str, Frame], state: State | None) -> Observation:
        stamps = {view: f.stamp_ns for view, f in frames.items()}
        received = [f.received_ns for f in frames.values()]
        if state is not None:
            stamps["state"] = state.stamp_ns
            received.append(state.received_ns)
        values = np.zeros(0, dtype=np.float32) if state is None else state.values
        return Observation(
            tuple(f.image for f in frames.values()), values, self.prompt_slot.text, min(received), stamps, self._seq
        )

    def _conditions(self, now_ns: int) -> list[FaultReport]:
        """Every fault that lasts, from the slots as they are now."""
        if self._last_now is not None and now_ns < self._last_now:
            back = (self._last_now - now_ns) / NS
            self._last_now = now_ns
            self.reset()
            return [FaultReport("F27", f"time went back {back:.3f} s: all inputs forgotten")]
        self._last_now = now_ns
        return self._rules.conditions(now_ns)


def _level(report: FaultReport) -> Level:
    return FAULTS[report.id].level if report.level is None else report.level
