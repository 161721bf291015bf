"""Scripted policy workers for tests, and observations that fit them."""

from __future__ import annotations

import numpy as np

from flashrt_ros.worker.interface import Script, SubprocessWorker, Supervision, WorkerSpec

SIDE = 8
SMALL = {"horizon": 4, "action_dim": 5, "state_dim": 3, "views": ("a", "b"), "image_size": SIDE}
RANDOM = np.random.default_rng(0)


def observation(k: float = 0.0, prompt: str = "go", **fields: object) -> dict[str, object]:
    images = [RANDOM.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(2)]
    return {"images": images, "state": np.full(3, k, np.float32), "prompt": prompt, **fields}


def scripted(**fields: object) -> WorkerSpec:
    return WorkerSpec(script=Script(**{**SMALL, **fields}))


class Workers:
    """Makes SubprocessWorkers and closes them: `make(spec, **limits)`."""

    def __init__(self) -> None:
        self.made: list[SubprocessWorker] = []

    def __call__(self, spec: WorkerSpec, progress=None, run: bool = True, **limits) -> SubprocessWorker:
        worker = SubprocessWorker(spec, Supervision(**limits))
        self.made.append(worker)
        if run:
            worker.start(progress)
        return worker

    def close(self) -> None:
        for worker in self.made:
            worker.close()
