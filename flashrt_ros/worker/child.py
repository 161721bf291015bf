"""Child processes that end with their parent: started with settings, a log file and a session of their own.

The parent inherits its environment to them (on a robot it holds the ROS install) and adds the ROS variables given here.
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class Child:
    """One process. code: its exit code once it has ended (negative: the signal that ended it)."""

    name: str
    pid: int
    log: Path
    code: int | None = field(default=None)

    @property
    def running(self) -> bool:
        """Whether it still runs; takes note of its end."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None

    def end(self, patience_s: float = 5.0) -> int:
        """SIGINT, then SIGKILL to its whole session when it has not ended by then. Returns the exit code."""
        if self.running:
            os.kill(self.pid, signal.SIGINT)
            until = time.monotonic() + patience_s
            while self.running and time.monotonic() < until:
                time.sleep(0.02)
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            while self.running:
                time.sleep(0.01)
        return self.code

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def start(name: str, module: str, words: Sequence[str], *, environment: Mapping[str, str], log: Path) -> Child:
    """Run `python -m module words...`. Call from the main thread: the kernel ties the child's end to this thread's.

    environment: added to ours, in the child only.
    """
    spec = {"module": module, "words": list(words), "environment": dict(environment), "log": str(log.absolute())}
    argv = [sys.executable, "-m", "flashrt_ros.worker.child", str(os.getpid()), json.dumps(spec)]
    return Child(name, os.spawnv(os.P_NOWAIT, sys.executable, argv), log)


def main(argv: Sequence[str]) -> None:
    """In the child: tie the end to the parent's, take over log and environment, become the module."""
    parent, spec = int(argv[0]), json.loads(argv[1])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)  # it ended before we could ask to be told
    os.setsid()  # Ctrl-C goes to the parent, which ends its children in order
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, and so inherited, where a script started us with `&`
    log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for fd in (1, 2):
        os.dup2(log, fd)
    for name, value in spec["environment"].items():
        os.putenv(name, value)  # read by the ROS libraries
    sys.argv = [spec["module"], *spec["words"]]
    runpy.run_module(spec["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
