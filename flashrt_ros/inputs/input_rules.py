"""InputRules: what is wrong with the newest messages of all inputs taken together: old, apart, slow, frozen, empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flashrt_core.runtime.clock import NS

from ..config.settings import RobotConfig
from ..control.faults import FaultReport, Level
from .image_slot import Frame, ImageSlot
from .state_slot import StateSlot


@dataclass
class _Watch:
    """F04 of one view: the state when its pixels last changed, and when it was first seen away from there."""

    digest_since_ns: int = -1
    start: np.ndarray | None = None
    moving_ns: int | None = None


class InputRules:
    """Faults that last, computed anew in each period. safety: the limits in force; may be replaced at any time."""

    def __init__(self, robot: RobotConfig, images: Mapping[str, ImageSlot], state: StateSlot, now_ns: int):
        self.robot, self.safety = robot, robot.safety
        self._images, self._state = images, state
        self.reset(now_ns)

    def reset(self, now_ns: int) -> None:
        """Forget what was seen so far."""
        self._together_ns = now_ns  # when the newest frames of all views last belonged together
        self._watches = {view: _Watch() for view in self._images}

    def conditions(self, now_ns: int) -> list[FaultReport]:
        """Every fault that holds now, by the slots as they are."""
        out = [slot.reject for slot in (*self._images.values(), self._state) if slot.reject is not None]
        out += self._view_ages(now_ns)
        out += self._state_age(now_ns)
        out += self._skew(now_ns)
        for view, slot in self._images.items():
            out += self._picture(view, slot, now_ns)
        return out

    def _view_ages(self, now_ns: int) -> list[FaultReport]:
        """F01, F02: views without a frame or with an old one."""
        limit, old = self.safety.max_obs_age_s * NS, []
        for slot in self._images.values():
            frame, topic = slot.frame, slot.camera.topic
            if frame is None:
                old.append(f"{topic} never")
            elif now_ns - frame.received_ns > limit:
                old.append(f"{topic} {(now_ns - frame.received_ns) / NS:.2f} s ago")
        if not old:
            return []
        fault = "F01" if len(old) == len(self._images) else "F02"
        topics = ",".join(text.split(" ")[0] for text in old)
        return [FaultReport(fault, f"no image: last from {', '.join(old)}", topics)]

    def _state_age(self, now_ns: int) -> list[FaultReport]:
        """F15. A robot without state dimensions has none to miss."""
        if not self.robot.state:
            return []
        state, topic = self._state.state, self.robot.topics.state
        if state is None:
            return [FaultReport("F15", f"no state from {topic} yet", topic)]
        age = now_ns - state.received_ns
        if age <= self.safety.max_state_age_s * NS:
            return []
        return [FaultReport("F15", f"last state from {topic} {age / NS:.3f} s ago", topic)]

    def _skew(self, now_ns: int) -> list[FaultReport]:
        """F11, or F10 when a bad stamp is the cause. Without stamps the receipts are compared.

        Views that come with different delays show different moments: that is a fault at once. Views that only come at
        different times (one is slow) are waited for (`_apart_s`), and a fault when they never come together.
        """
        frames = [slot.frame for slot in self._images.values() if slot.frame is not None]
        notes = [slot.stamp_fault for slot in self._images.values() if slot.stamp_fault is not None]
        limit_s, reason = self.safety.max_skew_s, ""
        if frames and all(f.stamp_ns for f in frames):
            delays = [f.received_ns - f.stamp_ns for f in frames]
            delay_s = (max(delays) - min(delays)) / NS
            if delay_s > limit_s:
                reason = f"views are delayed differently by {delay_s:.3f} s, at most {limit_s:g} s"
        if apart_s(frames) <= limit_s:
            self._together_ns = now_ns
        elif not reason and now_ns - self._together_ns > self.safety.max_obs_age_s * NS:
            reason = f"views are never less than {limit_s:g} s apart, now {apart_s(frames):.3f} s"
        if not reason:
            return notes
        if notes:
            return [FaultReport("F10", f"{notes[0].reason}; {reason}", notes[0].subject, Level.COAST)]
        return [FaultReport("F11", reason)]

    def _picture(self, view: str, slot: ImageSlot, now_ns: int) -> list[FaultReport]:
        """F03 slow, F04 frozen, F12 without content."""
        frame, safety, out = slot.frame, self.safety, []
        if frame is None:
            return out
        where = f"{view} ({slot.camera.topic})"
        hz = slot.hz(now_ns)
        if hz < slot.camera.min_hz and slot.watched_ns(now_ns) >= NS:
            reason = f"{where}: {hz:.1f} Hz, expected {slot.camera.min_hz:g} or more"
            if slot.camera.transport == "raw":
                reason += " (large images need config/fastdds_large_images.xml)"
            out.append(FaultReport("F03", reason, slot.camera.topic))
        moving_ns = self._moving_since(view, frame, now_ns)
        if (
            moving_ns is not None
            and now_ns - moving_ns >= safety.frozen_after_s * NS
            and frame.received_ns > frame.digest_since_ns
        ):
            same_s = (now_ns - frame.digest_since_ns) / NS
            reason = f"{where}: frozen, the same image for {same_s:.2f} s while the state moves"
            out.append(FaultReport("F04", reason, slot.camera.topic))
        if frame.look:
            lasts = (now_ns - frame.look_since_ns) / NS
            hold = safety.hold_on_constant and lasts > safety.constant_after_s
            out.append(
                FaultReport("F12", f"{where}: {frame.look} image", slot.camera.topic, Level.HOLD if hold else None)
            )
        return out

    def _moving_since(self, view: str, frame: Frame, now_ns: int) -> int | None:
        """When the state was first seen away from where it was as the view's pixels last changed; None if it stayed.

        Counted from there and not from the pixels: a robot that stood still and starts to move has shown nothing wrong.
        """
        watch, state = self._watches[view], self._state.state
        if state is None:
            return None
        if watch.start is None or watch.digest_since_ns != frame.digest_since_ns:
            self._watches[view] = _Watch(frame.digest_since_ns, state.values)
            return None
        if watch.moving_ns is None:
            step = np.abs(state.values - watch.start) / np.maximum(self._state.span, 1e-9)
            if float(step.max(initial=0.0)) > self.safety.motion_fraction:
                watch.moving_ns = min(now_ns, state.received_ns)
        return watch.moving_ns


def apart_s(frames: Sequence[Frame]) -> float:
    """Seconds between the oldest and the newest of these frames, by stamp, or by receipt when one has no stamp."""
    times = [f.stamp_ns for f in frames]
    if not all(times):
        times = [f.received_ns for f in frames]
    return (max(times, default=0) - min(times, default=0)) / NS
