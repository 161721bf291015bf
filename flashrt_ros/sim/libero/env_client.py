"""SimulatorEnv: an environment whose simulator is another process, with a bound on everything that may hang (F83)."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flashrt_core.errors import CheckpointNotFound, ConfigError, DeviceError

from ...worker.worker_wire import decode_error
from .init_states import CONVERT, init_state_file, read_init_states
from .observation import policy_state, training_image, upright_image
from .protocol import CONTROL_HZ, Protocol, check_suite
from .wire import Wire, WireClosed, WireTimeout

GL = ("egl", "osmesa", "glfw")
MODULE = "flashrt_ros.sim.libero.env_process"
_spawning = threading.Lock()  # an inheritable descriptor must not reach another thread's process


class SimulatorError(DeviceError):
    """The simulator raised, died or hung: the episode is an error, not a failure."""


class SimulatorTimeout(SimulatorError):
    """No answer within the bound of a call."""


@dataclass(frozen=True)
class SimulatorSpec:
    """Which simulator, how it draws and how long it may take.

    python: its interpreter; None: .venv-libero of this checkout, or ours. assets, init_states: folders, None: where the
    package and `make libero` put them. start_s, reset_s, step_s, episode_s: bounds of one start, reset, step, episode;
    the first start of an installation compiles for minutes.
    """

    suite: str
    protocol: Protocol
    gl: str = "egl"
    python: Path | None = None
    assets: Path | None = None
    init_states: Path | None = None
    start_s: float = 300.0
    reset_s: float = 300.0
    step_s: float = 60.0
    episode_s: float = 1800.0

    def __post_init__(self) -> None:
        check_suite(self.suite)
        if self.gl not in GL:
            raise ConfigError("gl", expected=", ".join(GL), found=repr(self.gl))
        for name in ("start_s", "reset_s", "step_s", "episode_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(name, expected="> 0 s", found=getattr(self, name))


def checkout() -> Path:
    """The folder that holds the packages."""
    return Path(__file__).resolve().parents[3]


def find_python(given: Path | None) -> Path:
    """The simulator's interpreter: `given`, else `.venv-libero` of the checkout or of this folder, else ours."""
    made = [folder / ".venv-libero/bin/python" for folder in (checkout(), Path.cwd())]
    python = given or next((p for p in made if p.exists()), Path(sys.executable))
    if not python.exists():
        raise ConfigError("--sim-python", expected="a Python interpreter", found=f"nothing at {python}", hint="Run: make libero")
    return python.absolute()


def init_states_folder(spec: SimulatorSpec) -> Path:
    """Where the suite's converted init states are: `make libero` puts them into the environment."""
    return spec.init_states or find_python(spec.python).parent.parent / "share/flashrt/init_states"


def look(spec: SimulatorSpec, log: Path) -> None:
    """Whether packages, OpenGL, assets and init states are there: a few seconds, before anything slow. Raises ConfigError,
    CheckpointNotFound (init states) or SimulatorError."""
    SimulatorProcess(spec, log, only_look=True).close()
    folder = init_states_folder(spec) / spec.suite
    if spec.suite != "robosuite_lift" and not folder.is_dir():
        raise CheckpointNotFound("init states", expected=f"a folder {folder}", found="none", hint=f"Run: {CONVERT}")


