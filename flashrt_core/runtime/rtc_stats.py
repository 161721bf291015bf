"""RTCStats and RunnerEvent: what the chunk runner counts and records about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class RTCStats:
    """Counters since the last reset.

    chunks_started / chunks_completed: requests handed to the worker / results that came back, usable or not.
    actions_served: commands returned, held ones included. held_actions: those served while no chunk had a row for the
    tick. deadline_misses: late chunks, each counted once however many ticks it was late. swaps: chunks that took over
    from an earlier one. last_latency_s, max_latency_s: request to result. latency_estimate_s: the largest of the last
    three. empty_ticks: ticks before the first chunk with nothing to hold. policy_errors: calls that raised.
    rejected_chunks: results of wrong shape or not finite, or over max_disagreement. expired_chunks: results that came
    after their last row or from an observation too old. discarded_chunks: requests given up by a reset, a clock jump or
    a gap. missing_observations: ticks that needed an observation and got none. stale_observations: observations not
    used for their age. late_ticks: ticks more than half a period late. index_mismatches: switches whose index differs
    from the ticks elapsed by the clock.
    """

    chunks_started: int = 0
    chunks_completed: int = 0
    actions_served: int = 0
    deadline_misses: int = 0
    held_actions: int = 0
    swaps: int = 0
    last_latency_s: float = 0.0
    max_latency_s: float = 0.0
    latency_estimate_s: float = 0.0
    empty_ticks: int = 0
    policy_errors: int = 0
    rejected_chunks: int = 0
    expired_chunks: int = 0
    discarded_chunks: int = 0
    missing_observations: int = 0
    stale_observations: int = 0
    late_ticks: int = 0
    index_mismatches: int = 0

    @property
    def idle_ticks(self) -> int:
        """Ticks in which no chunk had a row."""
        return self.held_actions + self.empty_ticks

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class RunnerEvent:
    """One thing that happened, at the tick `tick` (0 = first after the reset that began `epoch`).

    kind: "start" (first chunk), "switch" (a chunk took over), "hold" (first held tick), "error" (the policy raised),
    "timeout", "reject", "expire", "discard", "gap", "clock_back", "stop". request_tick: tick whose observation the
    chunk came from. executed: row at which it starts = ticks served since. elapsed_ticks: periods since the request
    by the clock, waits inside the runner taken out; CB6 holds when the two are equal. disagreement: D of CB4. blend:
    ticks blended. resumed: the switch ended a hold. reason: text for the log.
    """

    kind: str
    tick: int
    epoch: int
    request_tick: int | None = None
    executed: int | None = None
    elapsed_ticks: int | None = None
    disagreement: float | None = None
    latency_s: float | None = None
    obs_age_s: float | None = None
    blend: int | None = None
    resumed: bool = False
    reason: str | None = None

    def to_json(self) -> dict[str, object]:
        return asdict(self)
