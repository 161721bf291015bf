"""Policy workers: the way to another process and back, its life, and what it may do there."""

import os
import threading
import time

import numpy as np
import pytest
from support.rig import until
from support.workers import SIDE, SMALL, Workers, observation, scripted

from flashrt_core import errors
from flashrt_core.errors import CheckpointNotFound, ConfigError, DeviceError, FlashRTError, ObservationError, OpError
from flashrt_core.runtime.chunk import ChunkError
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig
from flashrt_ros.sim.tabletop import POLICY_DIR
from flashrt_ros.worker.interface import (
    InProcessWorker,
    RespawnPolicy,
    Script,
    ScriptedWorker,
    SubprocessWorker,
    Supervision,
    Watchdog,
    WorkerInfo,
    WorkerSpec,
    WorkerState,
)
from flashrt_ros.worker.policy_worker import CALLS_PER_SEED, Request, as_request
from flashrt_ros.worker.script import request_digest
from flashrt_ros.worker.worker_wire import Channel, ChannelClosed, decode_error, encode_error


@pytest.fixture
def start():
    """start(spec, **limits) gives a started SubprocessWorker, closed after the test."""
    workers = Workers()
    yield workers
    workers.close()


# ---- the way there and back


def test_what_arrives_is_what_was_sent(start):
    worker = start(scripted(digest=True))
    for prompt, seed in (("pick up the red block", 7), ("é" * 2000, None), ("", 0)):
        obs = observation(2.5, prompt, seed=seed)
        want = request_digest(Request(tuple(obs["images"]), obs["state"], prompt, seed))
        got = worker.infer_actions(obs)
        assert got.dtype == np.float32 and got.shape == (4, 5)
        assert got[0, :4].tolist() == np.float32(want).tolist()


def test_no_state_and_views_that_are_not_contiguous(start):
    worker = start(scripted(digest=True))
    obs = observation()
    obs["images"] = [image[:, ::-1] for image in obs["images"]]
    obs["state"] = None
    want = request_digest(Request(tuple(obs["images"]), None, "go", None))
    assert worker.infer_actions(obs)[0, :4].tolist() == np.float32(want).tolist()


def test_seeds_count_from_reseed(start):
    worker = start(scripted(digest=True))
    assert worker.infer_actions(observation())[0, 3] == -1
    worker.reseed(3)
    seeds = [worker.infer_actions(observation())[0, 3] for _ in range(3)]
    assert seeds == [3 * CALLS_PER_SEED + n for n in range(3)]
    assert worker.infer_actions(observation(seed=5))[0, 3] == 5


def test_results_are_the_callers_own(start):
    worker = start(scripted())
    first = worker.infer_actions(observation(1.0))
    worker.infer_actions(observation(2.0))
    assert first[0, 0] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": [np.zeros((SIDE, SIDE, 3), np.uint8)]}, "expected 2 views, found 1"),
        ({"images": [np.zeros((9, 8, 3), np.uint8)] * 2}, "image a"),
        ({"images": [np.zeros((SIDE, SIDE, 3), np.float32)] * 2}, "float32"),
        ({"images": None}, "found none"),
        ({"state": np.zeros(4)}, r"expected \(3,\)"),
        ({"prompt": None}, "expected text"),
        ({"prompt": "x" * 4097}, "at most 4096 bytes"),
    ],
    ids=str,
)
def test_observation_that_does_not_fit_is_refused(start, change, words):
    info = Script(**SMALL).info()
    if change != {"prompt": "x" * 4097}:
        with pytest.raises(ObservationError, match=words):
            as_request({**observation(), **change}, info, None)
        return
    worker = start(scripted())
    with pytest.raises(ObservationError, match=words):
        worker.infer_actions({**observation(), **change})
    assert worker.infer_actions(observation(4.0))[0, 0] == 4.0


def test_observation_may_be_an_object():
    class Plain:
        images, state, prompt = observation()["images"], None, "go"

    assert as_request(Plain(), Script(**SMALL).info(), 9).seed == 9


