"""WorkerSpec: which policy a worker runs and how; `load_policy` makes it ready to answer."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flashrt_core.errors import CheckpointError, ConfigError, nearest

from ..evaluation.rollout import checkpoint_folder
from .policy_worker import Progress, Request, WorkerInfo
from .script import Script, ScriptedPolicy

# Options of load_model that a spec may carry in `options`; the others have a field of their own or no JSON form.
_OPTIONS = (
    "autotune", "vision_pool_factor", "vision_num_layers", "cache_frames", "state_prompt_mode", "weight_cache", "use_fp4",
    "use_fp16",
)  # fmt: skip


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker is told; plain data, so that it can cross to another process as JSON.

    checkpoint: folder. config, framework, hardware, num_views, profile, tokenizer, use_fp8, num_steps, calibration_dir,
    allow_unverified, options: as in `flashrt_core.load_model`; num_views None = all views of the profile.
    threads: of the framework on the CPU. nice: added to the worker process's niceness, so that the control process goes
    first where they share a core. warmup_calls: made before the worker is ready, so that no request is the slow first one.
    seed: of the model's own noise. script: play this instead of a checkpoint.
    """

    checkpoint: str = ""
    config: str = "pi05"
    framework: str = "torch"
    hardware: str = "auto"
    num_views: int | None = None
    profile: str | None = None
    tokenizer: str | None = None
    use_fp8: bool | None = None
    num_steps: int | None = None
    calibration_dir: str | None = None
    allow_unverified: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1
    nice: int = 0
    warmup_calls: int = 3
    seed: int = 0
    script: Script | None = None

    def __post_init__(self) -> None:
        if bool(self.checkpoint) == (self.script is not None):
            raise ConfigError("worker", expected="a checkpoint or a script", found="both" if self.script else "neither")
        for name, low, high in (("threads", 1, 256), ("nice", 0, 19), ("warmup_calls", 1, 1000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(name, expected=f"{low}..{high}", found=getattr(self, name))
        for name in self.options:
            if name not in _OPTIONS:
                raise ConfigError(f"option {name!r}", found="not an option of a worker", hint=nearest(name, _OPTIONS))

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkerSpec:
        script = data["script"]
        return cls(**{**data, "script": None if script is None else Script.from_json(script)})


def calibrate_command(spec: WorkerSpec, folder: Path, hardware: str) -> str:
    """The command line that makes the FP8 scales which a worker of `spec` looks for."""
    bundled = folder == checkpoint_folder(None)
    words = ["flashrt", "calibrate", *(["--demo-seeds", "8"] if bundled else ["--checkpoint", str(folder)])]
    words += [] if bundled else ["--observations", "FILE.npz"]
    words += ["--hardware", hardware]
    words += ["--profile", spec.profile] if spec.profile else []
    words += ["--cache-dir", str(spec.calibration_dir)] if spec.calibration_dir else []
    return shlex.join(words)


class LoadedPolicy(Protocol):
    """A policy that has been warmed up."""

    info: WorkerInfo

    def infer(self, request: Request, number: int) -> np.ndarray: ...


def load_policy(spec: WorkerSpec, progress: Progress) -> LoadedPolicy:
    """Load, calibrate and warm up. Raises the typed errors of `load_model`."""
    if spec.script is not None:
        return ScriptedPolicy.load(spec.script, progress)
    return ModelPolicy(spec, progress)


def checkpoint_facts(folder: Path, profile: str | None) -> dict[str, Any]:
    """What a checkpoint folder says of itself (`inspect_checkpoint`, without reading the weights). CheckpointError, with all that
    is wrong, when it does not say how it is to be read."""
    from flashrt_core.inspect import inspect_checkpoint

    found = inspect_checkpoint(folder, profile, digest=False)
    if found.get("profile") is None or found.get("weights") is None:
        raise CheckpointError(f"checkpoint {folder}", found="; ".join(map(str, found["problems"])))
    return found


class ModelPolicy:
    """A VLAModel that answers requests."""

    def __init__(self, spec: WorkerSpec, progress: Progress):
        from flashrt_core import load_model  # here: a scripted worker starts without the framework

        if spec.framework == "torch":
            progress("importing torch")
            import torch

            torch.set_num_threads(spec.threads)
        folder = checkpoint_folder(spec.checkpoint)
        facts: dict[str, Any] = checkpoint_facts(folder, spec.profile)["profile"]
        decided = {name: entry["value"] for name, entry in facts["decisions"].items()}
        views = tuple(decided["views"])[: spec.num_views]
        self._model = load_model(
            str(folder), framework=spec.framework, num_views=len(views), config=spec.config, hardware=spec.hardware,
            use_fp8=spec.use_fp8, num_steps=spec.num_steps, profile=spec.profile, tokenizer=spec.tokenizer,
            calibration_dir=spec.calibration_dir, allow_unverified=spec.allow_unverified, seed=spec.seed,
            progress=progress, **spec.options,
        )  # fmt: skip
        calibrated = self._model.precision_spec is not None
        side, state_dim = int(facts["dims"]["vision"]["image_size"]), int(decided["state_dim"])
        grey = np.full((side, side, 3), 127, np.uint8)
        warm = Request((grey,) * len(views), np.zeros(state_dim, np.float32), "warm up", 0)
        latencies = []
        for i in range(spec.warmup_calls):
            progress(f"warming up: call {i + 1} of {spec.warmup_calls}")
            start = time.perf_counter()
            shape = self.infer(warm, i).shape
            latencies.append(time.perf_counter() - start)
            if not calibrated and self._model.precision_spec is not None:
                self._model.recalibrate()  # forget scales measured on grey pictures
                raise ConfigError(
                    "calibration", expected=f"FP8 scales of {folder.name} for {self._model.hardware} and {len(views)} views",
                    found="none cached", hint=f"run `{calibrate_command(spec, folder, self._model.hardware)}`, or "
                    "take another precision (full)",
                )  # fmt: skip
        # The first call pays for lazy set-up: it says nothing about the later ones.
        kept = tuple(latencies[1:] or latencies)
        self.info = WorkerInfo(views, side, state_dim, *shape, self._model.hardware, spec.config, kept)

    def infer(self, request: Request, number: int) -> np.ndarray:
        """float32 [horizon, action_dim]."""
        return self._model.predict(list(request.images), prompt=request.prompt, state=request.state, seed=request.seed)
