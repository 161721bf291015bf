"""ReplayedInputs: the node's ObservationBuilder, fed from a bag, that notes why a request could not be made."""

from __future__ import annotations

import logging
from collections import Counter

from flashrt_core.runtime.clock import Clock

from ..config.settings import RobotConfig
from ..control.faults import FaultReport
from ..inputs.observation import Observation, ObservationBuilder
from .decode import ImageIn, PromptIn, Seen, StateIn, UnreadableIn

QUIET = logging.getLogger("flashrt_ros.replay.quiet")  # what a node would log is counted in the report
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False
WAITING = "waiting"  # nothing is wrong, but not every view has a new frame since the last request


class ReplayedInputs(ObservationBuilder):
    """The slots and rules of the node, their clock is the bag's log time.

    skipped: ticks in which the runner asked for an observation and got none, by fault id or WAITING. unreadable: messages
    by topic that could not be decoded. reasons: fault id or topic -> what was wrong when it was first seen.
    """

    def __init__(self, robot: RobotConfig, image_size: int, clock: Clock, views: tuple[str, ...], prompt: str):
        super().__init__(robot, image_size=image_size, clock=clock, views=views, prompt=prompt, logger=QUIET)
        self.skipped: Counter[str] = Counter()
        self.unreadable: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}

    def put(self, seen: Seen) -> None:
        """Take one decoded message; the clock already shows its log time."""
        if isinstance(seen, ImageIn):
            self._put_image(seen)
        elif isinstance(seen, StateIn):
            self.put_state(seen.names, seen.positions, seen.stamp_ns, seen.velocities, seen.efforts)
        elif isinstance(seen, PromptIn):
            self.put_prompt(seen.text)
        elif isinstance(seen, UnreadableIn):
            self.unreadable[seen.topic] += 1
            self.reasons.setdefault(seen.topic, seen.reason)

    def _put_image(self, seen: ImageIn) -> None:
        slot = self.images[seen.view]
        if seen.frame is None:
            self._note(seen.view, slot.refuse(seen.fault))
        else:
            slot.store(seen.frame, seen.fault)
            self._note(seen.view, None)

    def snapshot(self, now_ns: int) -> Observation | list[FaultReport]:
        """As the node's, counted."""
        found = super().snapshot(now_ns)
        if isinstance(found, list):
            self.skipped.update({r.id for r in found} or {WAITING})
            for report in found:
                self.reasons.setdefault(report.id, report.reason)
        return found

    def _note(self, source: str, report: FaultReport | None) -> FaultReport | None:
        if report is not None:
            self.reasons.setdefault(report.id, report.reason)
        return super()._note(source, report)