# ---- typed errors


def error_classes() -> list[type]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FlashRTError)] + [ChunkError]


@pytest.mark.parametrize("cls", error_classes(), ids=lambda c: c.__name__)
def test_errors_cross_with_class_and_fields(cls):
    if cls is OpError:
        error = OpError("rms_norm", "D", 1153, "must be a multiple of 8", "M=512")
    else:
        error = cls("thing", expected=3, found="4", hint="do this")
    back = decode_error(encode_error(error))
    if cls is FlashRTError:  # the base class says nothing: nobody raises it
        assert type(back) is DeviceError
        return
    assert type(back) is cls and str(back) == str(error) and back.thing == error.thing


def test_a_subclass_crosses_as_the_class_it_is_known_by():
    class Special(ConfigError):
        pass

    assert type(decode_error(encode_error(Special("x")))) is ConfigError


@pytest.mark.parametrize("data", [{}, {"type": "ConfigError", "fields": 3}, {"type": "ConfigError", "fields": {"x": 1}},
                                  {"type": "SystemExit", "fields": {"thing": "x"}}, {"type": "os.system"}], ids=str)  # fmt: skip
def test_nonsense_becomes_a_device_error(data):
    assert type(decode_error(data)) is DeviceError


def test_an_unknown_error_tells_its_class_and_nothing_of_its_text(start, caplog):
    worker = start(scripted(faults={0: "exception"}))
    with pytest.raises(DeviceError) as caught:
        worker.infer_actions(observation())
    assert "LookupError" in str(caught.value) and "scripted exception" not in str(caught.value)
    assert "scripted exception" in caplog.text and "Traceback" in caplog.text
    assert worker.infer_actions(observation(1.0))[0, 0] == 1.0 and worker.status().deaths == 0


def test_observation_error_from_inside_keeps_its_type(start):
    worker = start(scripted(faults={0: "observation"}))
    with pytest.raises(ObservationError, match="a scripted state"):
        worker.infer_actions(observation())
    assert worker.alive


@pytest.mark.parametrize("kind", ["shape", "empty"])
def test_a_chunk_of_another_shape_is_an_error_with_the_shape(start, kind):
    worker = start(scripted(faults={0: kind}))
    with pytest.raises(ChunkError, match=r"expected float32 \(4, 5\), found shape"):
        worker.infer_actions(observation())
    assert worker.alive


def test_channel_refuses_nonsense_and_notices_the_end():
    ours, theirs = Channel.pair()
    assert ours.receive(0.01) is None
    for data in (b"[1]", b"{", b"\xff\xfe"):
        theirs.send(data)
        with pytest.raises(DeviceError, match="JSON object"):
            ours.receive(1.0)
    theirs.close()
    with pytest.raises(ChannelClosed):
        ours.receive(1.0)
    with pytest.raises(ChannelClosed):
        ours.send({"infer": 1})
    ours.close()


# ---- start


@pytest.mark.parametrize(("name", "cls"), [("ConfigError", ConfigError), ("DeviceError", DeviceError)])
def test_start_raises_what_loading_raised(start, name, cls):
    worker = start(scripted(start_error=name), run=False)
    with pytest.raises(cls, match="scripted start error"):
        worker.start()
    assert worker.status().state is WorkerState.FAILED and worker.status().pid is None and worker.info is None
    with pytest.raises(DeviceError):
        worker.infer_actions(observation())
    with pytest.raises(DeviceError, match="a new one"):
        worker.start()


def test_start_without_a_checkpoint(start, tmp_path):
    with pytest.raises(CheckpointNotFound, match="nothing at"):
        start(WorkerSpec(checkpoint=str(tmp_path / "none")), run=False).start()


def test_start_reports_progress_and_info(start):
    lines = []
    worker = start(scripted(), lines.append)
    assert lines == ["loading script", "warming up"]
    assert worker.info == WorkerInfo(("a", "b"), SIDE, 3, 4, 5, "host", "script", (0.0,))
    assert worker.alive and worker.status().state is WorkerState.READY and worker.status().pid


