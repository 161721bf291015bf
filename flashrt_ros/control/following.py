"""F20: notices a robot that does not go where it is sent."""

from __future__ import annotations

import numpy as np

from flashrt_core.runtime.clock import NS

from ..config.settings import RobotConfig, SafetyConfig
from .faults import FaultReport, Level


class FollowMonitor:
    """Compares the commands sent with the measured state: an error above the tolerance holds, one that stays stops.

    Only position dimensions that a state dimension measures count; a robot without them cannot be watched here.
    """

    def __init__(self, robot: RobotConfig, safety: SafetyConfig | None = None):
        self.robot, self.safety = robot, safety or robot.safety
        self._since_ns: int | None = None
        self._watched = (robot.measured_index() >= 0) & np.array([d.kind == "position" for d in robot.actions])

    def reset(self) -> None:
        """A new start: nothing has been too far away yet."""
        self._since_ns = None

    def update(self, command: np.ndarray | None, state: np.ndarray | None, now_ns: int) -> FaultReport | None:
        """One control period. command: [A] sent last; state: newest measured [state dims]; None: unknown, not judged."""
        if command is None or state is None or not self._watched.any():
            self._since_ns = None
            return None
        error = np.where(self._watched, np.abs(np.asarray(command) - self.robot.measured_command(state)), 0.0)
        worst = int(np.argmax(error))
        if error[worst] <= self.safety.follow_tolerance:
            self._since_ns = None
            return None
        if self._since_ns is None or now_ns < self._since_ns:
            self._since_ns = now_ns
        lasts = now_ns - self._since_ns
        if lasts < self.safety.follow_hold_s * NS:
            return None
        name = self.robot.action_names[worst]
        reason = f"{name} is {error[worst]:.3g} from its command for {lasts / NS:.2f} s"
        return FaultReport("F20", reason, name, Level.STOP if lasts >= self.safety.follow_stop_s * NS else None)
