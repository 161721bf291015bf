"""Out of device memory (F35): one typed error with both numbers, and what was taken is free again when it is raised."""

from __future__ import annotations

import gc
import weakref

import pytest

from flashrt_core.errors import DeviceError
from flashrt_core.frontends.memory import within_memory
from flashrt_core.runtime.exec_status import INVALID, OOM, ExecError


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


class Machine:
    trimmed = 0

    def trim(self) -> None:
        self.trimmed += 1

    def free_bytes(self) -> int:
        return 1000


class Held:
    pass


@pytest.mark.parametrize("error", [OutOfMemoryError("no"), ExecError("buffer 'x'", OOM, "no")], ids=lambda e: type(e).__name__)
def test_F35_the_error_has_both_numbers_and_everything_is_freed(error: Exception) -> None:
    machine, alive = Machine(), []

    def step() -> None:
        taken = Held()
        alive.append(weakref.ref(taken))
        raise error.with_traceback(None)

    with pytest.raises(DeviceError, match=r"5,000 bytes.*1,000 bytes free") as caught:
        within_memory(machine, step, 5000)
    error.with_traceback(None)  # the test's own hold on the frames
    gc.collect()
    assert machine.trimmed == 1 and alive[0]() is None
    assert caught.value.__context__ is None


def test_other_errors_pass_and_results_too() -> None:
    with pytest.raises(ExecError):
        within_memory(Machine(), lambda: (_ for _ in ()).throw(ExecError("x", INVALID, "y")), 1)
    assert within_memory(Machine(), lambda: 7, 1) == 7
