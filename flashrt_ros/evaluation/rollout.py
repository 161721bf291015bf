"""Many episodes of the bundled task with one policy, in this process or spread over several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from flashrt_core.errors import CheckpointNotFound, ConfigError, nearest

from .closed_loop import ABLATIONS, Episode, LoopSettings, run_episode

PRECISIONS = ("fp32", "fp8")
GPU_PRECISIONS = ("bf16", "fp8")
CALIBRATION_SEEDS = range(900_000, 900_008)  # FP8 scales come from scenes that no evaluation uses


@dataclass(frozen=True)
class Rollout:
    """What is run: a checkpoint folder (None = the bundled one), its precision, the hardware it runs on, and how the loop is
    closed.

    threads: of PyTorch, per process. ablation: None or a name in `closed_loop.ABLATIONS`. shots: keep a first and a
    last picture of each episode. film_seeds: episodes of which every second tick is kept as a picture.
    """

    checkpoint: str | None = None
    precision: str = "fp32"
    renderer: str = "ray"
    threads: int = 1
    loop: LoopSettings = field(default_factory=LoopSettings)
    ablation: str | None = None
    shots: bool = False
    film_seeds: tuple[int, ...] = ()
    hardware: str = "host"

    def __post_init__(self) -> None:
        check_precision(self.precision, self.hardware)
        if not 1 <= self.threads <= 256:
            raise ConfigError("threads", expected="1..256", found=self.threads)
        if self.ablation is not None and self.ablation not in ABLATIONS:
            raise ConfigError("ablation", found=repr(self.ablation), hint=nearest(self.ablation, ABLATIONS))


def check_precision(name: str, hardware: str = "host") -> None:
    """Raises ConfigError for a precision that does not exist there."""
    known = PRECISIONS if hardware == "host" else GPU_PRECISIONS
    if name not in known:
        raise ConfigError("precision", found=repr(name), hint=nearest(str(name), known))


def checkpoint_folder(checkpoint: str | Path | None) -> Path:
    """The folder of a checkpoint, the bundled policy's for None. Raises CheckpointNotFound."""
    bundled = checkpoint is None
    if bundled:
        from ..sim.tabletop import POLICY_DIR

        checkpoint = POLICY_DIR
    folder = Path(checkpoint)
    if not folder.exists():
        raise CheckpointNotFound(
            "checkpoint", expected="a folder with model.safetensors", found=f"nothing at {folder}",
            hint="Reinstall flashrt-ros: its package data is missing" if bundled else "Is the path right?",
        )  # fmt: skip
    return folder


def load_policy(
    checkpoint: str | Path | None = None, precision: str = "fp32", threads: int = 1, renderer: str = "ray",
    hardware: str = "host",
):  # fmt: skip
    """The VLAModel of a tabletop checkpoint, ready to act; hardware: "host", this machine's CPU, or an arch string.

    precision 'fp8' (on the host emulated by rounding) has static scales, measured on `CALIBRATION_SEEDS`.
    """
    import torch

    from flashrt_core import load_model

    folder = checkpoint_folder(checkpoint)
    torch.set_num_threads(threads)
    if precision != "fp8":
        return load_model(str(folder), hardware=hardware, use_fp8=False)
    # a cache of its own: scales that somebody measured on other observations would give other results
    with TemporaryDirectory() as cache:
        model = load_model(str(folder), hardware=hardware, use_fp8=True, calibration_dir=cache)
        model.calibrate(simulated_observations(CALIBRATION_SEEDS, renderer))
    return model


def simulated_observations(seeds: Sequence[int], renderer: str = "ray") -> list[dict[str, object]]:
    """The first observation of each seed's episode, with its prompt: {'images', 'state', 'prompt'}."""
    from ..sim.tabletop import TabletopEnv

    env = TabletopEnv(renderer=renderer)
    out = []
    for seed in seeds:
        env.reset(seed)
        out.append({**env.observe(), "prompt": env.prompt})
    return out


class Runner:
    """A loaded policy and a scene, ready to run one seed after another."""

    def __init__(self, what: Rollout):
        from ..sim.tabletop import TabletopEnv

        self.what = what
        self.env = TabletopEnv(renderer=what.renderer)
        self.model = load_policy(what.checkpoint, what.precision, what.threads, what.renderer, what.hardware)
        # a checkpoint made for another task fails here, once; this is the warm-up too
        seen = self.env.observe()
        self.model.predict(seen["images"], prompt=self.env.prompt, state=seen["state"], seed=0)

    def run(self, seed: int, watch=None) -> Episode:
        """Episode `seed`; `watch` as in `run_episode`."""
        if watch is None and seed in self.what.film_seeds:
            watch = keep_frame
        change = ABLATIONS[self.what.ablation] if self.what.ablation else None
        return run_episode(
            self.env, self.model.predict, seed, self.what.loop, change=change, watch=watch, shots=self.what.shots
        )


def keep_frame(env, obs: dict[str, object] | None, episode: Episode) -> None:
    """A `watch` that keeps every second tick as a picture."""
    if env.steps % 2 == 0:
        episode.frames.append(env.frame(size=320, samples=1))


_worker: Runner | None = None  # one per worker process


def _start_worker(what: Rollout) -> None:
    global _worker
    _worker = Runner(what)


def _run_in_worker(seed: int) -> Episode:
    return _worker.run(seed)


def run_seeds(what: Rollout, seeds: Sequence[int], jobs: int = 1, watch=None) -> Iterator[Episode]:
    """Episodes in the order of `seeds`, each as soon as it and those before it are done.

    jobs > 1: that many processes, each with its own copy of the policy; the results do not depend on it.
    """
    if not 1 <= jobs <= 64:
        raise ConfigError("jobs", expected="1..64", found=jobs)
    if watch is not None and jobs > 1:
        raise ConfigError("jobs", expected="1 when episodes are watched live", found=jobs)
    if jobs == 1:
        yield from map(partial(Runner(what).run, watch=watch), seeds)
        return
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(what,)
    ) as pool:
        yield from pool.map(_run_in_worker, seeds)
