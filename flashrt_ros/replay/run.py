"""Runs a policy over bags: checks them all, loads the policy, plays one bag after another, here or spread over processes."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError

from ..bags.reading import BagReader
from ..bags.recorder_topics import full_name
from ..worker.policy_worker import PolicyWorker
from .bag_topics import BagTopics, find_topics
from .chunk_bag import ChunkBag, check_chunk_bag, part_of
from .feed import BagEnd, FeedPlan, InlineFeed, ProcessFeed
from .interrupts import children_without_interrupts
from .outcome import BagOutcome
from .scale import action_scale
from .session import Session
from .settings import ReplaySettings
from .timeline import Tick

BAG_SUFFIXES = (".mcap", ".db3", ".zstd")
CHUNKS = "chunks"  # folder of the written bags in the output folder
Progress = Callable[[str], None]
OnTick = Callable[[str, int, float], None]


@dataclass(frozen=True)
class BagJob:
    """One bag to play. name: in the report and of its folder. chunks: where its chunks go, None: nowhere."""

    path: Path
    name: str
    topics: BagTopics
    storage: str
    start_ns: int
    end_ns: int
    chunks: Path | None = None


def find_bags(paths: Sequence[Path]) -> list[Path]:
    """The bags that are meant: files, rosbag2 folders, and folders of such. Raises ConfigError naming what is none."""
    out: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"bag {path}", expected="a rosbag2 folder or file", found="nothing there")
        if path.is_file() or _is_bag(path):
            out.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.is_dir() and _is_bag(p))
        if not inside:
            raise ConfigError(f"bag {path}", expected="a rosbag2 folder, or a folder of them", found="neither")
        out += inside
    counts = Counter(path.resolve() for path in out)  # by whatever name
    for path in out:
        if counts[path.resolve()] > 1:
            raise ConfigError(f"bag {path}", expected="each bag once", found="it twice")
    return out


def _is_bag(folder: Path) -> bool:
    return (folder / "metadata.yaml").is_file() or any(p.suffix in BAG_SUFFIXES for p in folder.iterdir() if p.is_file())


def check_bags(paths: Sequence[Path], settings: ReplaySettings, out: Path | None) -> list[BagJob]:
    """Open every bag and look for the robot's topics; no model is needed for that. Raises BagError (F79, F76)."""
    names = _names(paths)
    jobs = []
    for path, name in zip(paths, names, strict=True):
        with BagReader(path) as bag:
            topics = find_topics(settings, bag.topics, name)
            storage = bag.files[0].storage
            chunks = None if out is None else out / CHUNKS / name
            jobs.append(BagJob(path, name, topics, storage, bag.start_ns, bag.end_ns, chunks))
    for job in jobs:
        if job.chunks is not None:
            check_chunk_bag(job.chunks, paths)
    return jobs


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names, each once."""
    out: list[str] = []
    for path in paths:
        name = Path(os.path.abspath(path)).name  # not resolved: a link is named as the user named it
        stem = name.removesuffix(".zstd").removesuffix(".mcap").removesuffix(".db3") or "bag"
        name, n = stem, 2
        while name in out:
            name, n = f"{stem}-{n}", n + 1
        out.append(name)
    return out


class Player:
    """A loaded policy that plays bags."""

    def __init__(self, settings: ReplaySettings, progress: Progress = lambda text: None):
        """Loads the policy. Raises the typed errors of `load_model`, ConfigError when it does not fit the robot."""
        self.settings = settings
        self.worker: PolicyWorker = settings.stack().make_worker()
        info = self.worker.start(progress)
        settings.robot.check_policy(info.views, info.state_dim, info.action_dim)
        self.scale, self.scale_source = action_scale(settings)

    def play(self, job: BagJob, on_tick: OnTick = lambda bag, ticks, share: None, *, inline: bool = False) -> BagOutcome:
        """One bag. on_tick: (bag, ticks so far, share of the bag's time). inline: read in this process."""
        settings, info, began = self.settings, self.worker.info, time.monotonic()
        plan = FeedPlan(job.path, job.topics, settings, info.image_size)
        topic = full_name(settings.robot.topics.chunk, settings.node_name)
        span = max(1, job.end_ns - job.start_ns)
        chunks = nullcontext() if job.chunks is None else ChunkBag(job.chunks, settings.robot, topic, job.storage)
        with chunks as bag:
            on_chunk = bag.write if bag else lambda at_ns, chunk: None
            session = Session(settings, self.worker, self.scale, job.name, job.start_ns, on_chunk)
            with (InlineFeed if inline else ProcessFeed)(plan) as feed:
                for event in feed:
                    if isinstance(event, Tick):
                        session.tick(event)
                        if session.outcome.ticks % 20 == 0:
                            on_tick(job.name, session.outcome.ticks, (event.at_ns - job.start_ns) / span)
                    elif isinstance(event, BagEnd):
                        outcome = session.end(event)
                    else:
                        session.put(event)
        outcome.scale_source, outcome.hardware = self.scale_source, info.hardware
        outcome.wall_s = time.monotonic() - began
        return outcome

    def close(self) -> None:
        self.worker.close()


_player: Player | Exception | None = None  # one per worker process


def _start(settings: ReplaySettings) -> None:
    global _player
    try:
        _player = Player(settings)
    except Exception as error:  # the process's boundary: `_play` says it, an initializer that raises breaks the pool
        _player = error


def _play(job: BagJob) -> BagOutcome:
    if isinstance(_player, Exception):
        raise _player
    return _player.play(job)


def play_bags(
    jobs: Sequence[BagJob], settings: ReplaySettings, *, processes: int = 1, ray: str | None = None,
    progress: Progress = lambda text: None, on_tick: OnTick = lambda bag, ticks, share: None,
) -> Iterator[BagOutcome]:  # fmt: skip
    """Outcomes in the order of `jobs`; they do not depend on `processes` or on `ray`, the address of a Ray cluster.

    on_tick: (bag, its ticks so far, share of all bags).
    """
    if not 1 <= processes <= 64:
        raise ConfigError("jobs", expected="1..64", found=processes)
    if ray is not None:
        from .cluster import play_on_cluster

        yield from play_on_cluster(jobs, settings, ray, progress)
        return
    if processes == 1 or len(jobs) == 1:
        player = Player(settings, progress)
        try:
            for number, job in enumerate(jobs):
                yield player.play(job, partial(_overall, on_tick, number, len(jobs)))
        finally:
            player.close()
        return
    progress(f"loading the policy in {min(processes, len(jobs))} processes")
    others = set(active_children())
    with ProcessPoolExecutor(
        min(processes, len(jobs)), mp_context=get_context("spawn"), initializer=_start, initargs=(settings,)
    ) as pool:
        try:
            with children_without_interrupts():
                playing = [pool.submit(_play, job) for job in jobs]
            for future in playing:
                yield future.result()
        except BaseException:  # interrupted, or one bag failed: the others are not waited for
            for process in set(active_children()) - others:
                process.terminate()
            raise
        finally:
            for job in jobs:
                if job.chunks is not None:
                    shutil.rmtree(part_of(job.chunks), ignore_errors=True)


def _overall(on_tick: OnTick, number: int, count: int, bag: str, ticks: int, share: float) -> None:
    """From a share of bag `number` to one of all bags."""
    on_tick(bag, ticks, (number + share) / count)


def merged(outcomes: Sequence[BagOutcome]) -> BagOutcome:
    """All bags as one; units and episodes stay apart by the number of the bag."""
    first = outcomes[0]
    total = BagOutcome(
        "all", type(first.errors)(first.errors.scale, first.errors.by_row.columns), {}, {}, np.zeros_like(first.outside)
    )
    for number, one in enumerate(outcomes):
        total.errors.merge(one.errors)
        for name in ("traces", "references"):
            mine = getattr(total, name)
            for splice, trace in getattr(one, name).items():
                mine.setdefault(splice, type(trace)()).merge(trace)
        total.outside += one.outside
        for name in ("clamped", "stats", "skipped", "faults", "refused", "not_ready", "unreadable"):
            getattr(total, name).update(getattr(one, name))
        for name in ("ticks", "compared_ticks", "episodes", "requests", "chunks", "held_ticks", "silent_ticks", "rows",
                     "duration_s", "messages", "wall_s"):  # fmt: skip
            setattr(total, name, getattr(total, name) + getattr(one, name))
        total.action_delay_ms += one.action_delay_ms
        total.model_ms += one.model_ms
        total.reasons = {**one.reasons, **total.reasons}
        total.units.update({(number, *key): row for key, row in one.units.items()})
        total.findings = (*total.findings, *one.findings)
    total.first_frames, total.excerpt = first.first_frames, first.excerpt
    return total
