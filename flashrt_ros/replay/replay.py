"""A replay as a function: bags in; result.json, timing.json, report.html and a bag of chunks out."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flashrt_core.errors import ConfigError

from ..bags.findings import LOSS
from .compare import Difference, Verdict, difference, judge
from .figures import result as figures
from .figures import timing as timing_figures
from .outcome import UNIT_FIELDS, BagOutcome
from .page import comparison_html
from .page import page as page_html
from .rerun_log import check_rerun, write_rerun
from .run import BagJob, OnTick, Progress, check_bags, find_bags, merged, play_bags
from .scale import check_checkpoint
from .settings import ReplaySettings

OnBag = Callable[[BagOutcome, int, int], None]  # a bag that is done, how many are, of how many


@dataclass(frozen=True)
class How:
    """How a replay is spread and what it shows. jobs: processes. ray: address of a cluster. rerun: write replay.rrd too."""

    jobs: int = 1
    ray: str | None = None
    rerun: bool = False
    progress: Progress = lambda text: None
    on_tick: OnTick = lambda bag, ticks, share: None
    on_bag: OnBag = lambda outcome, done, bags: None


@dataclass(frozen=True)
class Played:
    """One policy over all bags."""

    result: dict[str, object]
    timing: dict[str, object]
    total: BagOutcome


@dataclass(frozen=True)
class ReplayOutput:
    """What a replay made. lost: bags whose recording has losses that were not allowed."""

    played: Played
    files: tuple[Path, ...]
    lost: tuple[str, ...]
    other: Played | None = None
    differences: dict[str, Difference | None] = field(default_factory=dict)
    verdict: Verdict | None = None


def replay(paths: Sequence[Path], settings: ReplaySettings, out: Path, how: How = How(), command: str = "") -> ReplayOutput:
    """Run the policy over the bags and write the files.

    Raises BagError for a bag that cannot be used (before a model is loaded), ConfigError, and the errors of `load_model`.
    """
    jobs = _prepare(paths, (settings,), out, how)
    played = _play(jobs, settings, how)
    return ReplayOutput(played, _write(out, played, settings, how, command), _lost(played, settings))


def compare(
    paths: Sequence[Path], sides: tuple[ReplaySettings, ReplaySettings], names: tuple[str, str], margin: float, out: Path,
    how: How = How(), command: str = "",
) -> ReplayOutput:  # fmt: skip
    """Both sides over the same bags with the same noise. The files are those of B, with A beside it."""
    if not 0 <= margin <= 10:
        raise ConfigError("margin", expected="0..10 (0.05 is 5 %)", found=margin)
    a, b = sides
    jobs = _prepare(paths, sides, out, how)
    how.progress(f"B, {names[1]}")  # first: what is new fails sooner than what is in use
    played_b = _play(jobs, b, how)
    how.progress(f"A, {names[0]}")
    played_a = _play([_without_chunks(job) for job in jobs], a, how)
    found = {kind: difference(played_a.total.units, played_b.total.units, kind) for kind in UNIT_FIELDS}
    verdict = judge(found, a.policy == b.policy, margin)
    page = comparison_html(names, found, verdict, (played_a.result, played_b.result))
    more = {
        "compare": {
            "a": {"name": names[0], **played_a.result}, "b": {"name": names[1]}, "margin": margin, "verdict": verdict.word,
            "decided_by": verdict.kind, "differences": {k: d.to_json() if d else None for k, d in found.items()},
        }
    }  # fmt: skip
    files = _write(out, played_b, b, how, command, page, more)
    return ReplayOutput(played_b, files, _lost(played_b, b), played_a, found, verdict)


def _without_chunks(job: BagJob) -> BagJob:
    return replace(job, chunks=None)


def _prepare(paths: Sequence[Path], sides: Sequence[ReplaySettings], out: Path, how: How) -> list[BagJob]:
    """Everything that can be known to be wrong before a model is loaded. The last side's chunks are written."""
    if how.rerun:
        check_rerun()
    bags = find_bags(paths)
    jobs = check_bags(bags, sides[-1], out)
    for side in sides:
        check_checkpoint(side)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ConfigError("out", expected="a folder that can be written", found=f"{out}: {error.strerror}") from None
    return jobs


def _play(jobs: Sequence[BagJob], settings: ReplaySettings, how: How) -> Played:
    began, outcomes = time.monotonic(), []
    for outcome in play_bags(
        jobs, settings, processes=how.jobs, ray=how.ray, progress=how.progress, on_tick=how.on_tick
    ):
        outcomes.append(outcome)
        how.on_bag(outcome, len(outcomes), len(jobs))
    wall_s = time.monotonic() - began
    total = merged(outcomes)
    if not total.requests:
        raise ConfigError("replay", expected="at least one request to the policy", found="none", hint=_why_none(total))
    result = figures(total, outcomes, settings, outcomes[0].scale_source)
    return Played(result, timing_figures(total, outcomes, settings, wall_s), total)


def _why_none(total: BagOutcome) -> str:
    unread = [f"{v} messages of {k} cannot be used" + _because(total, k) for k, v in total.unreadable.most_common(4)]
    if not total.ticks:
        return "; ".join(unread) or "There is no recorded command"
    reasons = total.not_ready + total.skipped
    failed = [f"the policy failed with {total.reasons['policy']}"] if "policy" in total.reasons else []
    ticks = [*failed, *(f"{k} in {v} ticks" + _because(total, k) for k, v in reasons.most_common(4))]
    ids = [k for k, _ in reasons.most_common(4) if k.startswith("F")]
    more = f". `flashrt health --table {' '.join(ids)}` explains" if ids else ""
    return f"Of {total.ticks} ticks: {'; '.join([*ticks, *unread]) or 'no reason is known'}{more}"


def _because(total: BagOutcome, key: str) -> str:
    return f" ({total.reasons[key]})" if total.reasons.get(key) else ""


def _lost(played: Played, settings: ReplaySettings) -> tuple[str, ...]:
    if settings.allow_loss:
        return ()
    return tuple(b["bag"] for b in played.result["bags"] if any(f["fault"] in LOSS for f in b["findings"]))


def _write(
    out: Path, played: Played, settings: ReplaySettings, how: How, command: str, compared: str = "",
    more: dict[str, object] | None = None,
) -> tuple[Path, ...]:  # fmt: skip
    data, times, page = out / "result.json", out / "timing.json", out / "report.html"
    for file, content in ((data, {**played.result, **(more or {})}), (times, played.timing)):
        _put(file, json.dumps(content, indent=2, allow_nan=False) + "\n")
    _put(page, page_html(played.result, played.timing, played.total, settings.robot, command, compared))
    files = [page, data, times, out / "chunks"]
    if how.rerun:
        files.append(write_rerun(out / "replay.rrd", played.total, settings.robot))
    return tuple(files)


def _put(file: Path, text: str) -> None:
    """The file as a whole, or the one that was there."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
