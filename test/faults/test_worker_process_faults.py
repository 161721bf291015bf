"""Fault rows of the worker process: it dies with its parent (F64), and its memory is nobody else's (F88)."""

import fcntl
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from support.loop_rig import SIDE, VIEWS
from support.rig import until

from flashrt_core.errors import DeviceError
from flashrt_ros.worker.policy_worker import Request, WorkerInfo
from flashrt_ros.worker.shared_memory import Layout, SharedMemory


def test_F64_worker_dies_with_its_parent(tmp_path):
    """SIGKILL of the parent while the worker is idle, computing, hung and loading: no orphan, nothing in /dev/shm."""
    before = named_memory()
    code = """
import sys, threading, time, numpy as np
from flashrt_ros.worker.interface import Script, SubprocessWorker, Supervision, WorkerSpec
what = sys.argv[1]
play = Script(horizon=2, image_size=8, latencies_s=(30.0 if what == "busy" else 0.0,), faults={0: "hang"} if what == "hang" else {},
              start_s=30.0 if what == "load" else 0.0)
worker = SubprocessWorker(WorkerSpec(script=play), Supervision(timeout_s=60.0))
threading.Thread(target=worker.start, daemon=True).start()
while not (worker.status().phase == "loading script" if what == "load" else worker.alive): time.sleep(0.002)
if what in ("busy", "hang"):
    obs = {"images": [np.zeros((8, 8, 3), np.uint8)] * 2, "state": None, "prompt": "x"}
    threading.Thread(target=worker.infer_actions, args=(obs,), daemon=True).start()
    time.sleep(0.1)
print(worker.status().pid, flush=True)
time.sleep(60)
"""
    parents = [
        subprocess.Popen([sys.executable, "-c", code, what], stdout=subprocess.PIPE, text=True)
        for what in ("idle", "busy", "hang", "load")
    ]
    workers = []
    for parent in parents:
        workers.append(int(parent.stdout.readline()))
        os.kill(workers[-1], 0)  # is there
        parent.kill()
        parent.wait()
        parent.stdout.close()
    begin = time.monotonic()
    until(lambda: not any(running(pid) for pid in workers), 2.0)
    assert time.monotonic() - begin < 1.0 and named_memory() == before


def named_memory() -> set[str]:
    """Names in /dev/shm, those of DDS left out: other tests come and go there."""
    return {name for name in os.listdir("/dev/shm") if "fastdds" not in name}


def running(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


INFO = WorkerInfo(VIEWS, SIDE, 3, 5, 7)


def test_F88_shared_memory_has_no_name_and_a_sealed_size():
    before = named_memory()
    block = SharedMemory.create(Layout.of(INFO))
    info = os.fstat(block.fd)
    assert stat.S_IMODE(info.st_mode) == 0o600 and info.st_nlink == 0 and info.st_size == Layout.of(INFO).nbytes
    assert named_memory() == before
    for size in (0, info.st_size + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(block.fd, size)
    block.close()
    block.close()


@pytest.mark.parametrize("kind", ["small", "large", "unsealed", "mode", "file"])
def test_F88_planted_memory_is_refused(kind, tmp_path):
    layout = Layout.of(INFO)
    if kind == "file":
        fd = os.open(tmp_path / "planted", os.O_CREAT | os.O_RDWR, 0o600)
    else:
        fd = os.memfd_create("planted", os.MFD_ALLOW_SEALING)
        os.fchmod(fd, 0o644 if kind == "mode" else 0o600)
    os.ftruncate(fd, layout.nbytes + {"small": -1, "large": 4096}.get(kind, 0))
    if kind in ("small", "large", "mode"):
        fcntl.fcntl(fd, 1033, 7)
    with pytest.raises(DeviceError, match="shared memory"):
        SharedMemory.attach(fd, layout)
    with pytest.raises(OSError):
        os.fstat(fd)  # not kept open


def test_F88_the_wrong_request_is_not_read():
    block = SharedMemory.create(Layout.of(INFO))
    images = tuple(np.full((SIDE, SIDE, 3), v, np.uint8) for v in (1, 2))
    block.write_request(7, Request(images, np.arange(3, dtype=np.float32), "go", 11))
    got = block.read_request(7)
    assert (got.prompt, got.seed, got.state.tolist()) == ("go", 11, [0, 1, 2]) and got.images[1].min() == 2
    with pytest.raises(DeviceError, match="request 8"):
        block.read_request(8)
    with pytest.raises(DeviceError, match="result 7"):
        block.read_result(7)
    block.write_result(7, np.ones((5, 7), np.float32))
    assert block.read_result(7).sum() == 35
    del got
    block.close()
