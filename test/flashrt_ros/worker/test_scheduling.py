"""Time slices: what the kernel was asked for is what it says, and nothing else changes."""

import ctypes
import os
import platform
import struct
import threading

import pytest

from flashrt_ros.control.ticker import TickThread
from flashrt_ros.worker import scheduling
from flashrt_ros.worker.interface import Script, SubprocessWorker, WorkerSpec

GETATTR = {"x86_64": 315, "aarch64": 275}.get(platform.machine())
KERNEL = tuple(int(x) for x in platform.release().split("-")[0].split(".")[:2])
pytestmark = pytest.mark.skipif(GETATTR is None, reason="no sched_getattr number for this machine")


def slice_s(thread: int) -> float:
    """The custom slice of a thread, seconds; what an old kernel says means nothing."""
    size = struct.calcsize(scheduling._ATTR)
    buffer = ctypes.create_string_buffer(size)
    assert ctypes.CDLL(None).syscall(GETATTR, thread, buffer, size, 0) == 0
    return struct.unpack(scheduling._ATTR, buffer.raw)[5] / 1e9


def in_thread(call):
    out = []
    thread = threading.Thread(target=lambda: out.append(call()))
    thread.start()
    thread.join()
    return out[0]


def test_set_slice_changes_the_slice_only():
    def call():
        me = threading.get_native_id()
        before = os.sched_getscheduler(me), os.getpriority(os.PRIO_PROCESS, me)
        accepted = scheduling.set_slice(scheduling.SHORT_S)
        return accepted, before == (os.sched_getscheduler(me), os.getpriority(os.PRIO_PROCESS, me)), slice_s(me)

    accepted, same, value = in_thread(call)
    assert accepted and same
    if KERNEL >= (6, 12):
        assert value == pytest.approx(scheduling.SHORT_S)


def test_unknown_machine_or_thread_is_no_error(monkeypatch):
    assert not scheduling.set_slice(1e-4, 2**22 - 1)
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    assert not scheduling.set_slice(1e-4)


@pytest.mark.skipif(KERNEL < (6, 12), reason="the kernel has no slices per thread")
def test_control_process_gets_short_slices_and_its_worker_a_long_one():
    ticker = TickThread(lambda late, skipped: seen.append(slice_s(0)), 0.01)
    seen: list[float] = []
    ticker.start()
    worker = SubprocessWorker(WorkerSpec(script=Script(image_size=8)))
    worker.start()
    ticker.stop()
    assert seen[-1] == pytest.approx(scheduling.SHORT_S) == slice_s(os.getpid())
    assert slice_s(worker.status().pid) == pytest.approx(scheduling.LONG_S)
    worker.close()
    for name in os.listdir("/proc/self/task"):
        scheduling.set_slice(0.0, int(name))  # the kernel's own slice again, for the tests that follow
