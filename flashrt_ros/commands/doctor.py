"""`flashrt doctor`: what this machine has, what is missing for each feature and the command that fixes it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from flashrt_core.errors import FlashRTError

from ._console import open_console

HELP = """show what this machine has and what is missing for each feature
examples:
  flashrt doctor
  flashrt doctor --json

Exit code 2 when something is missing that FlashRT cannot do without."""


@dataclass(frozen=True)
class Check:
    """One line: the feature, whether it is there, what was found, and the one command that would fix it.

    needed: FlashRT cannot run without it.
    """

    feature: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    checks = all_checks()
    if args.json:
        print(json.dumps([asdict(c) for c in checks], indent=2))
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("feature", "", "found", "to get it"):
            table.add_column(column, overflow="fold")
        for c in checks:
            mark = Text("ok", "green") if c.ok else Text("missing", "red" if c.needed else "yellow")
            table.add_row(c.feature, mark, Text(c.found), Text("" if c.ok else c.fix))
        console = open_console()
        console.print(table)
        if any("'.[" in c.fix for c in checks if not c.ok):
            console.print("pip install -e '.[...]' is run in the checkout, by the pip of this environment", markup=False)
    return 2 if any(c.needed and not c.ok for c in checks) else 0


def all_checks() -> list[Check]:
    """Every check, in the order shown. None of them changes anything or reaches the network."""
    return [
        _python(), _package("engine: PyTorch", "torch", "pip install torch", needed=True, also=_threads),
        _package("engine: NumPy", "numpy", "pip install numpy", needed=True),
        _package("engine: tokenizer", "sentencepiece", "pip install sentencepiece", needed=True),
        _hardware(), _pipelines(), _mujoco(),
        _package("demo: pictures and film", "PIL", "pip install -e '.[demo]'", dist="pillow"),
        _policy(), _opengl(),
        _package("recordings", "rosbags", "pip install -e '.[bag]'"),
        _package("recordings: datasets", "pyarrow", "pip install -e '.[bag,lerobot-format]'"),
        _package("recordings: video", "av", "pip install -e '.[bag,lerobot-format]'"),
        _package("recordings: --ray", "ray", "pip install -e '.[ray]'"),
        _package("recordings: --rerun", "rerun", "pip install -e '.[rerun]'", dist="rerun-sdk"),
        _simulator(), _package("ROS 2", "rclpy", "source /opt/ros/DISTRO/setup.bash; or make ros-demo, which needs no ROS install"),
        _package("demo: live window", "tkinter", "apt-get install python3-tk (without it --view draws in the terminal)"),
    ]  # fmt: skip


def _python() -> Check:
    good = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Check("Python", good, platform.python_version(), "install Python 3.10, 3.11 or 3.12", needed=True)


def _package(
    feature: str, module: str, fix: str, *, dist: str | None = None, needed: bool = False,
    also: Callable[[], str] | None = None,
) -> Check:  # fmt: skip
    """Whether a module can be found, without importing it."""
    if find_spec(module) is None:
        return Check(feature, False, "not installed", fix, needed)
    try:
        found = version(dist or module)
    except PackageNotFoundError:
        found = "part of Python"
    return Check(feature, True, found + (also() if also else ""), fix, needed)


def _threads() -> str:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return f" ({build}, {torch.get_num_threads()} threads)"


def _hardware() -> Check:
    from flashrt_core.hardware import detect_arch

    fix = "flashrt works on the CPU with --hardware host"
    try:
        arch = detect_arch()
    except FlashRTError as error:
        return Check("hardware", False, str(error), fix)
    return Check("hardware", True, "host (no CUDA GPU found)" if arch == "host" else f"{arch} GPU")


def _pipelines() -> Check:
    from flashrt_core.hardware import _PIPELINE_MAP

    return Check("models built in", bool(_PIPELINE_MAP), ", ".join("/".join(row) for row in sorted(_PIPELINE_MAP)))


def _mujoco() -> Check:
    for dist in ("mujoco-core", "mujoco"):  # the renderer-free half, or the whole
        check = _package("demo: physics", "mujoco", "pip install -e '.[demo]'", dist=dist)
        if not check.ok or check.found != "part of Python":
            return check
    return check


def _simulator() -> Check:
    from ..sim.libero.env_client import find_python

    python, fix = find_python(None), "make libero"
    if str(python) == sys.executable:  # none of its own
        return _package("LIBERO: simulator", "robosuite", fix)
    return Check("LIBERO: simulator", True, str(python.parent.parent), fix)


def _opengl() -> Check:
    fix = "pip install mujoco && apt-get install libegl1 (only for --renderer gl; the ray renderer needs neither)"
    if find_spec("mujoco") is None:
        return Check("demo: OpenGL renderer", False, "no MuJoCo", fix)
    import mujoco

    if not hasattr(mujoco, "Renderer"):
        return Check("demo: OpenGL renderer", False, "this MuJoCo package has no renderer", fix)
    return Check("demo: OpenGL renderer", True, "mujoco.Renderer")


def _policy() -> Check:
    from pathlib import Path

    import flashrt_ros

    folder = Path(flashrt_ros.__file__).parent / "sim" / "tabletop" / "policy"
    weights = folder / "model.safetensors"
    found = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.exists() else f"no {weights.name} in {folder.name}/"
    return Check("demo: bundled policy", weights.exists(), found, "reinstall flashrt-ros: its package data is missing")
