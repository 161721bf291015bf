"""Runs an evaluation: several simulators in processes of their own, one policy, and a file that a second run goes on with."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from flashrt_core.errors import ConfigError

from ...evaluation.video import write_gif
from .plan import EvaluationPlan, Job, units
from .policies import Policy
from .results import ResultFile
from .trial import Outcome, Slot

END_S = 5.0  # for simulators to end what they do, when the run ends early; then they are killed
Outcomes = Callable[[list[list[Job]], Path], Iterator[Outcome]]


def open_results(plan: EvaluationPlan, out: Path) -> ResultFile:
    """Make the folder, or take over what an earlier run left in it. Raises ConfigError."""
    for folder in ("", "log", "episodes", "failures", "films"):
        try:
            (out / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("out", expected="a folder that can be written", found=f"{out}: {error.strerror}") from None
    return ResultFile(out, plan)


def run_jobs(
    file: ResultFile, jobs: list[Job], outcomes: Outcomes, on_episode: Callable[[Outcome], None] = lambda outcome: None
) -> None:
    """Run episodes and write each as soon as it is over. outcomes: where they run: (units, folder for logs) -> their
    outcomes in any order; of `run_here`, ray_run or ros_run. Raises ConfigError when another run writes to the folder."""
    with file.locked(), closing(outcomes(units(jobs, file.plan), file.out / "log")) as news:
        for outcome in news:
            file.add(outcome)
            if (folder := _film_folder(outcome, file.plan)) is not None:
                write_gif(file.out / folder / f"{outcome.job.file_stem}.gif", [outcome.episode])
            on_episode(outcome)


def _film_folder(outcome: Outcome, plan: EvaluationPlan) -> str | None:
    """A film is kept of each failure, and of the first trial of each task, so that there is something to look at."""
    if outcome.episode.error is not None:
        return None
    if not outcome.episode.success:
        return "failures"
    return "films" if outcome.job.trial == 0 and outcome.job.condition == plan.conditions[0] else None


def run_here(plan: EvaluationPlan, policy: Policy) -> Outcomes:
    """Episodes on this machine: `plan.workers` simulators, one thread each, one policy for all."""

    def outcomes(work: list[list[Job]], log: Path) -> Iterator[Outcome]:
        waiting: queue.SimpleQueue[list[Job]] = queue.SimpleQueue()
        for unit in work:
            waiting.put(unit)
        news: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()
        ended = threading.Event()
        threads = [
            threading.Thread(target=_work, args=(Slot(plan, policy, log, i), waiting, news, ended), daemon=True)
            for i in range(min(plan.workers, len(work)))
        ]
        for thread in threads:
            thread.start()
        left = len(threads)
        try:
            while left:
                item = news.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    left -= 1
                else:
                    yield item
        finally:
            ended.set()
            until = time.monotonic() + END_S
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            policy.close()

    return outcomes


def _work(slot: Slot, waiting: queue.SimpleQueue, news: queue.SimpleQueue, ended: threading.Event) -> None:
    """One simulator's thread."""
    try:
        while not ended.is_set():
            for job in waiting.get_nowait():
                if ended.is_set():
                    return
                news.put(slot.run(job))
    except queue.Empty:
        news.put(None)
    except BaseException as error:  # handed to the thread that runs the evaluation
        news.put(error)
    finally:
        slot.close()
