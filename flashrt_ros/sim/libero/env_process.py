"""The simulator process: `python -m flashrt_ros.sim.libero.env_process --fd N --suite S ...` answers one evaluation.

It has one environment, in the interpreter that has robosuite, and none of FlashRT's own packages. Its stdout is a log.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import os
import signal
import socket
import sys
import time
import traceback
import types
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError, FlashRTError

from ...worker.worker_wire import encode_error
from .protocol import SUITES
from .wire import Wire, WireClosed

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Back end -> Debian's and Ubuntu's package for it.
GL = {"egl": "libegl1", "osmesa": "libosmesa6", "glfw": "libglfw3"}


def check_gl(name: str) -> None:
    """Make a context and let it go. ConfigError says what is missing."""
    try:
        context = importlib.import_module(f"mujoco.{name}").GLContext(64, 64)
        context.make_current()
        context.free()
    except Exception as error:  # missing libraries show as AttributeError, ImportError, RuntimeError ...
        others = " or ".join(n for n in GL if n != name)
        raise ConfigError(
            f"--gl {name}", expected="an OpenGL context" + (" (it needs a display)" if name == "glfw" else ""),
            found=f"{type(error).__name__}: {str(error)[:120]}",
            hint=f"Debian, Ubuntu: apt-get install {GL[name]}; or try --gl {others}",
        ) from None  # fmt: skip


def quiet_robosuite() -> None:
    """robosuite forces EGL unless its private settings say otherwise, and warns three times when there are none."""
    private = types.ModuleType("robosuite.macros_private")
    private.MUJOCO_GPU_RENDERING = False  # what MUJOCO_GL says counts
    sys.modules["robosuite.macros_private"] = private


def open_suite(args: argparse.Namespace):
    """The suite in this process, or ConfigError: packages first, then what draws, which their import needs. With
    `args.look` None, when it could be opened."""
    missing = [name for name in ("robosuite", "mujoco", "OpenGL") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "simulator", expected="its packages", found=f"{', '.join(missing)} missing in {sys.executable}",
            hint="Run: make libero, or name an interpreter that has them with --sim-python",
        )  # fmt: skip
    check_gl(args.gl)
    if args.suite != "robosuite_lift":
        from .libero_suite import LiberoSuite, find_files

        files = find_files(args.suite, args.assets)
        return None if args.look else LiberoSuite(args.suite, files, args.resolution, args.config)
    if args.look:
        return None
    from .simulator import LiftSuite

    return LiftSuite(args.resolution)


class Answers:
    """The commands of an evaluation, by name; each returns (message, arrays)."""

    def __init__(self, suite, wait_steps: int):
        self._suite, self._wait = suite, wait_steps
        self._task = None
        self._recording: int | None = None

    def reset(self, message: dict, arrays: dict) -> tuple[dict, dict]:
        """Trial of a task: scene, init state when there is one, wait steps; or the start of a demonstration."""
        number = int(message["task"])
        self._recording = None
        if message["demonstration"] is not None:
            self._task = self._suite.demonstration(int(message["demonstration"]))
        else:
            self._task = self._suite.begin(number, int(message["seed"]), int(message["resets"]))
            if "state" in arrays:
                self._task.put(arrays["state"])
            self._task.wait(self._wait)
        return {"prompt": self._suite.tasks[number][1]}, self._task.readings()

    def step(self, message: dict, arrays: dict) -> tuple[dict, dict]:
        start = time.perf_counter()
        success = self._task.step(arrays["action"])
        return {"success": success, "ms": (time.perf_counter() - start) * 1e3}, self._task.readings()

    def observe(self, message: dict, arrays: dict) -> tuple[dict, dict]:
        start = time.perf_counter()
        pictures = self._task.pictures()
        return {"ms": (time.perf_counter() - start) * 1e3}, {str(i): p for i, p in enumerate(pictures)}

    def demonstrations(self, message: dict, arrays: dict) -> tuple[dict, dict]:
        actions = self._suite.demonstrations()
        return {"count": len(actions)}, {str(i): a for i, a in enumerate(actions)}

    def recorded(self, message: dict, arrays: dict) -> tuple[dict, dict]:
        """Per demonstration: actions [T, 7] as recorded, and the simulated times [T] in s."""
        out: dict[str, np.ndarray] = {}
        for i, (actions, states) in enumerate(self._suite.recordings()):
            out |= {f"actions{i}": actions, f"times{i}": states[:, 0]}
        return {"count": len(out) // 2, "prompt": self._suite.tasks[0][1]}, out

    def recorded_frame(self, message: dict, arrays: dict) -> tuple[dict, dict]:
        """Readings and pictures of one recorded state, put in place; nothing is stepped."""
        number, step = int(message["demonstration"]), int(message["step"])
        if number != self._recording:
            self._task, self._recording = self._suite.demonstration(number), number
            self._states = self._suite.recordings()[number][1]
        self._task.put(self._states[step])
        pictures = {f"picture{i}": p for i, p in enumerate(self._task.pictures())}
        return {}, {**self._task.readings(), **pictures}


def serve(wire: Wire, args: argparse.Namespace) -> int:
    """Open the suite, say so, answer until the other side is gone."""
    try:
        suite = open_suite(args)
    except FlashRTError as error:
        wire.send({"error": encode_error(error)})
        return 2
    if args.look:
        wire.send({"ready": True, "tasks": [], "versions": {}})
        return 0
    answers = Answers(suite, args.wait_steps)
    versions = {name: _version(name) for name in ("robosuite", "mujoco", "hf-libero", "numpy")}
    wire.send({"ready": True, "tasks": suite.tasks, "versions": versions})
    while True:
        try:
            message, arrays = wire.receive()
        except WireClosed:
            return 0
        try:
            with np.errstate(all="ignore"):
                reply, out = getattr(answers, str(message["do"]))(message, arrays)
        except ConfigError as error:  # not this episode's alone
            reply, out = {"error": encode_error(error)}, {}
        except Exception as error:  # the episode's boundary; the other side decides what becomes of this process
            traceback.print_exc()
            reply, out = {"error": encode_error(error), "text": f"{type(error).__name__}: {error}"[:500]}, {}
        wire.send(reply, out)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="env_process")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--suite", choices=SUITES, required=True)
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--wait-steps", type=int, required=True)
    parser.add_argument("--gl", choices=GL, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--assets", type=Path)
    parser.add_argument("--look", action="store_true", help="only say whether the suite could be opened")
    args = parser.parse_args(argv)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != args.parent:
        return 1  # it ended before we could ask to be told
    os.setsid()  # Ctrl-C goes to the parent, which ends its children
    log = os.open(args.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for fd in (1, 2):
        os.dup2(log, fd)
    quiet_robosuite()
    return serve(Wire(socket.socket(fileno=args.fd)), args)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # robosuite's EGL contexts print tracebacks when the interpreter takes them down
