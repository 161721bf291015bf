"""The worker process from outside: its rights, its command and environment, what it inherits."""

import os
import sys

import pytest
from support.workers import Workers, observation, scripted

from flashrt_ros.worker.subprocess_worker import child_command, child_environment


@pytest.fixture
def start():
    """start(spec, **limits) gives a started SubprocessWorker, closed after the test."""
    workers = Workers()
    yield workers
    workers.close()


def test_process_has_least_rights(start):
    worker = start(scripted())
    worker.infer_actions(observation())
    pid = worker.status().pid
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    limits = {line[:26].strip(): line[26:].split()[:2] for line in open(f"/proc/{pid}/limits")}
    assert limits["Max core file size"] == ["0", "0"]
    assert int(limits["Max open files"][0]) <= 1024
    files = {n: os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
    assert files.pop("0") == "/dev/null" and files.pop("1") == files.pop("2")
    assert files.pop("3").startswith("socket:")
    (memory,) = files.values()
    assert "memfd:flashrt" in memory
    # SIGINT is ignored (bit 2 of the mask): a Ctrl-C in the terminal is the parent's to handle.
    assert int(status["SigIgn"], 16) & 1 << 1


def test_process_gets_an_exact_command_and_a_small_environment(start):
    seen = []
    sys.addaudithook(lambda event, args: seen.append((event, args)) if watching else None)
    watching = True
    try:
        worker = start(scripted())
    finally:
        watching = False
    spawned = [args for event, args in seen if event == "os.posix_spawn"]
    assert len(spawned) == 1 and spawned[0][0] == sys.executable and list(spawned[0][1]) == child_command()
    assert not [
        e for e, _ in seen if e in ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec")
    ]
    pid = worker.status().pid
    assert open(f"/proc/{pid}/cmdline").read().split("\0")[1:-1] == child_command()[1:]
    names = {item.split("=")[0] for item in open(f"/proc/{pid}/environ").read().split("\0") if item}
    assert names == {"PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED", "OMP_NUM_THREADS"}
    assert set(child_environment(2, {"CUDA_VISIBLE_DEVICES": "0"})) == names | {"CUDA_VISIBLE_DEVICES"}


def test_files_of_the_parent_do_not_leak(start, tmp_path):
    with open(tmp_path / "secret", "w") as secret:
        os.set_inheritable(secret.fileno(), True)
        worker = start(scripted())
        files = os.listdir(f"/proc/{worker.status().pid}/fd")
        assert not [f for f in files if "secret" in os.readlink(f"/proc/{worker.status().pid}/fd/{f}")]


def test_descriptor_numbers_do_not_matter(start):
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]  # shifts the numbers of what the worker opens
    try:
        assert start(scripted()).infer_actions(observation(2.0))[0, 0] == 2.0
    finally:
        for fd in spare:
            os.close(fd)
