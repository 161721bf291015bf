"""The figures of a replay: result.json, which is the same for the same bags, policy and seed, and timing.json, which is not."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

from flashrt_core import __version__

from ..config.settings import RobotConfig
from ..evaluation.metrics import percentiles
from ..evaluation.summary import machine
from .action_error import number
from .outcome import BagOutcome
from .settings import ReplaySettings
from .splice_trace import measure


def result(
    total: BagOutcome, outcomes: Sequence[BagOutcome], settings: ReplaySettings, scale_source: str
) -> dict[str, object]:
    """Everything of result.json. Nothing in it depends on the machine's speed unless the latency is measured."""
    robot, policy = settings.robot, settings.policy
    delays = percentiles(total.action_delay_ms)
    return {
        "bags": [_bag(o) for o in outcomes],
        "policy": {
            "checkpoint": "script" if settings.script else Path(policy.checkpoint).name if policy.checkpoint else "bundled",
            "model": policy.model, "precision": policy.precision, "hardware": policy.hardware, "seed": settings.seed,
        },
        "robot": robot.name, "control_hz": robot.control_hz, "splice": settings.node.splice,
        "replan_ticks": settings.node.replan_ticks, "latency_ms": settings.latency.text,
        "ticks": total.ticks, "compared_ticks": total.compared_ticks, "episodes": total.episodes,
        "duration_s": round(total.duration_s, 3), "requests": total.requests, "chunks": total.chunks,
        "held_ticks": total.held_ticks, "silent_ticks": total.silent_ticks,
        "not_asked": {"skipped_ticks": _sorted(total.skipped), "ticks_not_ready": _sorted(total.not_ready)},
        "reasons": {k: total.reasons[k] for k in sorted(total.reasons)},
        "refused_messages": _sorted(total.refused), "unreadable_messages": _sorted(total.unreadable),
        "faults": _sorted(total.faults), "runner": _sorted(total.stats),
        "action_error": {"scale": scale_source, **total.errors.to_json(robot.action_names)},
        "boundary": boundaries(total, settings),
        "limits": limits(total, robot),
        "observation_to_action_ms": {k: None if v is None else number(v) for k, v in delays.items()},
        "version": __version__,
    }  # fmt: skip


def _bag(o: BagOutcome) -> dict[str, object]:
    error = o.errors.to_json(())["all"]
    return {
        "bag": o.bag, "duration_s": round(o.duration_s, 3), "messages": o.messages,
        "verified": not any(f.fault == "F81" for f in o.findings),
        "findings": [{"fault": f.fault, "text": f.text, "count": f.count} for f in o.findings],
        "episodes": o.episodes, "ticks": o.ticks, "requests": o.requests, "chunks": o.chunks,
        "mae_normalised": {k: error[k]["mae"] for k in ("first", "chunk", "served")},
    }  # fmt: skip


def boundaries(total: BagOutcome, settings: ReplaySettings) -> dict[str, dict[str, float | int | None]]:
    """CB1-CB6 per splice strategy. With calls that take no time a run is its own synchronous reference: CB5 is 1."""
    config, out = settings.node.runner_config(settings.robot), {}
    for name, trace in total.traces.items():
        found = measure(trace, config, total.references.get(name))
        if found is None:
            continue
        values = {k: v for k, v in found.to_json().items() if not k.startswith("cb7")}
        if not total.references and values["cb5_jerk"] is not None:
            values["cb5_ratio"] = 1.0
        values = {k: number(v) if isinstance(v, float) else v for k, v in values.items()}
        out[name] = {**values, "ticks_left_out": trace.dropped}
    return out


def limits(total: BagOutcome, robot: RobotConfig) -> dict[str, object]:
    """What the policy asked for beyond the robot's limits."""
    return {
        "rows": total.rows,
        "rows_outside_range": {n: int(v) for n, v in zip(robot.action_names, total.outside, strict=True)},
        "commands_changed_by_the_guard": {n: int(total.clamped.get(n, 0)) for n in robot.action_names},
    }


def timing(total: BagOutcome, outcomes: Sequence[BagOutcome], settings: ReplaySettings, wall_s: float) -> dict[str, object]:
    """Everything of timing.json: what differs from run to run."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(), "hardware": outcomes[0].hardware, "threads": settings.threads, "wall_s": round(wall_s, 3),
        "model_latency_ms": percentiles(total.model_ms), "model_calls": len(total.model_ms),
        "ticks_per_s": round(total.ticks / wall_s, 1) if wall_s else None,
        "bags": {o.bag: {"wall_s": round(o.wall_s, 3), "model_latency_ms": percentiles(o.model_ms)} for o in outcomes},
    }  # fmt: skip


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    return {k: int(v) for k, v in sorted(counts.items()) if v}
