"""Runs an evaluation: several simulators in processes of their own, one policy, and a file that a second run goes on with."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from flashrt_core.errors import ConfigError

from ...evaluation.video import write_gif
from .plan import EvaluationPlan, Job, units
from .policies import Policy
from .results import ResultFile
from .trial import Outcome, Slot

Outcomes = Callable[[list[list[Job]], Path], Iterator[Outcome]]


def open_results(plan: EvaluationPlan, out: Path) -> ResultFile:
    """Make the folder, or take over what an earlier run left in it. Raises ConfigError."""
    for folder in ("", "log", "episodes", "failures"):
        try:
            (out / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("out", expected="a folder that can be written", found=f"{out}: {error.strerror}") from None
    return ResultFile(out, plan)


def run_jobs(
    file: ResultFile, jobs: list[Job], outcomes: Outcomes, on_episode: Callable[[Outcome], None] = lambda outcome: None
) -> None:
    """Run episodes and write each as soon as it is over. outcomes: where they run: (units, folder for logs) -> their
    outcomes in any order; of `run_here`, ray_run or ros_run."""
    for outcome in outcomes(units(jobs, file.plan), file.out / "log"):
        file.add(outcome)
        if outcome.episode.error is None and not outcome.episode.success:
            write_gif(file.out / "failures" / f"{outcome.job.file_stem}.gif", [outcome.episode])
        on_episode(outcome)


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
            for thread in threads:
                thread.join(5.0)
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
