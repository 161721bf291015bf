"""Policy workers: one interface, in this process, in another one, or played from a script."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flashrt_core.errors import DeviceError, FlashRTError

from .policy_load import LoadedPolicy, WorkerSpec, load_policy
from .policy_worker import PolicyWorker, Progress, Request, Seeds, WorkerInfo, WorkerState, WorkerStatus, as_request
from .respawn import RespawnPolicy, Supervision, Watchdog
from .script import Script, ScriptedPolicy
from .subprocess_worker import SubprocessWorker

__all__ = [
    "InProcessWorker", "PolicyWorker", "Progress", "Request", "RespawnPolicy", "Script", "ScriptedWorker",
    "SubprocessWorker", "Supervision", "Watchdog", "WorkerInfo", "WorkerSpec", "WorkerState", "WorkerStatus",
]  # fmt: skip


class InProcessWorker:
    """The policy in this process, for simulation and tests. Nothing watches it; a device error ends it (rule R7)."""

    def __init__(self, spec: WorkerSpec):
        self.spec = spec
        self._policy: LoadedPolicy | None = None
        self._status = WorkerStatus()
        self._seeds = Seeds()

    @property
    def info(self) -> WorkerInfo | None:
        return None if self._policy is None else self._policy.info

    @property
    def alive(self) -> bool:
        return self._status.state is WorkerState.READY

    def status(self) -> WorkerStatus:
        return self._status

    def reseed(self, seed: int | None) -> None:
        self._seeds.reseed(seed)

    def start(self, progress: Progress | None = None) -> WorkerInfo:
        """Load and warm up. Raises the typed errors of `load_model`."""
        say = progress or (lambda text: None)

        def note(text: str) -> None:
            self._status = replace(self._status, phase=text)
            say(text)

        self._status = replace(self._status, state=WorkerState.STARTING)
        try:
            self._policy = self._load(note)
        except FlashRTError as error:
            self._status = replace(self._status, state=WorkerState.FAILED, reason=str(error))
            raise
        self._status = replace(self._status, state=WorkerState.READY, phase="ready")
        return self._policy.info

    def _load(self, note: Progress) -> LoadedPolicy:
        return load_policy(self.spec, note)

    def infer_actions(self, obs: object) -> np.ndarray:
        """One chunk [H, A]. Raises what the policy raises; DeviceError once it is not alive."""
        if self._policy is None or not self.alive:
            raise DeviceError(
                "policy worker", expected="ready", found=self._status.state.value, hint=self._status.reason
            )
        number, start = self._status.requests, time.monotonic()
        self._status = replace(self._status, requests=number + 1)
        try:
            actions = self._policy.infer(as_request(obs, self._policy.info, self._seeds.next()), number)
        except DeviceError as error:
            self._died("F34", str(error))
            raise
        self._status = replace(self._status, last_latency_s=time.monotonic() - start)
        return actions

    def _died(self, fault: str, reason: str) -> None:
        deaths = self._status.deaths + 1
        self._status = replace(self._status, state=WorkerState.FAILED, fault=fault, reason=reason, deaths=deaths)

    def close(self, timeout_s: float = 5.0) -> None:
        """Let the policy go; may be called twice."""
        self._policy = None
        self._status = replace(self._status, state=WorkerState.CLOSED)


class ScriptedWorker(InProcessWorker):
    """A worker that plays a Script in this process.

    sleep: how its latencies pass; None: not at all, for a SimulatedExecutor that is given `script.latency_s`.
    "die" and "exit" are a DeviceError here, and the worker is dead until `revive` is called.
    """

    def __init__(self, script: Script, sleep: Callable[[float], None] | None = time.sleep):
        super().__init__(WorkerSpec(script=script))
        self.script, self._sleep = script, sleep

    def _load(self, note: Progress) -> LoadedPolicy:
        return ScriptedPolicy.load(self.script, note, self._sleep)

    def infer_actions(self, obs: object) -> np.ndarray:
        """The scripted chunk, or the scripted fault."""
        if self.alive and self.script.faults.get(self._status.requests) in ("die", "exit"):
            self._status = replace(self._status, requests=self._status.requests + 1)
            self._died("F32", "scripted death")
        return super().infer_actions(obs)

    def revive(self) -> None:
        """As after a respawn."""
        status = self._status
        if status.state is WorkerState.FAILED:
            self._status = replace(status, state=WorkerState.READY, fault=None, respawns=status.respawns + 1)
