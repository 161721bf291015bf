"""The guard: the last thing between a command and the robot; what it lets through is finite and within the limits (R6).

Per dimension, relative to the command sent before: position, speed and acceleration limits for positions, range, speed
and change for deltas, allowed values for choices. A position never gets so fast that it could not stop before its limit,
and catches up with a command that was too far away without running past it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from flashrt_core.errors import ConfigError

from ..config.settings import ActionDim, RobotConfig
from .faults import FaultReport

ROUNDING = 1e-9  # of a dimension's range: below this a change is no clamp
WILD = 0.01  # of a dimension's range: a clamp below this is counted, above it is a fault (F41)


@dataclass(frozen=True)
class GuardResult:
    """command: float64 [A] to send, or None: send nothing (not anchored, taken over). held: the robot is asked to rest
    whatever the input was. clamped: dimension -> requested minus sent. violations: F40, F42 unusable input; F41 clamped;
    F21 gap refused."""

    command: np.ndarray | None
    held: bool = False
    clamped: dict[str, float] = field(default_factory=dict)
    violations: tuple[FaultReport, ...] = ()


class Guard:
    """Filters the command of each control period. Not thread-safe: the control thread owns it.

    Starts unanchored: `anchor` first, with the measured state; until then nothing is let through.
    """

    def __init__(self, robot: RobotConfig, period_s: float, *, anchor_gap: float | None = None):
        """period_s: control period T. anchor_gap: default the robot's."""
        if not period_s > 0:
            raise ConfigError("period_s", expected="> 0", found=period_s)
        self.period_s = period_s
        self.anchor_gap = robot.safety.anchor_gap if anchor_gap is None else anchor_gap
        self.taken = False  # F21: somebody else commands the robot
        self.clamp_counts: dict[str, int] = {}
        self._set_limits(robot)
        count = len(robot.actions)
        self._last: np.ndarray | None = None  # last command sent
        self._speed = np.zeros(count)  # of the positions in it, units/s
        self._asked: np.ndarray | None = None  # last usable input, for holds
        self._target = np.zeros(count)  # where that was, else where the robot was sent
        self._pace = np.zeros(count)  # at which its positions move, units/s
        self._joining = False  # no command has been let through since the anchor

    def _set_limits(self, robot: RobotConfig) -> None:
        dims = robot.actions
        self.robot = robot
        self._names = robot.action_names
        self._lower, self._upper = (np.array([getattr(d, n) for d in dims]) for n in ("lower", "upper"))
        self._v, self._a = (np.array([_or_inf(getattr(d, n)) for d in dims]) for n in ("v_max", "a_max"))
        self._position, self._delta = (_mask(dims, k) for k in ("position", "delta"))
        self._choices = {i: np.array(d.values) for i, d in enumerate(dims) if d.values}
        self._measured = robot.measured_index()
        self._start = self._allowed(np.array([d.start or 0.0 for d in dims]))

    @property
    def anchored(self) -> bool:
        """Whether commands are let through."""
        return self._last is not None and not self.taken

    @property
    def last_command(self) -> np.ndarray | None:
        """A copy of the last command sent, or of the anchor."""
        return None if self._last is None else self._last.copy()

    def set_limits(self, robot: RobotConfig) -> None:
        """Other limits for the same dimensions, at run time. ConfigError when the dimensions differ."""
        if [(d.name, d.kind) for d in robot.actions] != [(d.name, d.kind) for d in self.robot.actions]:
            raise ConfigError("guard limits", expected="the same action dimensions", found="others")
        self._set_limits(robot)
        self.anchor_gap = robot.safety.anchor_gap

    # ---- anchor and takeover

    def anchor(self, state: np.ndarray) -> FaultReport | None:
        """Start from the measured state [state dims]: at rest there. Returns why not (F17 outside limits, F14), or None.

        Dimensions that nothing measures start from where the last command left them, else from their `start`.
        """
        measured = self.robot.measured_command(state)
        wanted = self._position & (self._measured >= 0)
        if not np.isfinite(measured[wanted]).all():
            return FaultReport("F14", "the measured state is not finite")
        rest = self._start if self._last is None else self._last
        start = np.where(np.isnan(measured), rest, measured)
        start[self._delta] = 0.0
        inside = self._allowed(start)
        gap = np.where(wanted, np.abs(start - inside), 0.0)
        worst = int(np.argmax(gap))
        if gap[worst] > self.anchor_gap:
            reason = (
                f"{self._names[worst]} is at {start[worst]:.4g}, limits {self._lower[worst]:g}..{self._upper[worst]:g}"
            )
            return FaultReport("F17", f"the robot stands outside its limits: {reason}", self._names[worst])
        self._last = inside
        self._stand(inside)
        self._joining, self.taken = True, False
        return None

    def take_over(self) -> None:
        """F21: somebody else commands the robot now: nothing is let through until `anchor`."""
        self.taken = True

    def release(self) -> None:
        """Deactivated: forget where the robot was commanded to be."""
        self._last = None
        self._stand(self._start)
        self.taken = self._joining = False

    def halt(self) -> None:
        """Time was lost (the process was stopped): the robot stands at the last command, whatever its speed was."""
        if self._last is not None:
            self._last = np.where(self._delta, 0.0, self._last)
        self._stand(self._start if self._last is None else self._last)

    def _stand(self, where: np.ndarray) -> None:
        """At rest, and nothing asked for."""
        self._asked, self._target = None, where
        self._speed, self._pace = np.zeros_like(where), np.zeros_like(where)

    # ---- every period

    def check(self, command: object, *, hold: bool = False) -> GuardResult:
        """The command to send in this period. Never raises.

        command: [A], or None for "come to rest". hold: it is part of a hold (the runner comes to rest, or rests): then
        the held command's own motion is followed, never faster than before; a robot that lags behind it slows down
        within its limits and does not catch up.
        """
        if self._last is None or self.taken:
            return GuardResult(None, held=True)
        target, violation = self._usable(command)
        if target is None:
            return self._send(self._braking(), None, held=True, violations=() if violation is None else (violation,))
        if self._joining and not hold:
            refused = self._refuse_gap(target)
            if refused is not None:
                return self._send(self._braking(), None, held=True, violations=(refused,))
            self._joining = False
        return self._send(self._follow_hold(target) if hold else target, target, held=hold)

    def _usable(self, command: object) -> tuple[np.ndarray | None, FaultReport | None]:
        if command is None:
            return None, None
        try:
            array = np.asarray(command, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            return None, FaultReport("F42", f"command is no numbers: {type(command).__name__}")
        if array.shape != self._lower.shape:
            return None, FaultReport("F42", f"command has shape {array.shape}, expected {self._lower.shape}")
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            return None, FaultReport("F40", f"{self._names[bad[0]]} is {array[bad[0]]}", self._names[bad[0]])
        return array, None

    def _refuse_gap(self, target: np.ndarray) -> FaultReport | None:
        """The first command after the anchor must start near the measured state (rule R5)."""
        gap = np.where(self._position & (self._measured >= 0), np.abs(target - self._last), 0.0)
        worst = int(np.argmax(gap))
        if gap[worst] <= self.anchor_gap:
            return None
        name = self._names[worst]
        return FaultReport(
            "F21", f"first command of {name} is {gap[worst]:.4g} away, at most {self.anchor_gap:g}", name
        )

    def _braking(self) -> np.ndarray:
        """A target that asks every dimension to rest: positions and choices stay, deltas are zero."""
        return np.where(self._delta, 0.0, self._last)

    def _follow_hold(self, target: np.ndarray) -> np.ndarray:
        """What a hold asks for: the held command's own motion, applied to where the robot was last sent.

        A guard that lags behind a rate-limited command must not catch up during a hold.
        """
        step = 0.0 if self._asked is None else target - self._asked
        return np.where(self._position, self._last + step, target)

    def _send(
        self, wish: np.ndarray, asked: np.ndarray | None, *, held: bool, violations: tuple[FaultReport, ...] = ()
    ) -> GuardResult:
        pace = self._paces(wish if asked is None else asked)
        sent = self._limited(wish, held and asked is not None, asked, _lesser(pace, self._pace))
        clamped = {}
        if not held:
            moved = np.abs(wish - sent) > ROUNDING * np.maximum(1.0, self._upper - self._lower)
            clamped = {self._names[i]: float(wish[i] - sent[i]) for i in np.flatnonzero(moved)}
            wild = moved & (np.abs(wish - sent) > WILD * (self._upper - self._lower))
            if wild.any():
                text = ", ".join(f"{self._names[i]} by {wish[i] - sent[i]:.4g}" for i in np.flatnonzero(wild)[:4])
                names = ",".join(self._names[i] for i in np.flatnonzero(wild))
                violations = (*violations, FaultReport("F41", f"clamped {text}", names))
            for name in clamped:
                self.clamp_counts[name] = self.clamp_counts.get(name, 0) + 1
        self._speed = np.where(self._position, (sent - self._last) / self.period_s, 0.0)
        self._last, self._asked = sent, asked
        self._target, self._pace = (sent, self._speed) if asked is None else (self._allowed(asked), pace)
        return GuardResult(sent.copy(), held, clamped, violations)

    # ---- limits

    def _allowed(self, values: np.ndarray) -> np.ndarray:
        """`values` within the ranges and allowed choices, a new array."""
        out = np.clip(values, self._lower, self._upper)
        for i, choices in self._choices.items():
            out[i] = choices[np.argmin(np.abs(choices - values[i]))]
        return out

    def _paces(self, asked: np.ndarray) -> np.ndarray:
        """How fast what is asked for moves by itself, units/s; zero for all but positions."""
        return np.where(self._position, (self._allowed(asked) - self._target) / self.period_s, 0.0)

    def _limited(self, wish: np.ndarray, resting: bool, asked_now: np.ndarray | None, pace: np.ndarray) -> np.ndarray:
        """The command nearest to `wish` that keeps every limit. resting: it is part of the hold command `asked_now`.
        pace: speed at which `wish` goes on, as far as two steps of it agree."""
        T, p, d = self.period_s, self._position, self._delta
        out = self._allowed(wish)
        with np.errstate(invalid="ignore", over="ignore"):
            if p.any():
                asked = self._speeds((out - self._last) / T, None if resting else pace)
                out[p] = (self._last + T * _reachable(asked, self._speed, self._a * T, resting))[p]
            if d.any():
                asked = np.clip(wish, np.maximum(self._lower, -self._v * T), np.minimum(self._upper, self._v * T))
                out[d] = _reachable(asked, self._last, self._a * T * T, resting)[d]
        if resting:  # asked to be where it was last sent, or to move by nothing: then no ramp is needed
            still = np.abs(np.where(d, asked_now, asked_now - self._last)) <= ROUNDING * (self._upper - self._lower)
            out = np.where(still & p, self._last, np.where(still & d, 0.0, out))
        return np.clip(out, self._lower, self._upper)

    def _speeds(self, asked: np.ndarray, pace: np.ndarray | None) -> np.ndarray:
        """Of the speeds asked for [A], what the way ahead allows: up to v_max, never so fast that the ramp to rest would
        end beyond the range, nor (with a pace) run past what is asked for."""
        T = self.period_s
        if pace is not None:
            # Seen from a command that goes on at its pace, the rest of the way is one to stop in. A command within the
            # limits is at most a_max T faster than its pace: it passes unchanged.
            ahead = asked - pace
            asked = pace + np.copysign(stoppable_speed(np.abs(ahead) * T, self._a, T), ahead)
        top = np.minimum(self._v, stoppable_speed(self._upper - self._last, self._a, T))
        bottom = -np.minimum(self._v, stoppable_speed(self._last - self._lower, self._a, T))
        return np.clip(asked, bottom, top)


def _reachable(asked: np.ndarray, now: np.ndarray, change: np.ndarray, resting: bool) -> np.ndarray:
    """The rate nearest to `asked` that differs by at most `change` from `now`. resting: one that only falls to zero."""
    if resting:
        asked = np.where(asked * now > 0, np.copysign(np.minimum(np.abs(asked), np.abs(now)), now), 0.0)
    return np.clip(asked, now - change, now + change)


def _lesser(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where the signs agree the one nearer to zero, else zero: a jump is no pace."""
    return np.where(a * b > 0, np.where(np.abs(a) < np.abs(b), a, b), 0.0)


def stoppable_speed(room: np.ndarray, a_max: np.ndarray, period_s: float) -> np.ndarray:
    """Largest speed [A] for this period after which the ramp to rest, a_max per period, ends within `room`.

    With q = a_max T the ramp from v is v, v - q, v - 2q, ... > 0, each for one period. Its length with n = floor(v / q)
    is T ((n + 1) v - q n (n + 1) / 2), which is solved for v. Without a_max (infinite) it is room / T.
    """
    room = np.maximum(room, 0.0)
    finite = np.isfinite(a_max)
    if not finite.any():
        return room / period_s
    q = np.where(finite, a_max, 1.0) * period_s
    n = np.floor((np.sqrt(1.0 + 8.0 * room / (q * period_s)) - 1.0) / 2.0)
    ramp = (room / period_s + q * n * (n + 1) / 2.0) / (n + 1)
    return np.where(finite, ramp, room / period_s)


def _mask(dims: tuple[ActionDim, ...], kind: str) -> np.ndarray:
    return np.array([d.kind == kind for d in dims])


def _or_inf(value: float | None) -> float:
    return np.inf if value is None else value
