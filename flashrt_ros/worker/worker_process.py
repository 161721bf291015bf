"""The worker process: `python -m flashrt_ros.worker.worker_process --fd N`, spawned by SubprocessWorker; no ROS, no network."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import resource
import signal
import socket
import sys
import time
import traceback

import numpy as np

from flashrt_core.errors import ConfigError, DeviceError, FlashRTError
from flashrt_core.runtime.chunk import ChunkError

from .policy_load import LoadedPolicy, WorkerSpec, load_policy
from .scheduling import LONG_S, set_slice
from .shared_memory import Layout, SharedMemory
from .worker_wire import Channel, ChannelClosed, encode_error

logger = logging.getLogger(__name__)
EXIT_START, EXIT_DEVICE = 65, 70  # sysexits.h EX_DATAERR, EX_SOFTWARE; 70 = the device is not to be trusted any more
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # linux/prctl.h
_MAX_FILES = 1024
_MAX_TRACE = 16_000


def confine(fd: int) -> None:
    """Give up what a worker has no use for, and make sure that it cannot outlive its parent.

    The kernel kills it with the thread that spawned it; the closed channel ends it when it is between two requests.
    """
    os.closerange(fd + 1, 1 << 16)
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_PDEATHSIG, signal.SIGKILL), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, int(value), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    faulthandler.enable(sys.stderr)
    set_slice(LONG_S)  # not the short slice inherited from the control process


def serve(channel: Channel) -> int:
    """The life of a worker on its channel; returns the exit code."""
    hello = channel.receive()
    try:
        spec = WorkerSpec.from_json(hello["spec"])
        os.nice(spec.nice)
        policy = load_policy(spec, lambda text: channel.send({"progress": text}))
    except ChannelClosed:
        return 0
    except Exception as error:  # the worker's boundary: whatever loading raises becomes a message
        _report(channel, error, None)
        return EXIT_DEVICE if _of_device(error) else EXIT_START
    channel.send({"ready": policy.info.to_json()})
    _, fd = channel.receive_with_fd()
    memory = SharedMemory.attach(fd, Layout.of(policy.info))
    while True:
        message = channel.receive()
        number = message.get("infer")
        if number is None:
            return 0  # asked to close
        if not _answer(channel, policy, memory, int(number)):
            os._exit(EXIT_DEVICE)  # now: no clean-up of a library may hang on the broken device


def _answer(channel: Channel, policy: LoadedPolicy, memory: SharedMemory, number: int) -> bool:
    """Serve one request. False when the process must not go on."""
    start = time.perf_counter()
    try:
        actions = np.asarray(policy.infer(memory.read_request(number), number), dtype=np.float32)
        shape = (policy.info.horizon, policy.info.action_dim)
        if actions.shape != shape:
            raise ChunkError("action chunk", expected=f"float32 {shape}", found=f"shape {actions.shape}")
        memory.write_result(number, actions)
    except Exception as error:  # the worker's boundary
        _report(channel, error, number)
        return not _of_device(error)
    channel.send({"done": number, "s": time.perf_counter() - start})
    return True


def _of_device(error: Exception) -> bool:
    """Whether the process may be sitting on a broken device (rule R7).

    What device libraries raise of their own are RuntimeErrors; ours of other classes say that an input was wrong.
    """
    if isinstance(error, FlashRTError):
        return isinstance(error, DeviceError)
    return isinstance(error, RuntimeError | MemoryError | OSError)


def _report(channel: Channel, error: Exception, number: int | None) -> None:
    trace = "".join(traceback.format_exception(error))[-_MAX_TRACE:]
    channel.send({"error": encode_error(error), "seq": number, "trace": trace, "fatal": _of_device(error)})


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 2 or words[0] != "--fd" or not words[1].isdigit():
        raise ConfigError("arguments", expected="--fd N", found=" ".join(words), hint="SubprocessWorker starts this")
    fd = int(words[1])
    confine(fd)
    logging.basicConfig(level=logging.INFO, format="worker: %(levelname)s %(message)s")
    channel = Channel(socket.socket(fileno=fd))
    try:
        return serve(channel)
    except ChannelClosed:
        return 0  # the parent is gone


if __name__ == "__main__":
    sys.exit(main())