def test_start_has_a_bound(start):
    begin = time.monotonic()
    with pytest.raises(DeviceError, match=r"ready within 0\.3 s"):
        start(scripted(start_s=30.0), run=False, start_timeout_s=0.3).start()
    assert time.monotonic() - begin < 3.0


def test_close_calls_off_a_start(start):
    worker = start(scripted(start_s=30.0), run=False)
    caught = []

    def run():
        try:
            worker.start()
        except DeviceError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: worker.status().phase == "loading script")
    worker.close(2.0)
    thread.join(2.0)
    assert caught and worker.status().state is WorkerState.CLOSED


BAD_SPECS = [
    {}, {"checkpoint": "x", "script": Script()}, {"checkpoint": "x", "threads": 0}, {"checkpoint": "x", "nice": -1},
    {"checkpoint": "x", "options": {"autotun": 1}},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_SPECS, ids=lambda b: ",".join(b))
def test_spec_refuses(bad):
    with pytest.raises(ConfigError):
        WorkerSpec(**bad)


def test_spec_survives_json():
    spec = WorkerSpec(script=Script(faults={3: "die"}, latencies_s=(0.1, 0.2)), threads=2, options={"autotune": 0})
    assert WorkerSpec.from_json(spec.to_json()) == spec


# ---- life


