"""Ask the CUDA driver for the compute capability of the current device, without PyTorch and without a CUDA context."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from ..errors import ConfigError

# CUDA driver API, cuda.h
_SUCCESS = 0
_ERROR_NO_DEVICE = 100
_ATTRIBUTE_MAJOR = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_ATTRIBUTE_MINOR = 76


def compute_capability(load: Callable[[str], object] = ctypes.CDLL) -> tuple[int, int] | None:
    """(major, minor) of the current CUDA device; None when there is no driver or no device.

    The current device is PyTorch's when PyTorch already holds a CUDA context in this process, else the first visible
    one. ConfigError when the driver is there but fails (too old, device lost). load: opens a shared library by name.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return tuple(torch.cuda.get_device_capability())
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        return None
    status = cuda.cuInit(0)
    if status == _ERROR_NO_DEVICE:
        return None
    _check("cuInit", status)
    count = ctypes.c_int()
    _check("cuDeviceGetCount", cuda.cuDeviceGetCount(ctypes.byref(count)))
    if count.value == 0:
        return None
    device = ctypes.c_int()
    _check("cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(device), 0))
    values = []
    for attribute in (_ATTRIBUTE_MAJOR, _ATTRIBUTE_MINOR):
        value = ctypes.c_int()
        _check("cuDeviceGetAttribute", cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device))
        values.append(value.value)
    return values[0], values[1]


def _check(call: str, status: int) -> None:
    if status != _SUCCESS:
        raise ConfigError(
            f"CUDA driver call {call}",
            expected="status 0",
            found=f"status {status}",
            hint='Check the driver (nvidia-smi), or choose hardware="host" to run on the CPU',
        )
