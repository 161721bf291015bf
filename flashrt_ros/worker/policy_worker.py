"""PolicyWorker: what the control side needs from whatever runs the policy, in this process or in another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from flashrt_core.errors import ConfigError, ObservationError

Progress = Callable[[str], None]
CALLS_PER_SEED = 1_000  # seeds of policy calls: seed given to `reseed` * this + number of the call


@dataclass(frozen=True)
class WorkerInfo:
    """What a loaded policy is: views in order, side of its square images, sizes of state and chunk, where it runs.

    warm_s: latency of each warm-up call, seconds.
    """

    views: tuple[str, ...]
    image_size: int
    state_dim: int
    horizon: int
    action_dim: int
    hardware: str = "host"
    model: str = ""
    warm_s: tuple[float, ...] = ()

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> WorkerInfo:
        """Raises ConfigError for sizes that cannot be."""
        info = cls(**{**data, "views": tuple(data["views"]), "warm_s": tuple(data["warm_s"])})
        for name, top in (("image_size", 4096), ("state_dim", 1024), ("horizon", 1024), ("action_dim", 1024)):
            value = getattr(info, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= top:
                raise ConfigError(f"worker {name}", expected=f"1..{top}", found=value)
        if not 1 <= len(info.views) <= 8:
            raise ConfigError("worker views", expected="1..8", found=len(info.views))
        return info


class WorkerState(str, Enum):
    """NEW -> STARTING -> READY; READY -> RESTARTING -> READY after a death; FAILED: given up; CLOSED."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True)
class WorkerStatus:
    """A snapshot that costs nothing to take.

    phase: the last progress line. fault: row of the fault table for the last death ("F32" killed, "F33" hung, "F34"
    device error), None while well. reason: how it ended. deaths, respawns: counts since `start`. requests: calls so
    far. watchdog_s: bound in force for the next call, None without one.
    """

    state: WorkerState = WorkerState.NEW
    phase: str = ""
    pid: int | None = None
    fault: str | None = None
    reason: str | None = None
    deaths: int = 0
    respawns: int = 0
    requests: int = 0
    last_latency_s: float = 0.0
    watchdog_s: float | None = None


class PolicyWorker(Protocol):
    """An ActionChunkAdapter (`infer_actions`) with a life of its own.

    `infer_actions` is called by one thread at a time and may block there; it raises typed errors. `status` and `alive`
    may be called from the control tick: they never wait.
    """

    @property
    def info(self) -> WorkerInfo | None: ...

    @property
    def alive(self) -> bool: ...

    def start(self, progress: Progress | None = None) -> WorkerInfo:
        """Load, calibrate, warm up; blocks. Raises ConfigError, CheckpointError, NotBuilt, DeviceError."""
        ...

    def infer_actions(self, obs: object) -> np.ndarray: ...

    def status(self) -> WorkerStatus: ...

    def reseed(self, seed: int | None) -> None:
        """From now on call n uses seed * CALLS_PER_SEED + n; None: the model's own generator."""
        ...

    def close(self, timeout_s: float = 5.0) -> None: ...


@dataclass(frozen=True)
class Request:
    """One observation as the policy takes it. state: raw, or None. seed: of the noise, or None."""

    images: tuple[np.ndarray, ...]
    state: np.ndarray | None
    prompt: str
    seed: int | None = None


class Seeds:
    """Seeds of the calls since `reseed`."""

    def __init__(self) -> None:
        self._base: int | None = None
        self._calls = 0

    def reseed(self, seed: int | None) -> None:
        self._base, self._calls = seed, 0

    def next(self) -> int | None:
        if self._base is None:
            return None
        self._calls += 1
        return self._base * CALLS_PER_SEED + self._calls - 1


def as_request(obs: object, info: WorkerInfo, seed: int | None) -> Request:
    """The request in an observation: an object or a mapping with images, state, prompt (and possibly seed).

    Raises ObservationError naming what does not fit the loaded policy.
    """
    get = obs.get if isinstance(obs, Mapping) else lambda name, default=None: getattr(obs, name, default)
    images, state, prompt = get("images"), get("state"), get("prompt")
    if images is None or len(images) != len(info.views):
        found = "none" if images is None else len(images)
        raise ObservationError("images", expected=f"{len(info.views)} views", found=found)
    pictures = tuple(np.asarray(image) for image in images)
    side = info.image_size
    for name, picture in zip(info.views, pictures, strict=True):
        if picture.dtype != np.uint8 or picture.shape != (side, side, 3):
            found = f"{picture.dtype} {picture.shape}"
            raise ObservationError(f"image {name}", expected=f"uint8 ({side}, {side}, 3)", found=found)
    if state is not None:
        state = np.asarray(state, dtype=np.float32)
        if state.shape != (info.state_dim,):
            raise ObservationError("state", expected=f"({info.state_dim},)", found=state.shape)
    if not isinstance(prompt, str):
        raise ObservationError("prompt", expected="text", found=type(prompt).__name__)
    own = get("seed")
    return Request(pictures, state, prompt, seed if own is None else int(own))
