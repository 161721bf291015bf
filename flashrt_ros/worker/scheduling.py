"""Short time slices: the kernel lets a process that runs little and often go before one that computes."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

# asm/unistd.h: sched_setattr(pid, attr, flags).
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SCHED_NORMAL = 0
_ATTR = "=IIQiIQQQII"  # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period, util_min, util_max
SHORT_S, LONG_S = 1e-4, 2e-2  # the kernel takes 0.1 ms to 100 ms


def set_slice(seconds: float, thread: int = 0) -> bool:
    """Give a thread (its kernel id, 0 = the calling one) the time slice `seconds`; niceness stays. True when accepted.

    Linux >= 6.12 schedules by it (a waking thread with a shorter slice preempts at once; no privilege needed); older
    kernels ignore it. Threads and processes started later inherit it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    try:
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        attr = struct.pack(_ATTR, struct.calcsize(_ATTR), _SCHED_NORMAL, 0, nice, 0, round(seconds * 1e9), 0, 0, 0, 0)
        if os.sched_getscheduler(thread) != _SCHED_NORMAL:
            return False  # somebody gave it a real-time policy: better than ours
        return ctypes.CDLL(None).syscall(number, thread, attr, 0) == 0
    except OSError:
        return False  # the thread has ended


def favour_this_process() -> int:
    """Short slices for every thread of this process: they share an interpreter lock, so the one that holds it must not
    be kept waiting either. Returns how many threads took it."""
    return sum(set_slice(SHORT_S, int(name)) for name in os.listdir("/proc/self/task"))
