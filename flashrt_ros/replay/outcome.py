"""BagOutcome: everything a replay found out about one bag, small enough to be sent between processes and added up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..bags.findings import Finding
from .action_error import ActionErrors
from .splice_trace import Trace

UNIT_FIELDS = ("chunk", "first", "served")


@dataclass(frozen=True)
class FirstFrame:
    """What a request saw and what came of it, for the report. images: view -> uint8 [S, S, 3].

    predicted, recorded: [H, A]; recorded is NaN where there is no command. at_s: since the bag's start.
    """

    images: dict[str, np.ndarray]
    prompt: str
    at_s: float
    age_ms: float
    predicted: np.ndarray
    recorded: np.ndarray


@dataclass
class Excerpt:
    """The beginning of the first episode as curves: recorded and served commands per tick [N, A], NaN where none."""

    recorded: list[np.ndarray] = field(default_factory=list)
    served: list[np.ndarray] = field(default_factory=list)
    switches: list[int] = field(default_factory=list)


@dataclass
class BagOutcome:
    """Figures of one bag.

    traces: splice -> what it would have served; references: the same with calls that take no time, empty when they took
    none anyway. units: (episode, second) -> sums and counts of normalised errors, for paired comparisons. outside: commands
    of the policy beyond the robot's range, per dimension; clamped: commands that the guard changed, per dimension. skipped,
    faults, refused: by fault id; reasons: what was wrong when it was first seen. action_delay_ms: oldest input to the tick
    at which its chunk took over, in the replay's time. model_ms: wall time of each policy call. hardware: what it ran on.
    """

    bag: str
    errors: ActionErrors
    traces: dict[str, Trace]
    references: dict[str, Trace]
    outside: np.ndarray
    scale_source: str = ""
    hardware: str = ""
    clamped: Counter[str] = field(default_factory=Counter)
    ticks: int = 0
    compared_ticks: int = 0
    episodes: int = 0
    requests: int = 0
    chunks: int = 0
    held_ticks: int = 0
    silent_ticks: int = 0
    rows: int = 0
    duration_s: float = 0.0
    messages: int = 0
    stats: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    not_ready: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    action_delay_ms: list[float] = field(default_factory=list)
    model_ms: list[float] = field(default_factory=list)
    wall_s: float = 0.0
    units: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    first_frames: list[FirstFrame] = field(default_factory=list)
    excerpt: Excerpt = field(default_factory=Excerpt)

    @property
    def lost(self) -> list[Finding]:
        return [f for f in self.findings if f.is_loss]

    def add_unit(self, episode: int, second: int, kind: str, normalised: np.ndarray) -> None:
        """Add |errors| of a kind to the second of the episode that they belong to; NaN counts nothing."""
        known = normalised[np.isfinite(normalised)]
        if known.size:
            row = self.units.setdefault((episode, second), np.zeros(2 * len(UNIT_FIELDS)))
            at = 2 * UNIT_FIELDS.index(kind)
            row[at] += known.sum()
            row[at + 1] += known.size
