"""RTCConfig: every setting of the chunk runner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from ..errors import ConfigError, nearest
from .chunk import SPLICES
from .command import CommandSpec, Limit

MISS_POLICIES = ("hold_last", "block")


@dataclass(frozen=True)
class RTCConfig:
    """Settings of `AsyncChunkRunner`. Raises ConfigError (a ValueError) on a value out of range.

    target_hz: control rate. action_horizon: use only that many rows of a chunk. start_next_at: ask for the next chunk
    before serving this row of the current one; None = max(1, rows // 2). miss_policy: what an exhausted chunk means:
    "hold_last" comes to rest and holds; "block" waits in the tick for the chunk under way. blend_steps: ticks over
    which a new chunk is blended in across the switch; 0 = as far as the old chunk reaches. max_workers: 1, the only
    value.

    splice: "none", "linear", "quintic" or "temporal_fusion" (chunk.SPLICES); None = "linear" when blend_steps > 0,
    else "none".
    fusion_decay, max_chunks: of temporal_fusion. delta_dims, discrete_dims, v_max, a_max, rest_ticks: see CommandSpec.
    max_obs_age_s: an observation older than this neither starts a chunk nor takes over with one. max_tick_gap_s: a
    longer pause between two ticks (process stopped) voids the current chunk; None = no such check, for loops that are
    not paced.
    max_disagreement: D_max; a chunk that differs more from the running one at the switch is rejected.
    max_held: after so many held ticks in a row the runner is `stopped`: it holds until `reset`.
    hold_after_rejects, stop_after_rejects: unusable chunks in a row that end the current chunk / stop the runner.
    error_backoff_s, error_backoff_max_s: wait before the request after a failed one, doubled each time up to the bound.
    request_early: also ask as soon as the measured latency needs it to finish before the chunk ends.
    held_ticks_advance: whether a held tick moves a chunk under way on by one row (time alignment, the default) or not
    (the plan waits with the robot; a policy slower than its horizon then still makes progress).
    block_timeout_s: bound of the two waits that exist (first chunk, miss_policy "block"); None = no bound.
    event_log: how many events `runner.events` keeps.
    """

    target_hz: float = 20.0
    action_horizon: int | None = None
    start_next_at: int | None = None
    miss_policy: str = "hold_last"
    blend_steps: int = 0
    max_workers: int = 1
    splice: str | None = None
    fusion_decay: float = 0.1
    max_chunks: int = 3
    delta_dims: tuple[int, ...] = ()
    discrete_dims: tuple[int, ...] = ()
    v_max: Limit = None
    a_max: Limit = None
    rest_ticks: int = 4
    max_obs_age_s: float | None = None
    max_tick_gap_s: float | None = None
    max_disagreement: float | None = None
    max_held: int | None = None
    hold_after_rejects: int = 3
    stop_after_rejects: int = 10
    error_backoff_s: float = 0.1
    error_backoff_max_s: float = 2.0
    request_early: bool = False
    held_ticks_advance: bool = True
    block_timeout_s: float | None = None
    event_log: int = 1024

    def __post_init__(self) -> None:
        if not (math.isfinite(self.target_hz) and self.target_hz > 0):
            raise ConfigError("target_hz", expected="positive", found=self.target_hz)
        counts = ("action_horizon", "max_held", "max_chunks", "hold_after_rejects", "stop_after_rejects", "event_log")
        for name in counts:
            self._check(name, lambda x: int(x) == x and x >= 1, "a whole number >= 1")
        for name in ("start_next_at", "blend_steps"):
            self._check(name, lambda x: int(x) == x and x >= 0, "a whole number >= 0")
        for name in ("max_obs_age_s", "max_tick_gap_s", "max_disagreement", "block_timeout_s"):
            self._check(name, lambda x: x > 0, "> 0")
        for name in ("fusion_decay", "error_backoff_s", "error_backoff_max_s"):
            self._check(name, lambda x: math.isfinite(x) and x >= 0, "finite and >= 0")
        if self.miss_policy not in MISS_POLICIES:
            raise ConfigError("miss_policy", expected=" or ".join(MISS_POLICIES), found=self.miss_policy)
        if self.max_workers != 1:
            raise ConfigError("max_workers", expected="1: one model, one thread", found=self.max_workers)
        if self.splice is not None and self.splice not in SPLICES:
            raise ConfigError("splice", found=self.splice, hint=nearest(str(self.splice), SPLICES))
        object.__setattr__(self, "delta_dims", tuple(self.delta_dims))
        object.__setattr__(self, "discrete_dims", tuple(self.discrete_dims))
        _ = self.spec  # its own checks

    def _check(self, name: str, good, rule: str) -> None:
        value = getattr(self, name)
        if value is None:
            return
        try:
            fine = bool(good(value))
        except (TypeError, ValueError, OverflowError):
            fine = False
        if not fine:
            raise ConfigError(name, expected=rule, found=value)

    @property
    def period_s(self) -> float:
        """T = 1 / target_hz."""
        return 1.0 / self.target_hz

    @property
    def splice_name(self) -> str:
        """The strategy in force."""
        return self.splice or ("linear" if self.blend_steps else "none")

    @cached_property
    def spec(self) -> CommandSpec:
        """What the dimensions mean, for the functions of `chunk`."""
        return CommandSpec(self.period_s, self.delta_dims, self.discrete_dims, self.v_max, self.a_max, self.rest_ticks)

    def start_row(self, rows: int) -> int:
        """The row before which the next chunk is asked for, in a chunk of `rows` rows."""
        return max(1, rows // 2) if self.start_next_at is None else min(self.start_next_at, rows)
