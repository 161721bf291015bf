"""Script: a stand-in for a policy, with given latencies and given faults, for tests and rehearsals."""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from flashrt_core.errors import ConfigError, DeviceError, ObservationError, nearest

from .policy_worker import Progress, Request, WorkerInfo

# What call n can be told to do. die: SIGKILL itself; exit: leave with code 3; device: a device error.
FAULTS = ("exception", "observation", "device", "hang", "die", "exit", "nan", "inf", "wild", "shape", "empty")
POLICIES = ("", "lift")
START_ERRORS = {"ConfigError": ConfigError, "DeviceError": DeviceError, "RuntimeError": RuntimeError}


@dataclass(frozen=True)
class Script:
    """Answers an observation whose state begins with k by rows k, k+1, ... (times `step`): the value for tick m is m.

    latencies_s: of the calls, repeated from the start when used up. faults: number of the call -> one of FAULTS.
    policy: "lift": answer as the scripted policy of sim/libero does. constant: answer with this value in every row
    instead. digest: answer with what arrived instead, for tests of the way:
    CRC-32 (its low 20 bits) of images and prompt, sum of the state, seed (-1 for none).
    start_s: time that loading takes. start_error: class name
    of START_ERRORS to fail with at start.
    """

    latencies_s: tuple[float, ...] = (0.0,)
    faults: Mapping[int, str] = field(default_factory=dict)
    horizon: int = 10
    action_dim: int = 7
    state_dim: int = 8
    views: tuple[str, ...] = ("agentview", "wrist")
    image_size: int = 112
    step: float = 1.0
    constant: float | None = None
    digest: bool = False
    start_s: float = 0.0
    start_error: str | None = None
    policy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "latencies_s", tuple(float(x) for x in self.latencies_s))
        object.__setattr__(self, "views", tuple(self.views))
        object.__setattr__(self, "faults", {int(n): str(f) for n, f in self.faults.items()})
        if not self.latencies_s or min(self.latencies_s) < 0:
            raise ConfigError("latencies_s", expected="at least one, all >= 0 s", found=self.latencies_s)
        for name in self.faults.values():
            if name not in FAULTS:
                raise ConfigError("scripted fault", found=repr(name), hint=nearest(name, FAULTS))
        if self.policy not in POLICIES:
            raise ConfigError("scripted policy", found=repr(self.policy), hint=nearest(str(self.policy), POLICIES))
        if self.start_error is not None and self.start_error not in START_ERRORS:
            raise ConfigError("start_error", found=self.start_error, hint=nearest(self.start_error, START_ERRORS))

    def info(self) -> WorkerInfo:
        return WorkerInfo(
            self.views, self.image_size, self.state_dim, self.horizon, self.action_dim, "host", "script",
            (self.latencies_s[0],),
        )  # fmt: skip

    def latency_s(self, number: int) -> float:
        """Latency of call `number`."""
        return self.latencies_s[number % len(self.latencies_s)]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Script:
        return cls(**data)


class ScriptedPolicy:
    """Plays a script. sleep: how time passes; None: not at all (a simulated executor has the latencies)."""

    def __init__(self, script: Script, sleep: Callable[[float], None] | None = time.sleep):
        self.script, self._sleep = script, sleep
        self.info = script.info()

    @classmethod
    def load(cls, script: Script, progress: Progress, sleep: Callable[[float], None] | None = time.sleep):
        """As a model would be loaded, with the script's delay and error."""
        progress("loading script")
        if sleep is not None:
            sleep(script.start_s)
        if script.start_error is not None:
            error = START_ERRORS[script.start_error]
            raise error("scripted start error")
        progress("warming up")
        return cls(script, sleep)

    def infer(self, request: Request, number: int) -> np.ndarray:
        """float32 [horizon, action_dim] of call `number`, or its fault."""
        fault = self.script.faults.get(number)
        if fault == "hang":
            self._pass(1e9)
        self._pass(self.script.latency_s(number))
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "exit":
            os._exit(3)
        if fault == "device":
            raise DeviceError("scripted device", expected="a working device", found="Xid 79")
        if fault == "observation":
            raise ObservationError("state", expected="a scripted state", found="another")
        if fault == "exception":
            raise LookupError("scripted exception")
        return self._chunk(request, fault)

    def _pass(self, seconds: float) -> None:
        if self._sleep is not None and seconds > 0:
            self._sleep(seconds)

    def _chunk(self, request: Request, fault: str | None) -> np.ndarray:
        s = self.script
        if s.policy == "lift":
            from ..sim.libero.scripted import LiftPolicy

            return LiftPolicy().predict(list(request.images), request.prompt, request.state)
        if s.digest:
            row = np.resize(np.array(request_digest(request), np.float32), s.action_dim)
            return np.repeat(row[None], s.horizon, axis=0)
        first = 0.0 if request.state is None else float(request.state[0])
        rows = np.full(s.horizon, s.constant) if s.constant is not None else first + s.step * np.arange(s.horizon)
        chunk = np.repeat(rows.astype(np.float32)[:, None], s.action_dim, axis=1)
        if fault in ("nan", "inf"):
            chunk[s.horizon // 2] = np.nan if fault == "nan" else np.inf
        elif fault == "wild":
            chunk += np.float32(1e6)
        elif fault == "shape":
            return chunk[:, : max(0, s.action_dim - 1)]
        elif fault == "empty":
            return chunk[:0]
        return chunk


def request_digest(request: Request) -> tuple[float, float, float, float]:
    """What `Script.digest` answers."""
    images = zlib.crc32(b"".join(image.tobytes() for image in request.images)) & 0xFFFFF
    state = 0.0 if request.state is None else float(request.state.sum())
    return images, zlib.crc32(request.prompt.encode()) & 0xFFFFF, state, -1.0 if request.seed is None else request.seed