class SimulatorProcess:
    """The process and the wire to it. Every call has a bound; a process that breaks one is killed."""

    def __init__(self, spec: SimulatorSpec, log: Path, only_look: bool = False):
        """Returns when the suite is open, or with `only_look` when it could be. Raises ConfigError (assets, OpenGL,
        packages) or SimulatorError."""
        self._folder = tempfile.TemporaryDirectory(prefix="flashrt-sim-")
        ours, theirs = socket.socketpair()
        self.log = log
        self.wire, self.pid = Wire(ours), 0
        try:
            with theirs:
                self.pid = self._spawn(spec, theirs, only_look)
            ready, _ = self._receive(spec.start_s)
        except BaseException:
            self.close()
            raise
        self.tasks = [(str(name), str(sentence)) for name, sentence in ready["tasks"]]
        self.versions: dict[str, str | None] = dict(ready["versions"])

    def call(self, do: str, timeout_s: float, arrays: dict[str, np.ndarray] | None = None, **fields: object):
        """(message, arrays) of the answer."""
        try:
            self.wire.send({"do": do, **fields}, arrays)
        except WireClosed:
            raise self._ended() from None
        return self._receive(timeout_s)

    def close(self) -> None:
        """End the process, now; may be called twice."""
        self.wire.close()
        if self.pid:
            pid, self.pid = self.pid, 0
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        self._folder.cleanup()

    def _receive(self, timeout_s: float):
        try:
            message, arrays = self.wire.receive(timeout_s)
        except WireTimeout:
            raise SimulatorTimeout("simulator", expected=f"an answer within {timeout_s:g} s", found="none: killed") from None
        except WireClosed:
            raise self._ended() from None
        if "error" in message:
            if "text" in message:
                raise SimulatorError("simulator", found=str(message["text"]))
            raise decode_error(message["error"])
        return message, arrays

    def _ended(self) -> SimulatorError:
        until = time.monotonic() + 2.0
        how = "its end"
        while self.pid and time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid, code = 0, os.waitstatus_to_exitcode(status)
                how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
                break
            time.sleep(0.01)
        words = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log.exists() else []
        return SimulatorError("simulator process", expected="to run", found=how, hint=words[-1][:200] if words else None)

    def _spawn(self, spec: SimulatorSpec, end: socket.socket, only_look: bool) -> int:
        """Its environment is ours with a few words more; of descriptors it gets one."""
        place = Path(self._folder.name)
        for package in ("flashrt_core", "flashrt_ros"):  # these two and nothing that lies beside them in an install
            (place / package).symlink_to(checkout() / package)
        words = {
            "PYTHONPATH": str(place), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1",
            "MUJOCO_GL": spec.gl, "PYOPENGL_PLATFORM": spec.gl, "LIBERO_CONFIG_PATH": str(place / "libero"),
            "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        if spec.gl == "glfw":
            del words["PYOPENGL_PLATFORM"]
        argv = [
            "env", "-u", "PYTHONHOME", *(f"{k}={v}" for k, v in words.items()), str(find_python(spec.python)), "-m", MODULE,
            "--parent", str(os.getpid()), "--fd", str(end.fileno()), "--log", str(self.log.absolute()), "--suite", spec.suite,
            "--resolution", str(spec.protocol.resolution), "--wait-steps", str(spec.protocol.wait_steps), "--gl", spec.gl,
            "--config", str(place / "libero"),
            *(["--assets", str(spec.assets.absolute())] if spec.assets else []), *(["--look"] if only_look else []),
        ]  # fmt: skip
        with _spawning:
            end.set_inheritable(True)
            pid = os.spawnv(os.P_NOWAIT, "/usr/bin/env", argv)
            end.set_inheritable(False)
        return pid


class SimulatorEnv:
    """Tasks of one suite, with the interface of TabletopEnv. `open` starts the process, `close` ends it.

    reset_to(task, trial) begins an episode; observe() draws. The state is that of robosuite's readings, see simulator.py.
    """

    control_hz = CONTROL_HZ

    def __init__(self, spec: SimulatorSpec, seed: int, log: Path, policy_px: int | None = None):
        """seed: of the run. policy_px: pictures are fitted to this side, None: as drawn."""
        self.spec, self.seed, self._log, self.policy_px = spec, seed, log, policy_px
        self.max_steps = spec.protocol.max_steps[spec.suite]
        self._process: SimulatorProcess | None = None
        self._states: dict[int, np.ndarray] = {}
        self._readings: dict[str, np.ndarray] = {}
        self._deadline_s = 0.0
        self.plan: dict[int, tuple[int, int, int | None]] = {}
        self.steps, self.success, self.prompt = 0, False, ""
        self.observed_step = 0  # the step at which `observe` was called last
        self.step_ms: list[float] = []
        self.render_ms: list[float] = []
        self.reset_s = 0.0  # of the last reset, wait steps included

    # ---- life

    def open(self) -> SimulatorProcess:
        """The running process, started if there is none."""
        if self._process is None:
            self._process = SimulatorProcess(self.spec, self._log)
        return self._process

    def close(self) -> None:
        """End the process; the next episode starts another."""
        self.prompt = ""
        if self._process is not None:
            self._process.close()
            self._process = None

    @property
    def tasks(self) -> list[tuple[str, str]]:
        return self.open().tasks

    def demonstrations(self) -> list[np.ndarray]:
        """Actions [T, 7] of the suite's demonstrations. Raises ConfigError where there are none."""
        message, arrays = self.open().call("demonstrations", self.spec.step_s)
        return [arrays[str(i)] for i in range(int(message["count"]))]

    # ---- episode

    def reset(self, seed: int) -> None:
        """Begin what `plan` has for `seed`: (task, trial, demonstration), arguments of `reset_to`."""
        self.reset_to(*self.plan[seed])

    def reset_to(self, task: int, trial: int, demonstration: int | None = None) -> None:
        """Begin trial `trial` of a task. demonstration: where that one began, without wait steps, instead."""
        process, each, start = self.open(), self.spec.protocol.seed_each_episode, time.monotonic()
        self._deadline_s = time.monotonic() + self.spec.episode_s
        self.steps, self.success, self.observed_step, self.step_ms, self.render_ms = 0, False, 0, [], []
        self.prompt, self.reset_s = "", 0.0
        state = None if demonstration is not None else self._init_state(task, trial)
        seed, resets = (self.seed + trial, 0) if each else (self.seed, trial)
        message, self._readings = process.call(
            "reset", self.spec.reset_s, {} if state is None else {"state": state}, task=task, seed=seed, resets=resets,
            demonstration=demonstration,
        )  # fmt: skip
        self.prompt = str(message["prompt"])
        self.reset_s = time.monotonic() - start

    def step(self, action: np.ndarray) -> None:
        """One control step. Raises SimulatorError."""
        action = np.asarray(action, np.float64)
        message, self._readings = self._call("step", {"action": action})
        self.step_ms.append(float(message["ms"]))
        self.steps += 1
        self.success = self.success or bool(message["success"])

    def state(self) -> np.ndarray:
        """float32 [8]: hand position (m), axis-angle (rad), finger joints (m)."""
        r = self._readings
        return policy_state(r["eef_pos"], r["eef_quat"], r["gripper_qpos"])

    @property
    def arm_joints(self) -> np.ndarray:
        """float64 [7] rad."""
        return self._readings["joint_pos"]

    def observe(self) -> dict[str, object]:
        """{'images': [agentview, wrist] as the policies were trained, 'state': float32 [8]}."""
        from ...inputs.resize import resize_with_pad

        images = [training_image(p) for p in self._pictures()]
        if self.policy_px is not None:
            images = [resize_with_pad(image, self.policy_px) for image in images]
        self.observed_step = self.steps
        return {"images": images, "state": self.state()}

    def frame(self, size: int = 256, samples: int = 1) -> np.ndarray:
        """uint8 [size, size, 3]: the agent's view, upright, for people."""
        from ...inputs.resize import resize

        return resize(upright_image(self._pictures()[0]), size, size)

    # ---- inside

    def _pictures(self) -> list[np.ndarray]:
        message, arrays = self._call("observe")
        self.render_ms.append(float(message["ms"]))
        return [arrays["0"], arrays["1"]]

    def _call(self, do: str, arrays: dict[str, np.ndarray] | None = None):
        if self._process is None:
            raise SimulatorError("simulator", expected="an episode", found="no process")
        left = self._deadline_s - time.monotonic()
        too_long = SimulatorError("episode", expected=f"at most {self.spec.episode_s:g} s", found="more: stopped")
        if left <= 0:
            raise too_long
        try:
            return self._process.call(do, min(self.spec.step_s, left), arrays)
        except SimulatorTimeout:
            if left < self.spec.step_s:  # the episode's bound ran out during this call, not the call's own
                raise too_long from None
            raise

    def _init_state(self, task: int, trial: int) -> np.ndarray | None:
        """State of the trial: number `trial`, again from the first when they are used up; None for robosuite's tasks."""
        if self.spec.suite == "robosuite_lift":
            return None
        if task not in self._states:
            name = self.tasks[task][0]
            self._states[task] = read_init_states(init_state_file(init_states_folder(self.spec), self.spec.suite, name))
        states = self._states[task]
        return states[trial % len(states)]
