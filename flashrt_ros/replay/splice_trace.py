"""SpliceTrace: the commands that one splice strategy would have served, from the chunks of a single run of the policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from flashrt_core.runtime.boundary import BoundaryMetrics, boundary_metrics
from flashrt_core.runtime.playback import FADES, Playback
from flashrt_core.runtime.rtc import RTCConfig

MAX_TICKS = 250_000  # of a trace that are measured: bounded memory on any bag (3.5 h at 20 Hz)


class Rows:
    """Commands [N, A] that grow at the end."""

    def __init__(self) -> None:
        self._buffer, self._count = np.zeros((0, 0)), 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: np.ndarray) -> None:
        """rows: [n, A]."""
        end = self._count + len(rows)
        if end > len(self._buffer):
            larger = np.zeros((max(1024, 2 * end), rows.shape[1]), rows.dtype)
            if self._count:
                larger[: self._count] = self._buffer[: self._count]
            self._buffer = larger
        self._buffer[self._count : end] = rows
        self._count = end

    @property
    def array(self) -> np.ndarray:
        return self._buffer[: self._count]


@dataclass
class Trace:
    """Commands of all episodes one after another and where they join. starts: rows at which an unbroken run begins.

    Per switch: row, D of CB4, row of the chunk it starts at, ticks since its observation.
    """

    commands: Rows = field(default_factory=Rows)
    starts: list[int] = field(default_factory=list)
    switches: list[int] = field(default_factory=list)
    disagreements: list[float | None] = field(default_factory=list)
    executed: list[int] = field(default_factory=list)
    elapsed: list[int] = field(default_factory=list)
    dropped: int = 0

    def merge(self, other: Trace) -> None:
        """Append another bag's trace."""
        at, room = len(self.commands), MAX_TICKS - len(self.commands)
        if len(other.commands) and room > 0:
            self.commands.add(other.commands.array[:room])
        self.starts += [at + s for s in other.starts if s < room]
        kept = [i for i, s in enumerate(other.switches) if s < room]
        self.switches += [at + other.switches[i] for i in kept]
        for name in ("disagreements", "executed", "elapsed"):
            getattr(self, name).extend(getattr(other, name)[i] for i in kept)
        self.dropped += other.dropped + max(0, len(other.commands) - room)


class SpliceTrace:
    """Plays chunks as a runner with that strategy would, without a guard. synchronous: as if calls took no time (CB5)."""

    def __init__(self, config: RTCConfig, splice: str, blend_ticks: int, synchronous: bool = False):
        blend = blend_ticks if splice in FADES else 0
        self.config, self.synchronous = replace(config, splice=splice, blend_steps=blend), synchronous
        self.trace = Trace()
        self.begin()

    def begin(self) -> None:
        """Another run: nothing leads from the commands before to those that come."""
        self._play = Playback(self.config)
        self._fresh = True

    def take(self, chunk: np.ndarray, executed: int, elapsed: int) -> None:
        """A chunk [H, A] takes over with the next command, from its row `executed` on."""
        play, trace = self._play, self.trace
        executed = 0 if self.synchronous else executed
        if play.started and len(trace.commands) < MAX_TICKS:
            trace.switches.append(len(trace.commands))
            trace.disagreements.append(play.disagreement(chunk, executed))
            trace.executed.append(executed)
            trace.elapsed.append(0 if self.synchronous else elapsed)
        play.take(chunk, executed)

    def step(self) -> None:
        """One control period."""
        command, trace = self._play.step(), self.trace
        if command is None:
            return
        if len(trace.commands) >= MAX_TICKS:
            trace.dropped += 1
            return
        if self._fresh:
            trace.starts.append(len(trace.commands))
            self._fresh = False
        trace.commands.add(command[None])


def measure(trace: Trace, config: RTCConfig, reference: Trace | None = None) -> BoundaryMetrics | None:
    """CB1-CB6 of a trace; None without commands. reference: the synchronous one, for CB5.

    The boundary is the tick before a switch and the tick of it, for every strategy alike: where a blend is as long as the
    way to the next switch, "within the blend" would be every tick.
    """
    if not len(trace.commands):
        return None
    known = [i for i, s in enumerate(trace.switches) if s < len(trace.commands)]
    more = {}
    if reference is not None and len(reference.commands):
        more = {"reference": reference.commands.array, "reference_starts": reference.starts}
    return boundary_metrics(
        trace.commands.array, [trace.switches[i] for i in known], config.period_s, v_max=config.v_max, a_max=config.a_max,
        disagreements=[trace.disagreements[i] for i in known], d_max=config.max_disagreement,
        executed=[trace.executed[i] for i in known], elapsed=[trace.elapsed[i] for i in known],
        delta_dims=config.delta_dims, discrete_dims=config.discrete_dims, run_starts=trace.starts, **more,
    )  # fmt: skip
