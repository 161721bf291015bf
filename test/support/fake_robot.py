"""FakeRobot: first-order joints with limits that follow position commands; it measures what really happened."""

from __future__ import annotations

import numpy as np


class FakeRobot:
    """Joints q' = (c - q) / tau, at most v_max; without a new command it keeps going to the last one.

    history: one row per `step`: position, and the command in force.
    """

    def __init__(self, joints: int = 7, period_s: float = 0.02, tau_s: float = 0.01, v_max: float = 1e3):
        self.period_s, self.tau_s, self.v_max = period_s, tau_s, v_max
        self.q = np.zeros(joints)
        self.target = np.zeros(joints)
        self.silent_ticks = 0
        self.positions: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []

    def step(self, command: np.ndarray | None) -> None:
        """One control period."""
        self.silent_ticks += command is None
        if command is not None:
            assert np.all(np.isfinite(command)), command
            self.target = np.array(command, dtype=np.float64)
        share = 1.0 - np.exp(-self.period_s / self.tau_s)
        limit = self.v_max * self.period_s
        self.q = self.q + np.clip(share * (self.target - self.q), -limit, limit)
        self.positions.append(self.q.copy())
        self.targets.append(self.target.copy())

    def motion(self, targets: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(position, velocity, acceleration) [N, J] of the commands in force, or of the joints."""
        c = np.array(self.targets if targets else self.positions)
        v = np.diff(c, axis=0, prepend=c[:1]) / self.period_s
        a = np.diff(v, axis=0, prepend=v[:1]) / self.period_s
        return c, v, a

    def at_rest(self, ticks: int = 2) -> bool:
        """Whether the last `ticks` commands in force were the same."""
        recent = np.array(self.targets[-ticks - 1 :])
        return bool(np.ptp(recent, axis=0).max() < 1e-9)
