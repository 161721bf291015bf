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


def run_plan(
    plan: EvaluationPlan,
    out: Path,
    outcomes: Callable[[list[list[Job]], Path], Iterator[Outcome]],
    *,
    on_episode: Callable[[Outcome], None] = lambda outcome: None,
    on_resume: Callable[[int], None] = lambda done: None,
    retry_errors: bool = False,
) -> ResultFile:
    """Run what `out/result.jsonl` does not have yet, a line per episode as soon as it is over.

    outcomes: where episodes run: (units, folder for logs) -> their outcomes in any order; `run_here` or ray_run's.
    on_resume: how many episodes were there already. retry_errors: run episodes again that ended in an error.
    """
    for folder in ("", "log", "episodes", "failures"):
        try:
            (out / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("out", expected="a folder that can be written", found=f"{out}: {error.strerror}") from None
    file = ResultFile(out, plan)
    done = file.done(retry_errors)
    jobs = [job for job in plan.jobs() if job.key not in done]
    on_resume(len(plan.jobs()) - len(jobs))
    for outcome in outcomes(units(jobs, plan), out / "log"):
        file.add(outcome)
        if outcome.episode.error is None and not outcome.episode.success:
            write_gif(out / "failures" / f"{outcome.job.file_stem}.gif", [outcome.episode])
        on_episode(outcome)
    return file


def run_here(plan: EvaluationPlan, policy: Policy) -> Callable[[list[list[Job]], Path], Iterator[Outcome]]:
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
