"""StateSlot: keeps the newest good joint state, mapped by name to the policy's state; what is not good is refused.

One thread puts, another one reads: what a reader sees is one immutable object that is replaced as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flashrt_core.runtime.clock import NS, Clock

from ..config.settings import SafetyConfig, StateDim
from ..control.faults import FaultReport
from ..redact import public_error
from .image_decode import Rejected

MAX_JOINTS = 1024  # names in one JointState


@dataclass(frozen=True)
class State:
    """The newest state. values: float32 [state dims], in the policy's units and order, read-only."""

    values: np.ndarray
    stamp_ns: int
    received_ns: int
    seq: int


class StateSlot:
    """Newest joint state, mapped by name to the policy's state."""

    def __init__(self, dims: Sequence[StateDim], safety: SafetyConfig, clock: Clock, topic: str = "joint_states"):
        self.dims, self.safety, self.topic = tuple(dims), safety, topic
        self.state: State | None = None
        self.reject: FaultReport | None = None
        self.teleport: FaultReport | None = None  # F19 since the reader last took it
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._seq = 0
        self._names: list[str] | None = None
        self._index: list[int] = []
        self._fields = sorted({d.field for d in self.dims})
        lower, upper = (np.array([getattr(d, n) for d in self.dims]) for n in ("lower", "upper"))
        self._middle, self._half = (lower + upper) / 2, (upper - lower) / 2
        self._scale = np.array([d.scale for d in self.dims])
        self._offset = np.array([d.offset for d in self.dims])

    @property
    def span(self) -> np.ndarray:
        """float64 [state dims]: upper - lower."""
        return 2 * self._half

    def put(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        stamp_ns: int,
        velocities: Sequence[float] = (),
        efforts: Sequence[float] = (),
    ) -> FaultReport | None:
        """Store a sensor_msgs/JointState, or return why not: F16 names, F14 not finite, F17 out of limits."""
        now = self._clock.now_ns()
        try:
            values = self._values(names, {"position": positions, "velocity": velocities, "effort": efforts})
        except Rejected as rejected:
            return self._refuse(rejected.report)
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            return self._refuse(FaultReport("F16", f"not a joint state: {public_error(error)}"))
        self._check_step(values, now)
        values.flags.writeable = False
        stamp = int(stamp_ns) if isinstance(stamp_ns, int | np.integer) and stamp_ns > 0 else 0
        self._seq += 1
        self.state, self.reject = State(values, stamp, now, self._seq), None
        return None

    def reset(self) -> None:
        """Forget the state and complaints; counters stay."""
        self.state = self.reject = self.teleport = None

    def take_teleport(self) -> FaultReport | None:
        """The jump since the last call, if any."""
        found, self.teleport = self.teleport, None
        return found

    def _values(self, names: Sequence[str], fields: dict[str, Sequence[float]]) -> np.ndarray:
        if names != self._names:
            self._map(names)
        readings = {}
        for field in self._fields:
            array = np.asarray(fields[field], dtype=np.float64)
            if array.shape != (len(self._names),):
                raise Rejected("F16", f"{len(self._names)} names, {array.size} values of {field}")
            readings[field] = array
        raw = np.array([readings[d.field][i] for d, i in zip(self.dims, self._index, strict=True)], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            values = raw * self._scale + self._offset
            narrow = values.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(narrow))
        if len(bad):
            raise Rejected("F14", f"{self.dims[bad[0]].name} is {raw[bad[0]]}")
        outside = np.flatnonzero(np.abs(values - self._middle) > self.safety.limits_factor * self._half + 1e-6)
        if len(outside):
            dim = self.dims[outside[0]]
            raise Rejected(
                "F17", f"{dim.name} is {values[outside[0]]:.4g}, limits {dim.lower:g}..{dim.upper:g} (other units?)"
            )
        return narrow

    def _map(self, names: Sequence[str]) -> None:
        """Where each state dimension stands in the message (F16). Extra joints are ignored."""
        if len(names) > MAX_JOINTS:
            raise Rejected("F16", f"{len(names)} joint names, at most {MAX_JOINTS}")
        names = list(names)
        at = {name: i for i, name in enumerate(names)}
        missing = [d.source for d in self.dims if d.source not in at]
        if missing:
            raise Rejected("F16", f"no joint {', '.join(missing[:8])}")
        twice = sorted({d.source for d in self.dims if names.count(d.source) > 1})
        if twice:
            raise Rejected("F16", f"joint {', '.join(twice[:8])} twice")
        self._index = [at[d.source] for d in self.dims]
        self._names = names

    def _check_step(self, values: np.ndarray, now: int) -> None:
        """F19: a step between two messages that no motion makes. After a pause the state may be anywhere."""
        old = self.state
        if old is None or not 0 <= now - old.received_ns <= self.safety.max_state_age_s * NS:
            return
        limit = np.array([d.max_step if d.max_step is not None else np.nan for d in self.dims])
        limit = np.where(np.isnan(limit), self.safety.teleport_fraction * self.span, limit)
        step = np.abs(values.astype(np.float64) - old.values)
        over = np.flatnonzero(step > limit + 1e-6)
        if len(over):
            self.counters["F19"] += 1
            name = self.dims[over[0]].name
            reason = f"{name} jumped by {step[over[0]]:.4g}, at most {limit[over[0]]:.4g}"
            self.teleport = FaultReport("F19", reason, self.topic)

    def _refuse(self, report: FaultReport) -> FaultReport:
        self.counters[report.id] += 1
        self.reject = FaultReport(report.id, f"{self.topic}: {report.reason}", self.topic)
        return self.reject
