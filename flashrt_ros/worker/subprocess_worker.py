"""SubprocessWorker: the policy in a process of its own, so that neither its GIL nor its crash reaches the control tick."""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flashrt_core.errors import CheckpointError, ConfigError, DeviceError, FlashRTError, NotBuilt
from flashrt_core.runtime.clock import Clock, SteadyClock

from ..redact import public_error
from .policy_load import WorkerSpec
from .policy_worker import Progress, Seeds, WorkerInfo, WorkerState, WorkerStatus, as_request
from .respawn import RespawnPolicy, Supervision, Watchdog
from .shared_memory import Layout, SharedMemory
from .worker_process import EXIT_DEVICE
from .worker_wire import Channel, ChannelClosed, decode_error

logger = logging.getLogger(__name__)
_CHILD_FD = 3
OPERATORS = (ConfigError, CheckpointError, NotBuilt)  # what the operator can put right
_POLL_S = 0.2  # how soon a start notices that it has been called off


def child_command() -> list[str]:
    """The exact argv of the worker process."""
    return [sys.executable, "-m", "flashrt_ros.worker.worker_process", "--fd", str(_CHILD_FD)]


def child_environment(threads: int, extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the worker process: where the packages are, how many threads, and what is asked for."""
    here = str(Path(__file__).resolve().parents[2])  # the folder that holds both packages
    paths = [here, *(p for p in sys.path if p and p != here)]
    return {
        "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads), **extra,
    }  # fmt: skip


@dataclass
class _Child:
    """One process and the two things it shares with us. gone: set once it has ended."""

    pid: int
    channel: Channel
    memory: SharedMemory | None = None
    killed_for: str | None = None  # the fault for which we ended it


class SubprocessWorker:
    """A PolicyWorker whose process is started, watched, killed when it hangs, and started again when it died.

    One thread, the keeper, spawns the process, waits for its end and respawns it: the control side never waits for any
    of this, it sees `status()`. The keeper lives as long as the worker because the kernel ends the process with the
    thread that spawned it. While there is no process, `infer_actions` raises DeviceError at once.

    environment: variables the process gets besides PYTHONPATH and OMP_NUM_THREADS (for example CUDA_VISIBLE_DEVICES).
    on_change: called with each new status, from the thread in which it changed; must be quick.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        supervision: Supervision | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        on_change: Callable[[WorkerStatus], None] | None = None,
    ):
        self.spec, self.limits = spec, supervision or Supervision()
        self._environment = dict(environment or {})
        self._clock, self._on_change = clock or SteadyClock(), on_change
        self._lock = threading.Lock()  # guards _child, _status, _closing; held for bounded work only
        self._status = WorkerStatus()
        self._info: WorkerInfo | None = None
        self._child: _Child | None = None
        self._closing = False
        self._keeper: threading.Thread | None = None
        self._seeds, self._number = Seeds(), 0
        self._watchdog = Watchdog(self.limits)
        self._respawns = RespawnPolicy(self.limits)

    # ---- what others see

    @property
    def info(self) -> WorkerInfo | None:
        """Facts of the loaded policy; kept over a respawn."""
        return self._info

    @property
    def alive(self) -> bool:
        return self._status.state is WorkerState.READY

    def status(self) -> WorkerStatus:
        return self._status

    def reseed(self, seed: int | None) -> None:
        self._seeds.reseed(seed)

    def start(self, progress: Progress | None = None) -> WorkerInfo:
        """Spawn the process and wait until it is ready; `progress` gets its lines, here in the caller's thread.

        Raises what loading raised there, or DeviceError when the process died or took longer than start_timeout_s.
        """
        if self._keeper is not None:
            raise DeviceError("policy worker", expected="a new one", found=self._status.state.value)
        news: queue.SimpleQueue[str | WorkerInfo | FlashRTError] = queue.SimpleQueue()
        self._keeper = threading.Thread(target=self._keep, args=(news,), name="flashrt-worker-keeper", daemon=True)
        self._keeper.start()
        while True:
            item = news.get()
            if isinstance(item, WorkerInfo):
                return item
            if isinstance(item, FlashRTError):
                self._keeper.join()
                raise item
            if progress is not None:
                progress(item)

    def infer_actions(self, obs: object) -> np.ndarray:
        """One chunk, float32 [H, A]; blocks without the GIL. Raises ObservationError, DeviceError and what the policy raised."""
        child, info = self._child, self._info
        if child is None or info is None or not self.alive:
            raise DeviceError(
                "policy worker", expected="ready", found=self._status.state.value, hint=self._status.reason
            )
        request = as_request(obs, info, self._seeds.next())
        number, self._number = self._number, self._number + 1
        start, bound = time.monotonic(), self._watchdog.bound_s
        try:
            child.memory.write_request(number, request)
            child.channel.send({"infer": number})
            self._answer(child, number, start + bound)
            actions = child.memory.read_result(number)
        except ChannelClosed:
            self._lost(child)
            raise DeviceError("policy worker", expected="an answer", found="its process died") from None
        latency = time.monotonic() - start
        self._watchdog.add(latency)
        self._set(requests=number + 1, last_latency_s=latency, watchdog_s=self._watchdog.bound_s)
        return actions

    def close(self, timeout_s: float = 5.0) -> None:
        """End the process, kindly for half of `timeout_s`, then by SIGKILL. May be called twice, and during `start`."""
        with self._lock:
            self._closing, child = True, self._child
        if self._keeper is None:
            self._set(state=WorkerState.CLOSED)
            return
        if child is not None:
            try:
                child.channel.send({"close": True})
            except FlashRTError:
                pass  # it is gone or has not got that far
        self._keeper.join(timeout_s / 2)
        if self._keeper.is_alive():
            self._kill(self._child)
            self._keeper.join(timeout_s / 2)
        self._set(state=WorkerState.CLOSED, pid=None)

    # ---- one answer

    def _answer(self, child: _Child, number: int, deadline: float) -> None:
        """Wait for the answer to `number`; kill the process when it is not there in time (F33)."""
        while True:
            message = child.channel.receive(max(0.0, deadline - time.monotonic()))
            if message is None:
                child.killed_for = "F33"
                self._lost(child)
                self._kill(child)
                raise DeviceError("policy worker", expected="an answer in time", found="none: killed by the watchdog")
            if message.get("done") == number:
                return
            if "error" in message and message.get("seq") == number:
                self._raise(child, message)

    def _raise(self, child: _Child, message: Mapping[str, object]) -> None:
        error = decode_error(message["error"])
        logger.error("policy worker: %s\n%s", error, message.get("trace", ""))
        if message.get("fatal"):
            child.killed_for = "F34"
            self._lost(child)
        raise error

    # ---- the keeper

    def _keep(self, news: queue.SimpleQueue[str | WorkerInfo | FlashRTError]) -> None:
        first = True
        while True:
            self._set(state=WorkerState.STARTING if first else WorkerState.RESTARTING, phase="starting", pid=None)
            error: FlashRTError | None = None
            try:
                child = self._start_child(news.put if first else lambda text: None)
            except FlashRTError as failed:
                child, error = None, failed
            if error is None:
                if first:
                    news.put(self._info)
                self._wait_for_end(child)
            if self._closing or (first and error is not None):
                state = WorkerState.CLOSED if self._closing else WorkerState.FAILED
                self._set(state=state, phase="", pid=None, reason=None if error is None else str(error))
                if first and error is not None:
                    news.put(error)
                return
            first = False
            if error is not None:
                self._set(deaths=self._status.deaths + 1, reason=f"restart failed: {error}")
            if not self._respawns.allow(self._clock.now_ns()):
                logger.error("policy worker given up: %s", self._status.reason)
                self._set(state=WorkerState.FAILED, phase="", pid=None)
                return
            self._set(respawns=self._status.respawns + 1)
            logger.warning("policy worker: respawn %d (%s)", self._status.respawns, self._status.reason)

    def _start_child(self, progress: Progress) -> _Child:
        """Spawn a process and bring it to the point where it serves. Raises what it reports, or DeviceError."""
        try:
            channel, theirs = Channel.pair()
        except OSError as error:  # no descriptors left
            raise DeviceError("policy worker", expected="a new process", found=error.strerror) from None
        try:
            with theirs:
                pid = _spawn(theirs.fileno(), child_environment(self.spec.threads, self._environment))
        except OSError as error:
            channel.close()
            raise DeviceError("policy worker", expected="a new process", found=error.strerror) from None
        child = _Child(pid, channel)
        with self._lock:
            self._child = child
        self._set(pid=pid)
        try:
            channel.send({"spec": self.spec.to_json()})
            info = self._loaded(child, progress)
            if self._info is not None and Layout.of(info) != Layout.of(self._info):
                raise DeviceError("policy worker", expected="the same policy after a respawn", found=info)
            child.memory = SharedMemory.create(Layout.of(info))
            channel.send({"memory": child.memory.nbytes}, fd=child.memory.fd)
            child.memory.close_fd()
        except Exception as error:  # the keeper's boundary: it must go on, or `start` and the arm would wait for ever
            self._kill(child)
            how, _ = self._reap(child)
            if isinstance(error, ChannelClosed):
                raise DeviceError("policy worker", expected="to start", found=f"its process ended: {how}") from None
            if isinstance(error, FlashRTError):
                raise
            logger.exception("policy worker: start")
            raise DeviceError("policy worker", expected="to start", found=public_error(error)) from error
        self._info = info
        self._watchdog.start(info.warm_s)
        self._set(state=WorkerState.READY, phase="ready", fault=None, reason=None, watchdog_s=self._watchdog.bound_s)
        return child

    def _loaded(self, child: _Child, progress: Progress) -> WorkerInfo:
        deadline = time.monotonic() + self.limits.start_timeout_s
        while not self._closing:
            message = child.channel.receive(_POLL_S)
            if message is None:
                if time.monotonic() > deadline:
                    raise DeviceError(
                        "policy worker", expected=f"ready within {self.limits.start_timeout_s:g} s",
                        found=f"still {self._status.phase!r}",
                    )  # fmt: skip
            elif "progress" in message:
                text = str(message["progress"])[:200]
                self._set(phase=text)
                progress(text)
            elif "error" in message:
                error = decode_error(message["error"])
                if not isinstance(error, OPERATORS):  # those say all there is to say, in one line
                    logger.error("policy worker did not start\n%s", message.get("trace", ""))
                raise error
            elif "ready" in message:
                return WorkerInfo.from_json(message["ready"])
        raise DeviceError("policy worker", expected="to start", found="closed meanwhile")

    def _wait_for_end(self, child: _Child) -> None:
        """Block until the process has ended, then take note of how."""
        try:
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: nobody else can get its pid
        except ChildProcessError:
            pass  # somebody in this process reaps all children: it has ended all the same
        self._lost(child)
        how, code = self._reap(child)
        if self._closing:
            return
        fault = child.killed_for or ("F34" if code == EXIT_DEVICE else "F32")
        reason = {"F33": "hung, killed by the watchdog", "F34": f"device error, {how}"}.get(fault, f"died: {how}")
        self._set(deaths=self._status.deaths + 1, fault=fault, reason=reason, pid=None)

    def _lost(self, child: _Child) -> None:
        """From now on nobody is sent to this process."""
        with self._lock:
            if self._closing or self._child is not child or self._status.state is not WorkerState.READY:
                return
        self._set(state=WorkerState.RESTARTING, phase="died", fault=child.killed_for or "F32", reason="died")

    def _reap(self, child: _Child) -> tuple[str, int]:
        """(how it ended in words, exit code or -signal); frees what belonged to it."""
        try:
            _, status = os.waitpid(child.pid, 0)
            code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            code = -1  # somebody in this process reaps all children
        with self._lock:
            if self._child is child:
                self._child = None
            child.pid = 0
        child.channel.shutdown()  # wakes a call that waits; it closes nothing under its feet
        if child.memory is not None:
            child.memory.close()
        return (f"exit {code}" if code >= 0 else signal.Signals(-code).name), code

    def _kill(self, child: _Child | None) -> None:
        with self._lock:
            if child is not None and child.pid:
                os.kill(child.pid, signal.SIGKILL)

    def _set(self, **changes: object) -> None:
        with self._lock:
            old, self._status = self._status, replace(self._status, **changes)
            new = self._status
        if self._on_change is not None and (old.state, old.phase, old.fault) != (new.state, new.phase, new.fault):
            self._on_change(new)


def _spawn(fd: int, environment: Mapping[str, str]) -> int:
    """Start the worker process with `fd` as its descriptor 3; nothing else of ours is inherited. Returns its pid."""
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)  # above the numbers that the actions below overwrite
    try:
        log = (os.POSIX_SPAWN_DUP2, 2, 1) if _is_open(2) else (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), log, (os.POSIX_SPAWN_DUP2, high, _CHILD_FD),
        ]  # fmt: skip
        every = [s for s in signal.valid_signals() if s not in (signal.SIGKILL, signal.SIGSTOP)]
        return os.posix_spawn(
            sys.executable, child_command(), dict(environment), file_actions=actions, setpgroup=0, setsigmask=(),
            setsigdef=every,
        )  # fmt: skip
    finally:
        os.close(high)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
