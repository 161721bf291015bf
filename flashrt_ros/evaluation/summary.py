"""The figures of a run of episodes: what `result.json` holds, the table shows and the report draws."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flashrt_core import __version__
from flashrt_core.runtime.boundary import BoundaryMetrics, boundary_metrics

from .closed_loop import Episode
from .metrics import percentiles, wilson_interval
from .rollout import Rollout

CONTROL_HZ = 20.0
STEP_M = 0.02  # metres per unit of action: positions in the boundary metrics are in metres
MOVING_DIMS = 3  # x, y, z; the other deltas of the action are unused by the task
TIMING_KEYS = ("model_latency_ms", "tick_late_ms", "wall_s", "machine")  # all that may differ between two equal runs


def boundary(
    episodes: Sequence[Episode], reference: Sequence[Episode] = (), step_m: float = STEP_M
) -> BoundaryMetrics:
    """CB1-CB6 over the hand's commanded path, in metres and seconds; runs are not joined to each other.

    The boundary is the tick before a switch and the tick of it, for every splice alike: with a blend of 3 ticks and a new
    chunk every 5, "within the blend" would be nearly every tick. v_max is one full action per tick.
    reference: the same seeds run synchronously, for CB5. step_m: metres per unit of action.
    """
    commands, starts = _path(episodes, step_m)
    switches = [t + s for e, s in zip(episodes, starts, strict=True) for t in e.switch_ticks if t < len(e.commands)]
    rows = [
        (d, x, y)
        for e in episodes
        for t, d, x, y in zip(e.switch_ticks, e.disagreements, e.executed, e.elapsed, strict=True)
        if t < len(e.commands)
    ]
    more = {}
    if reference:
        more["reference"], more["reference_starts"] = _path(reference, step_m)
    return boundary_metrics(
        commands, switches, 1.0 / CONTROL_HZ,
        v_max=step_m * CONTROL_HZ,
        disagreements=[None if d is None else d * step_m for d, _, _ in rows],
        executed=[x for _, x, _ in rows], elapsed=[y for _, _, y in rows],
        delta_dims=tuple(range(MOVING_DIMS)), run_starts=starts, **more,
    )  # fmt: skip


def _path(episodes: Sequence[Episode], step_m: float) -> tuple[np.ndarray, list[int]]:
    """Commands of all episodes one after another [N, 3] in metres per tick, and the rows at which each begins."""
    rows = [e.commands[:, :MOVING_DIMS].astype(np.float64) * step_m for e in episodes]
    starts = np.cumsum([0] + [len(r) for r in rows[:-1]]).tolist() if rows else []
    return (np.concatenate(rows) if rows else np.zeros((0, MOVING_DIMS))), starts


def summarise(episodes: Sequence[Episode], what: Rollout, seed: int, wall_s: float) -> dict[str, object]:
    """The whole of result.json. Everything but `TIMING_KEYS` is the same for the same seed on the same machine.

    An episode that ended in an error of the simulation is counted in `errors`, not in `episodes` (F83).
    """
    sound = [e for e in episodes if e.error is None]
    wins = sum(e.success for e in sound)
    low, high = wilson_interval(wins, len(sound))
    return {
        "episodes": len(sound),
        "successes": wins,
        "success_rate": wins / len(sound) if sound else None,
        "success_wilson95": [low, high],
        "errors": len(episodes) - len(sound),
        "by_prompt": by_prompt(sound),
        "model_latency_ms": percentiles([x for e in sound for x in e.model_ms]),
        "tick_misses": sum(e.tick_misses for e in sound),
        "ticks": sum(e.steps for e in sound),
        "policy_errors": sum(e.policy_errors for e in sound),
        "boundary": rounded(boundary(sound).to_json()),
        "tick_late_ms": percentiles([x for e in sound for x in e.late_ms]),
        "precision": what.precision,
        "splice": what.loop.splice,
        "latency_ms": what.loop.latency_ms,
        "replan_ticks": what.loop.replan_ticks,
        "realtime": what.loop.realtime,
        "renderer": what.renderer,
        "threads": what.threads,
        "hardware": "host",
        "checkpoint": Path(what.checkpoint).name if what.checkpoint else "bundled",
        "seed": seed,
        "version": __version__,
        "wall_s": round(wall_s, 3),
        "machine": machine(),
        "rows": [e.row() for e in episodes],
    }


def by_prompt(episodes: Sequence[Episode]) -> dict[str, dict[str, int]]:
    """Episodes and successes for each prompt, in the order of the alphabet."""
    out: dict[str, dict[str, int]] = {}
    for e in sorted(episodes, key=lambda e: e.prompt):
        row = out.setdefault(e.prompt, {"episodes": 0, "successes": 0})
        row["episodes"] += 1
        row["successes"] += e.success
    return out


def rounded(values: dict[str, float | int | None]) -> dict[str, float | int | None]:
    """Six significant digits and nothing below 1e-9: what a reader can use, without the noise of the last bit."""
    return {k: (float(f"{v:.6g}") if abs(v) > 1e-9 else 0.0) if isinstance(v, float) else v for k, v in values.items()}


def machine() -> dict[str, str]:
    """What the run was measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {"cpu": cpu, "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version()}
