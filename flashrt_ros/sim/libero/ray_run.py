"""An evaluation on a Ray cluster: a simulator and a policy per actor, episodes handed to whoever is free."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from flashrt_core.errors import DeviceError

from ...evaluation.closed_loop import Episode
from ...replay.cluster import ray_cluster
from .plan import EvaluationPlan, Job
from .policies import make_policy, worker_spec
from .run import Outcomes
from .trial import MAX_FAILED_STARTS, Outcome, Slot


class RaySlot:
    """A Slot in a Ray actor, with a policy of its own. Checkpoint, simulator and assets are at the same paths on every node."""

    def __init__(self, plan: EvaluationPlan, number: int):
        self._logs = tempfile.TemporaryDirectory(prefix="flashrt-libero-")
        self._policy = make_policy(plan.policy, plan.simulator.suite, worker_spec(plan))
        self._slot = Slot(plan, self._policy, Path(self._logs.name), number)

    def run(self, job: Job) -> Outcome:
        return self._slot.run(job)

    def close(self) -> None:
        self._slot.close()
        self._policy.close()


def run_on_ray(plan: EvaluationPlan, address: str, progress: Callable[[str], None]) -> Outcomes:
    """Outcomes of `plan.workers` actors, each asking for a core and, with a checkpoint that is not on the host, a GPU.

    address: of a running cluster, "auto", or "local". An actor that dies (its node is gone, its memory is spent) costs the
    episode it was in, which is an error, and another takes its place. Raises DeviceError when that does not help.
    """
    on_gpu = plan.checkpoint is not None and dict(plan.worker).get("hardware") != "host"

    def outcomes(work: list[list[Job]], log: Path) -> Iterator[Outcome]:
        with ray_cluster(address, progress) as ray:
            # max_concurrency 1 and one thread per actor: a simulator's process is tied to the thread that started it.
            actor = ray.remote(num_cpus=1, num_gpus=1 if on_gpu else 0)(RaySlot)
            waiting = list(reversed(work))
            slots = [actor.remote(plan, i) for i in range(min(plan.workers, len(work)))]
            queues: dict[object, list[Job]] = {slot: [] for slot in slots}
            running: dict[object, tuple[object, Job]] = {}
            deaths = 0  # since the last episode that came back

            def feed(slot: object) -> None:
                """Give a free actor the next episode of its unit, or of a new one."""
                if not queues[slot] and waiting:
                    queues[slot] = list(waiting.pop())
                if queues[slot]:
                    job = queues[slot].pop(0)
                    running[slot.run.remote(job)] = slot, job

            for slot in slots:
                feed(slot)
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                slot, job = running.pop(ready)
                try:
                    outcome, deaths = ray.get(ready), 0
                except ray.exceptions.RayTaskError as error:  # raised by the slot: of our types
                    raise error.cause from None
                except ray.exceptions.RayActorError as error:
                    deaths += 1
                    if deaths >= MAX_FAILED_STARTS:
                        words = str(error).strip().splitlines()
                        raise DeviceError("Ray actor", expected="to live", found=f"{deaths} deaths", hint=words[-1][:200]) from None
                    outcome = Outcome(job, Episode(job.seed(plan.seed), "", error="DeviceError: its Ray actor died"))
                    fresh = actor.remote(plan, len(queues))
                    queues[fresh], slot = queues.pop(slot), fresh
                yield outcome
                feed(slot)
            ray.get([slot.close.remote() for slot in queues])

    return outcomes
