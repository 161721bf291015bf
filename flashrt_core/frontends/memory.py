"""Run out of device memory in one way: everything taken is given back, and the error says what was needed and what is free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import DeviceError
from ..runtime.exec_status import OOM, ExecError

Result = TypeVar("Result")


def within_memory(machine: Any, step: Callable[[], Result], needed: int) -> Result:
    """`step()`; DeviceError (F35) when the device has no room for it. needed: about how many bytes, 0 when it is not known."""
    try:
        return step()
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
    # Here the failed step's frames, and what they held, are gone.
    machine.trim()
    free = machine.free_bytes()
    words = f"about {needed:,} bytes of device memory" if needed else "room for a captured graph"
    raise DeviceError(
        "device memory", expected=words, found=f"{free:,} bytes free",
        hint="Free memory on the device, or load fewer views, a smaller prompt capacity or FP8",
    )  # fmt: skip


def _out_of_memory(error: RuntimeError) -> bool:
    """PyTorch's class is known by its name: nothing here imports a framework."""
    return type(error).__name__ == "OutOfMemoryError" or (isinstance(error, ExecError) and error.rc == OOM)
