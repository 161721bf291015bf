"""The keeper of a worker process goes on whatever fails on our side: `start` returns, a respawn is tried or given up."""

import os
import threading

import pytest
from support.rig import until
from support.workers import Workers, observation, scripted

from flashrt_core.errors import DeviceError, FlashRTError
from flashrt_ros.worker.interface import WorkerInfo, WorkerState
from flashrt_ros.worker.shared_memory import SharedMemory
from flashrt_ros.worker.worker_wire import Channel


@pytest.fixture
def start():
    """start(spec, **limits) gives a started SubprocessWorker, closed after the test."""
    workers = Workers()
    yield workers
    workers.close()


def out_of_descriptors(*_):
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize(("place", "name"), [(SharedMemory, "create"), (Channel, "pair"), (WorkerInfo, "from_json")])
def test_start_ends_whatever_fails_on_our_side(start, monkeypatch, place, name):
    """An error that nobody foresaw ended the keeper: configure waited for ever, and the process was left behind."""
    worker, told = start(scripted(), run=False), []
    monkeypatch.setattr(place, name, out_of_descriptors)

    def run():
        try:
            worker.start()
        except DeviceError as error:
            told.append(error)

    threading.Thread(target=run, daemon=True).start()
    until(lambda: told)
    assert "Too many open files" in str(told[0])
    status = worker.status()
    assert status.state is WorkerState.FAILED and status.pid is None and worker._child is None


@pytest.mark.parametrize(("name", "traced"), [("ConfigError", False), ("DeviceError", True), ("RuntimeError", True)])
def test_a_traceback_is_for_what_the_operator_cannot_put_right(start, caplog, name, traced):
    with pytest.raises(FlashRTError):
        start(scripted(start_error=name))
    assert ("Traceback" in caplog.text) is traced


def test_a_respawn_that_fails_on_our_side_is_given_up(start, monkeypatch):
    worker = start(scripted(faults={0: "die"}), max_respawns=2)
    monkeypatch.setattr(SharedMemory, "create", out_of_descriptors)
    with pytest.raises(DeviceError):
        worker.infer_actions(observation())
    until(lambda: worker.status().state is WorkerState.FAILED)
    assert worker.status().deaths == 3 and "Too many open files" in worker.status().reason


def test_a_process_reaped_by_somebody_else_is_noticed(start, monkeypatch):
    """Where SIGCHLD is ignored or a library waits for all children, there is nothing left to wait for."""
    waited = os.waitid

    def reaped(*args):
        waited(os.P_PID, args[1], os.WEXITED)
        raise ChildProcessError(10, "No child processes")

    monkeypatch.setattr(os, "waitid", reaped)
    worker = start(scripted(faults={0: "die"}))
    first = worker.status().pid
    with pytest.raises(DeviceError):
        worker.infer_actions(observation())
    until(lambda: worker.alive and worker.status().pid != first)
    assert worker.status().deaths == 1
