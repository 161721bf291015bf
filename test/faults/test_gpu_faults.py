"""Fault rows that only a GPU can show, injected for real: a killed, hung or poisoned worker, no memory, another build."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent

import numpy as np
import pytest
import torch
from support.checkpoints import STATE_DIM, write_checkpoint
from support.machines import machine
from support.rig import until

from flashrt_core import load_model
from flashrt_core.errors import ConfigError, DeviceError, NotBuilt
from flashrt_core.types import BF16
from flashrt_ros.sim.tabletop import POLICY_DIR
from flashrt_ros.worker.interface import SubprocessWorker, Supervision, WorkerSpec
from flashrt_ros.worker.worker_process import EXIT_DEVICE

pytestmark = pytest.mark.gpu
ENVIRONMENT = {k: v for k, v in os.environ.items() if k in ("LD_LIBRARY_PATH", "HOME", "CUDA_VISIBLE_DEVICES")}
STATE, PROMPT = np.linspace(-0.4, 0.4, STATE_DIM), "pick up the red block"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("gpu") / "ckpt")


@pytest.fixture
def worker(tmp_path):
    made = []

    def make(**limits) -> SubprocessWorker:
        spec = WorkerSpec(checkpoint=str(POLICY_DIR), hardware="hopper", use_fp8=False, options={"autotune": 0})
        made.append(SubprocessWorker(spec, Supervision(period_s=0.05, **limits), environment=ENVIRONMENT))
        made[-1].start()
        return made[-1]

    yield make
    for w in made:
        w.close(2.0)


def seen(worker: SubprocessWorker) -> dict:
    side = worker.info.image_size
    return {"images": [np.zeros((side, side, 3), np.uint8)] * 2, "state": np.zeros(worker.info.state_dim), "prompt": PROMPT}


def pictures(side: int = 28) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8) for i in range(2)]


def test_F32_a_killed_worker_is_noticed_and_acts_again(worker) -> None:
    w = worker()
    assert np.isfinite(w.infer_actions(seen(w))).all()
    pid = w.status().pid
    threading.Timer(0.02, os.kill, (pid, signal.SIGKILL)).start()
    died = time.monotonic() + 0.02
    with pytest.raises(DeviceError):
        while True:
            w.infer_actions(seen(w))
    assert time.monotonic() - died <= 0.15, "noticed within 100 ms and a little"
    until(lambda: w.alive and w.status().pid != pid, 15.0)
    assert np.isfinite(w.infer_actions(seen(w))).all() and (w.status().deaths, w.status().respawns) == (1, 1)


def test_F33_a_hung_worker_is_killed_by_the_watchdog(worker) -> None:
    w = worker(timeout_s=0.5)
    pid = w.status().pid
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(DeviceError):
        w.infer_actions(seen(w))
    assert time.monotonic() - begin < 1.0
    until(lambda: w.alive and w.status().pid != pid, 15.0)
    assert np.isfinite(w.infer_actions(seen(w))).all()


def test_F34_an_illegal_address_ends_the_worker_with_70(worker, tmp_path, monkeypatch) -> None:
    """The third request finds a kernel that wrote to nowhere: reported, exit 70, no answer from that process any more."""
    (tmp_path / "sitecustomize.py").write_text(dedent(f"""
        from flashrt_ros.worker import policy_load
        whole = policy_load.ModelPolicy.infer
        calls = []
        def poisoned(self, request, number):
            calls.append(number)
            if len(calls) == 6:  # three of the warm-up, two good ones
                self._model._pipe.machine.ops.kernels.amax(0x7F0000000000, 0x7F0000001000, 4096, {int(BF16)}, 0)
            return whole(self, request, number)
        policy_load.ModelPolicy.infer = poisoned
    """))
    monkeypatch.syspath_prepend(tmp_path)
    w = worker()
    pid = w.status().pid
    for _ in range(2):
        assert np.isfinite(w.infer_actions(seen(w))).all()
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"illegal|cuda"):
        w.infer_actions(seen(w))
    assert time.monotonic() - begin <= 0.5
    until(lambda: w.status().deaths == 1, 2.0)
    assert f"exit {EXIT_DEVICE}" in (w.status().reason or "")
    until(lambda: w.alive and w.status().pid != pid, 15.0)


def test_F35_out_of_memory_at_configure_says_what_is_needed_and_frees_everything() -> None:
    def load():
        return load_model(POLICY_DIR, hardware="hopper", use_fp8=False, autotune=0)

    load()  # contexts and handles are there before we count
    gc.collect()
    torch.cuda.empty_cache()
    runtime, hoard = machine("hopper").ctx.runtime, []
    try:
        hoard.append(torch.empty(runtime.free_bytes() - (64 << 20), dtype=torch.uint8, device="cuda"))
        while runtime.free_bytes() > 8 << 20:  # the policy needs several times that
            hoard.append(torch.empty(2 << 20, dtype=torch.uint8, device="cuda"))
        left = runtime.free_bytes()
        with pytest.raises(DeviceError, match=r"expected about [\d,]+ bytes of device memory, found [\d,]+ bytes free"):
            load()
        assert abs(runtime.free_bytes() - left) <= 4 << 20
    finally:
        hoard.clear()
        torch.cuda.empty_cache()
    assert load().hardware == "hopper"


def test_F36_another_process_that_eats_the_memory_changes_nothing(checkpoint) -> None:
    model = load_model(checkpoint, hardware="hopper", use_fp8=False, autotune=0)
    want = model.predict(pictures(), PROMPT, STATE, seed=0)
    free = machine("hopper").ctx.runtime.free_bytes()
    code = dedent("""
        import sys, torch
        free, _ = torch.cuda.mem_get_info()
        hold = torch.empty(free - (64 << 20), dtype=torch.uint8, device="cuda")
        print("held", flush=True)
        sys.stdin.read()
    """)
    eater = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert eater.stdout.readline() == "held\n"
        assert machine("hopper").ctx.runtime.free_bytes() < 0.05 * free
        for _ in range(50):
            assert np.array_equal(model.predict(pictures(), PROMPT, STATE, seed=0), want)
    finally:
        eater.stdin.close()
        eater.wait(20)
        eater.stdout.close()


def test_F37_capture_survives_another_thread_and_one_spoilt_attempt(checkpoint) -> None:
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            torch.empty(1 << 22, dtype=torch.uint8, device="cuda")
            torch.cuda.empty_cache()  # cudaFree: ends a capture that is not thread-local

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        model = load_model(checkpoint, hardware="hopper", use_fp8=False, autotune=0)
    finally:
        stop.set()
        thread.join()
    assert np.isfinite(model.predict(pictures(), PROMPT, STATE)).all()
    m, attempts = machine("hopper"), []
    x, out = torch.ones(64, device="cuda"), torch.zeros(1, device="cuda")
    torch.cuda.synchronize()

    def record(stream: int, spoil: int) -> None:
        attempts.append(stream)
        if len(attempts) <= spoil:
            m.ctx.runtime.lib.cudaStreamSynchronize(stream)  # not permitted while it is captured: invalidates the capture
        m.ops.amax(x.data_ptr(), out.data_ptr(), 64, 0, stream)

    graph = m.ctx.graph("spoilt")
    graph.capture(0, lambda s: record(s, 1))
    assert len(attempts) == 2 and graph.replay(0) == 0
    m.sync()
    assert out.item() == 1.0
    attempts.clear()
    with pytest.raises(DeviceError):
        graph.capture(1, lambda s: record(s, 9))
    assert len(attempts) == 2 and not graph.has_variant(1)
    graph.capture(1, lambda s: record(s, 0))  # the context is usable


def test_F43_scales_that_clip_are_refused_by_site(checkpoint, tmp_path) -> None:
    model = load_model(checkpoint, hardware="hopper", use_fp8=True, autotune=0, calibration_dir=tmp_path)
    model.set_prompt(PROMPT, STATE)
    pipe = model._pipe
    whole = pipe._sample

    def loud(obs, index):
        images, ids, noise = whole(obs, index)
        return images, ids, noise * (40 if index else 1)

    pipe._sample = loud
    observations = [{"images": pictures(), "state": STATE}] * 2
    with pytest.raises(ConfigError, match=r"FP8 scale of site decoder\.step\d.*saturated"):
        model.calibrate(observations, percentile=0.0)
    assert not pipe.calibrated and model.precision_spec is None
    pipe._sample = whole
    model.calibrate(observations)
    assert pipe.calibrated


def test_F44_a_build_for_another_sm_names_both(monkeypatch) -> None:
    from flashrt_core import _kernels
    from flashrt_core.hardware.hopper.machine import HopperMachine
    from flashrt_core.hardware.rtx.machine import Sm120Machine, ThorMachine

    monkeypatch.setattr(_kernels, "archs", "89,120")
    with pytest.raises(NotBuilt, match=r"code for SM90, found SM89, SM120"):
        HopperMachine()
    for other, sm in ((Sm120Machine, "120"), (ThorMachine, "110")):
        with pytest.raises(NotBuilt, match=rf"{other.arch}.*SM{sm}.*found SM90"):
            other()


def test_F46_a_prompt_that_cannot_be_served_leaves_the_old_graph(checkpoint) -> None:
    model = load_model(checkpoint, hardware="hopper", use_fp8=False, autotune=0)
    want = model.predict(pictures(), PROMPT, STATE, seed=0)
    with pytest.raises(ValueError, match="tokens"):
        model.predict(pictures(), "a b c d e f g " * 40, STATE)
    assert np.array_equal(model.predict(pictures(), PROMPT, STATE, seed=0), want)
