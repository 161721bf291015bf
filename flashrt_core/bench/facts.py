"""What a measurement was made with: GPU, driver, clocks, library versions, commit. Read from NVML and files, nothing is run."""

from __future__ import annotations

import ctypes
import datetime
import platform
import re
from pathlib import Path
from typing import Any

from ..version import __version__

_CLOCK_SM, _CLOCK_MEM, _TEMPERATURE_GPU = 1, 2, 0  # nvml.h: nvmlClockType_t, nvmlTemperatureSensors_t
_NVML = "libnvidia-ml.so.1"


class Nvml:
    """The first GPU's name, driver, clocks, power, temperature and memory, by NVML. OSError without the library."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(_NVML)
        if self._lib.nvmlInit_v2():
            raise OSError("nvmlInit failed")
        self._device = ctypes.c_void_p()
        if self._lib.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)):
            raise OSError("NVML sees no device")

    def _number(self, name: str, *args: int) -> int | None:
        out = ctypes.c_uint()
        return None if getattr(self._lib, name)(self._device, *args, ctypes.byref(out)) else out.value

    def used_bytes(self) -> int:
        """Memory in use on the device, by whomever."""
        out = (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
        if self._lib.nvmlDeviceGetMemoryInfo(self._device, out):
            raise OSError("nvmlDeviceGetMemoryInfo failed")
        return out[2]

    def _text(self, name: str, *first: Any) -> str:
        out = ctypes.create_string_buffer(96)
        return "" if getattr(self._lib, name)(*first, out, 96) else out.value.decode(errors="replace")

    def read(self) -> dict[str, Any]:
        """Now: clocks in MHz, power in W, temperature in degrees Celsius."""
        power = self._number("nvmlDeviceGetPowerUsage")
        return {
            "name": self._text("nvmlDeviceGetName", self._device),
            "driver": self._text("nvmlSystemGetDriverVersion"),
            "sm_mhz": self._number("nvmlDeviceGetClockInfo", _CLOCK_SM),
            "mem_mhz": self._number("nvmlDeviceGetClockInfo", _CLOCK_MEM),
            "power_w": None if power is None else round(power / 1000, 1),
            "temperature_c": self._number("nvmlDeviceGetTemperature", _TEMPERATURE_GPU),
        }


def gpu_facts() -> dict[str, Any] | None:
    """`Nvml().read()`, or None where there is no GPU to ask."""
    try:
        return Nvml().read()
    except OSError:
        return None


def versions() -> dict[str, str]:
    """flashrt, Python, torch and the CUDA version that torch was built with."""
    import torch

    return {
        "flashrt": __version__, "python": platform.python_version(), "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
    }  # fmt: skip


def cpu_name(path: str = "/proc/cpuinfo") -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path(path).read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def commit(start: Path | None = None) -> str:
    """Short commit of the checkout that holds this file ("?" outside of one), read from `.git` as git lays it out."""
    here = (start or Path(__file__)).resolve()
    for folder in here.parents:
        git = folder / ".git"
        if git.is_file():  # a worktree: "gitdir: <path>"
            git = folder / git.read_text().split(":", 1)[-1].strip()
        if git.is_dir():
            return _head(git)[:7] or "?"
    return "?"


def _head(git: Path) -> str:
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head[5:]
        common = git / "commondir"
        for base in (git, git / common.read_text().strip()) if common.exists() else (git,):
            if (base / name).exists():
                return (base / name).read_text().strip()
            packed = base / "packed-refs"
            if packed.exists():
                found = re.search(rf"^([0-9a-f]{{40}}) {re.escape(name)}$", packed.read_text(), re.M)
                if found:
                    return found[1]
    except OSError:
        pass
    return ""


def today() -> str:
    return datetime.date.today().isoformat()
