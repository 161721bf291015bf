"""`result.jsonl` of an evaluation: a line per episode, read again by the next run, and the figures made of it."""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from flashrt_core import __version__
from flashrt_core.errors import ConfigError

from ...evaluation.closed_loop import Episode
from ...evaluation.metrics import percentiles, wilson_interval
from ...evaluation.summary import boundary, machine, rounded
from .plan import SYNC, Condition, EvaluationPlan, Job
from .protocol import CONTROL_HZ, STEP_M
from .trial import Outcome

_LISTS = ("switch_ticks", "executed", "elapsed", "disagreements", "model_ms", "late_ms")
Row = dict[str, object]


class ResultFile:
    """The episodes of one evaluation in `out`: result.jsonl, and episodes/*.npz with the commands of each."""

    def __init__(self, out: Path, plan: EvaluationPlan):
        """Raises ConfigError when the folder holds another evaluation, or the checkpoint is none."""
        self.out, self.plan = out, plan
        self.path = out / "result.jsonl"
        self.rows: dict[tuple, Row] = {}
        self._begun, self._identity = False, plan.identity()
        if self.path.exists():
            self._read(self._identity)

    def missing(self, retry_errors: bool = False) -> list[Job]:
        """Episodes of the plan that have not been run. retry_errors: also those that ended in an error."""
        done = {key for key, row in self.rows.items() if not (retry_errors and row["error"])}
        return [job for job in self.plan.jobs() if job.key not in done]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While episodes are written. Raises ConfigError when another run writes here. A line that a crash cut goes away."""
        with (self.out / "log/lock").open("w") as mark:
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    "--out", expected="a folder to which no other run writes", found=str(self.out),
                    hint="Wait for that run, or name another --out",
                ) from None  # fmt: skip
            if self.path.exists():
                data = self.path.read_bytes()
                os.truncate(self.path, data.rfind(b"\n") + 1)
            yield

    def add(self, outcome: Outcome) -> None:
        """Write an episode: first its commands, then its line."""
        e, job = outcome.episode, outcome.job
        lists = {name: np.asarray(_numbers(getattr(e, name)), np.float64) for name in _LISTS}
        np.savez_compressed(self.out / "episodes" / f"{job.file_stem}.npz", commands=e.commands, **lists)
        chunks = len(e.switch_ticks) + bool(e.steps)
        # In sync the scene waits for every call; else only for the first, at rest.
        waits = chunks if job.condition.splice == SYNC else bool(chunks)
        policy_s = None if outcome.policy_s is None else round(outcome.policy_s, 4)
        row = {
            "splice": job.condition.splice, "latency_ms": job.condition.latency_ms, "task": job.task, "trial": job.trial,
            "name": outcome.task_name, **e.row(), "policy_errors": e.policy_errors,
            "task_s": round(e.steps / CONTROL_HZ + waits * job.condition.latency_ms / 1e3, 3),
            "wall_s": round(outcome.wall_s, 3), "reset_s": round(outcome.reset_s, 3), "physics_s": round(outcome.physics_s, 3),
            "render_s": round(outcome.render_s, 3), "policy_s": policy_s, "versions": outcome.versions,
        }  # fmt: skip
        self._write(row)
        self.rows[job.key] = row

    def episodes(self, rows: list[Row]) -> list[Episode]:
        """The episodes of these rows with their commands."""
        return [self._episode(row) for row in rows]

    def _episode(self, row: Row) -> Episode:
        stem = f"{Condition(row['splice'], row['latency_ms']).name}_task{row['task']}_trial{row['trial']}"
        try:
            with np.load(self.out / "episodes" / f"{stem}.npz", allow_pickle=False) as data:
                lists = {name: data[name].tolist() for name in _LISTS}
                commands = data["commands"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"episodes/{stem}.npz", expected=f"the commands of an episode of {self.path}", found=ascii(error)[:120],
                hint="Name another --out",
            ) from None  # fmt: skip
        for name in ("switch_ticks", "executed", "elapsed"):
            lists[name] = [int(v) for v in lists[name]]
        lists["disagreements"] = [None if math.isnan(v) else v for v in lists["disagreements"]]
        return Episode(
            row["seed"], row["prompt"], bool(row["success"]), int(row["steps"]), commands=commands,
            tick_misses=int(row["tick_misses"]), error=row["error"], **lists,
        )  # fmt: skip

    def _read(self, identity: Mapping[str, object]) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        if text and not text.endswith("\n"):  # the last run ended while it wrote
            lines = lines[:-1]
        if not lines:
            return
        self._begun = True
        try:
            head, *rows = (dict(json.loads(line)) for line in lines)
            keys = [(row["splice"], row["latency_ms"], row["task"], row["trial"]) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                str(self.path), expected="lines that flashrt libero wrote", found=ascii(error)[:120], hint="Name another --out"
            ) from None
        have = head.get("run")
        if have != identity:
            names = [k for k in identity if have is None or have.get(k) != identity[k]]
            raise ConfigError(
                "--out", expected="a folder without episodes, or with episodes of this evaluation",
                found=f"{self.path} with another {', '.join(names)}", hint="Name another --out",
            )  # fmt: skip
        self.rows.update(zip(keys, rows, strict=True))

    def _write(self, line: Mapping[str, object]) -> None:
        """Append a line, the first one after the head: a run that never got to an episode leaves no trace."""
        with self.path.open("a", encoding="utf-8") as file:
            if not self._begun:
                file.write(json.dumps({"run": self._identity, "version": __version__}) + "\n")
                self._begun = True
            file.write(json.dumps(line, allow_nan=False) + "\n")


def _numbers(values: list) -> list[float]:
    return [math.nan if v is None else v for v in values]


def summarise(file: ResultFile, wall_s: float) -> dict[str, object]:
    """The whole of result.json: for each condition of the plan what its episodes were, and what the run cost."""
    plan = file.plan
    wanted = {job.key for job in plan.jobs()}
    rows = [row for key, row in sorted(file.rows.items()) if key in wanted]
    return {
        **plan.identity(), "episodes_per_task": plan.episodes, "tasks": list(plan.tasks),
        "conditions": [condition_figures(file, plan, c) for c in plan.conditions],
        "cost": cost(rows), "versions": next((r["versions"] for r in rows if r["versions"]), {}),
        "workers": plan.workers, "flashrt": __version__, "wall_s": round(wall_s, 1), "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def condition_figures(file: ResultFile, plan: EvaluationPlan, condition: Condition) -> dict[str, object]:
    """Success by task and over all, errors apart, latency and boundary metrics of one condition."""
    rows = list(_rows_of(file, plan, condition))
    sound = [row for row in rows if not row["error"]]
    episodes = file.episodes(sound)
    reference = list(_rows_of(file, plan, Condition())) if Condition() in plan.conditions else []
    synchronous = file.episodes([row for row in reference if not row["error"]])
    misses, ticks = sum(row["tick_misses"] for row in sound), sum(row["steps"] for row in sound)
    wins = [row for row in sound if row["success"]]
    return {
        "splice": condition.splice, "latency_ms": condition.latency_ms, **success(rows),
        "tasks": [
            {"task": t, "name": next((r["name"] for r in rows if r["task"] == t), ""),
             **success([r for r in rows if r["task"] == t])} for t in plan.tasks
        ],
        "mean_steps_of_successes": _mean([row["steps"] for row in wins]),
        "mean_task_s_of_successes": _mean([row["task_s"] for row in wins]),
        "tick_misses": misses, "ticks": ticks, "policy_errors": sum(row["policy_errors"] for row in sound),
        "model_latency_ms": percentiles([x for e in episodes for x in e.model_ms]),
        "tick_late_ms": percentiles([x for e in episodes for x in e.late_ms]),
        "boundary": rounded(boundary(episodes, synchronous, STEP_M).to_json()),
    }  # fmt: skip


def success(rows: list[Row]) -> dict[str, object]:
    """Errors are counted apart: they are neither successes nor failures (F83)."""
    sound = [row for row in rows if not row["error"]]
    wins = sum(bool(row["success"]) for row in sound)
    low, high = wilson_interval(wins, len(sound))
    return {
        "episodes": len(sound), "successes": wins, "success_rate": wins / len(sound) if sound else None,
        "success_wilson95": [round(low, 4), round(high, 4)], "errors": len(rows) - len(sound),
    }  # fmt: skip


def cost(rows: list[Row]) -> dict[str, float | None]:
    """Control steps per second of one simulator, resets included, and the shares of an episode's time."""
    sound = [row for row in rows if not row["error"]]
    steps, wall = sum(row["steps"] for row in sound), sum(row["wall_s"] for row in sound)
    parts = {name: [row[f"{name}_s"] for row in sound] for name in ("reset", "physics", "render", "policy")}
    seconds = {name: None if None in spent else sum(spent) for name, spent in parts.items()}
    share = {name: round(s / wall, 4) if wall and s is not None else None for name, s in seconds.items()}
    physics = seconds["physics"]
    return {
        "steps": steps, "steps_per_s": round(steps / wall, 2) if wall else None,
        "steps_per_s_without_reset": round(steps / (wall - seconds["reset"]), 2) if wall > seconds["reset"] else None,
        "physics_steps_per_s": round(steps / physics, 1) if physics else None, "share": share,
    }  # fmt: skip


def _rows_of(file: ResultFile, plan: EvaluationPlan, condition: Condition) -> Iterator[Row]:
    for task in plan.tasks:
        for trial in range(plan.episodes):
            row = file.rows.get((condition.splice, condition.latency_ms, task, trial))
            if row is not None:
                yield row


def _mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None
