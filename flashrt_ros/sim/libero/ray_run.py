"""An evaluation on a Ray cluster: a simulator and a policy per actor, episodes handed to whoever is free."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ...replay.cluster import ray_cluster
from .plan import EvaluationPlan, Job
from .policies import make_policy, worker_spec
from .run import Outcomes
from .trial import Outcome, Slot


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

    address: of a running cluster, "auto", or "local".
    """
    on_gpu = plan.checkpoint is not None and dict(plan.worker).get("hardware") != "host"

    def outcomes(work: list[list[Job]], log: Path) -> Iterator[Outcome]:
        with ray_cluster(address, progress) as ray:
            # max_concurrency 1 and one thread per actor: a simulator's process is tied to the thread that started it.
            actor = ray.remote(num_cpus=1, num_gpus=1 if on_gpu else 0)(RaySlot)
            waiting = list(reversed(work))
            slots = [actor.remote(plan, i) for i in range(min(plan.workers, len(work)))]
            queues: dict[object, list[Job]] = {slot: [] for slot in slots}
            running: dict[object, object] = {}

            def feed(slot: object) -> None:
                """Give a free actor the next episode of its unit, or of a new one."""
                if not queues[slot] and waiting:
                    queues[slot] = list(waiting.pop())
                if queues[slot]:
                    running[slot.run.remote(queues[slot].pop(0))] = slot

            for slot in slots:
                feed(slot)
            while running:
                (ready,), _ = ray.wait(list(running), num_returns=1)
                slot = running.pop(ready)
                yield ray.get(ready)
                feed(slot)
            ray.get([slot.close.remote() for slot in slots])

    return outcomes