def pid_gone(pid: int) -> bool:
    """Ended and reaped, or never there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_close_ends_the_process_and_frees_what_it_held(start):
    def counts():
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    start(scripted()).close()
    before = counts()
    pids = []
    for _ in range(3):
        worker = start(scripted())
        worker.infer_actions(observation())
        pids.append(worker.status().pid)
        worker.close()
        worker.close()
    after = counts()
    assert after[0] <= before[0] and after[1] <= before[1] and all(pid_gone(pid) for pid in pids)


def test_close_while_a_call_hangs(start):
    worker = start(scripted(faults={0: "hang"}), timeout_s=60.0)
    caught = []

    def call():
        with pytest.raises(DeviceError):
            worker.infer_actions(observation())
        caught.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.05)
    begin = time.monotonic()
    worker.close(1.0)
    thread.join(1.0)
    assert caught and time.monotonic() - begin < 2.0 and worker.status().state is WorkerState.CLOSED


def test_a_respawned_worker_serves_again(start):
    worker = start(scripted(faults={1: "die"}))
    first = worker.status().pid
    worker.infer_actions(observation())
    with pytest.raises(DeviceError, match="its process died"):
        worker.infer_actions(observation())
    assert not worker.alive
    with pytest.raises(DeviceError, match="expected ready"):
        worker.infer_actions(observation())
    until(lambda: worker.alive)
    assert worker.infer_actions(observation(8.0))[0, 0] == 8.0
    status = worker.status()
    assert status.pid != first and (status.deaths, status.respawns, status.fault) == (1, 1, None)


def test_status_changes_are_told():
    seen = []
    worker = SubprocessWorker(scripted(), on_change=seen.append)
    worker.start()
    worker.close()
    states = [s.state for s in seen]
    assert states[0] is WorkerState.STARTING and WorkerState.READY in states and states[-1] is WorkerState.CLOSED


def test_runner_ticks_on_while_the_process_computes(start):
    worker = start(scripted(latencies_s=(0.25,), horizon=50))
    with AsyncChunkRunner(worker, RTCConfig(target_hz=50)) as runner:
        runner.reset(observation(0.0))
        longest, began = 0.0, time.monotonic()
        for k in range(40):
            tick = time.monotonic()
            assert runner.next_action(observation(float(k))) is not None
            longest = max(longest, time.monotonic() - tick)
            time.sleep(max(0.0, began + 0.02 * (k + 1) - time.monotonic()))
        assert runner.stats.chunks_completed >= 2 and longest < 0.2


# ---- supervision


def test_watchdog_bound():
    dog = Watchdog(Supervision(period_s=0.02, watchdog_floor_s=0.0))
    assert dog.bound_s == pytest.approx(0.06)
    dog.start((0.1, 0.1))
    assert dog.bound_s == pytest.approx(0.25)
    for _ in range(200):
        dog.add(0.05)
    assert dog.bound_s == pytest.approx(0.125)
    dog.add(1.0)
    dog.add(1.0)
    assert dog.bound_s == pytest.approx(0.125), "two of 200 are beyond P99"
    dog.add(1.0)
    assert dog.bound_s == pytest.approx(2.5)
    assert Watchdog(Supervision(watchdog_floor_s=0.5)).bound_s == 0.5
    assert Watchdog(Supervision(timeout_s=0.2)).bound_s == 0.2


def test_respawn_policy_counts_within_its_window():
    policy, second = RespawnPolicy(Supervision()), 10**9
    assert [policy.allow(t * second) for t in (0, 10, 20, 59)] == [True, True, False, False]
    assert policy.allow(60 * second) and not policy.allow(61 * second) and policy.allow(70 * second)


@pytest.mark.parametrize("bad", [{"period_s": 0}, {"max_respawns": -1}, {"start_timeout_s": float("nan")}], ids=str)
def test_supervision_refuses(bad):
    with pytest.raises(ConfigError):
        Supervision(**bad)


# ---- the others


def test_in_process_worker_and_device_error():
    worker = ScriptedWorker(Script(**SMALL, faults={1: "device"}))
    assert not worker.alive
    worker.start()
    assert worker.infer_actions(observation(3.0))[0, 0] == 3.0
    with pytest.raises(DeviceError, match="Xid 79"):
        worker.infer_actions(observation())
    assert not worker.alive and worker.status().fault == "F34"
    worker.close()
    assert worker.status().state is WorkerState.CLOSED


def test_scripted_worker_dies_and_revives():
    worker = ScriptedWorker(Script(**SMALL, faults={0: "die"}), sleep=None)
    worker.start()
    with pytest.raises(DeviceError):
        worker.infer_actions(observation())
    assert worker.status().fault == "F32" and not worker.alive
    worker.revive()
    assert worker.infer_actions(observation(1.0))[0, 0] == 1.0 and worker.status().respawns == 1


def test_script_latencies_and_faults():
    slept = []
    worker = ScriptedWorker(Script(**SMALL, latencies_s=(0.1, 0.2), faults={3: "nan", 4: "wild"}), slept.append)
    worker.start()
    chunks = [worker.infer_actions(observation()) for _ in range(5)]
    assert slept == [0.0, 0.1, 0.2, 0.1, 0.2, 0.1]
    assert np.isnan(chunks[3]).any() and chunks[4].min() > 1e5
    with pytest.raises(ConfigError, match="did you mean 'hang'"):
        Script(faults={0: "hung"})


def test_bundled_policy_in_its_own_process_gives_the_same_chunk(start):
    """One model, two homes. Repeated there it is the same bit for bit; here the BLAS may round otherwise, for it chooses its
    code by the alignment of the memory it gets."""
    spec = WorkerSpec(checkpoint=str(POLICY_DIR), hardware="host", warmup_calls=1)
    here, there = InProcessWorker(spec), start(spec)
    info = here.start()
    assert there.info.to_json() | {"warm_s": None} == info.to_json() | {"warm_s": None}
    assert info.views == ("agentview", "wrist") and (info.horizon, info.action_dim, info.state_dim) == (10, 7, 8)
    obs = {"images": [np.full((112, 112, 3), v, np.uint8) for v in (90, 160)], "state": np.zeros(8, np.float32)}
    for k, prompt in enumerate(("pick up the red block", "pick up the blue block")):
        a, b, c = (w.infer_actions({**obs, "prompt": prompt, "seed": k}) for w in (here, there, there))
        assert np.array_equal(b, c) and np.allclose(a, b, atol=1e-5) and np.ptp(a) > 0.5
