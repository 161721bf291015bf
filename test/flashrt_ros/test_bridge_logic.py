"""The simulation bridge without ROS: accounts of commands, pacing, episodes against a scripted node, figures of a run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.event_log import EventFollower, EventWriter
from flashrt_ros.bags.recorder_topics import recorded_topics
from flashrt_ros.config.config_file import load_robot
from flashrt_ros.sim import pacer as pacer_module
from flashrt_ros.sim.commands import CAPACITY, Command, CommandLedger
from flashrt_ros.sim.lockstep import Lockstep, Settings, Stage
from flashrt_ros.sim.pacer import MAX_BEHIND, Pacer
from flashrt_ros.worker import child

PERIOD_NS = 50_000_000


def command(index: int, value: float = 0.0, gripper: float = 1.0) -> Command:
    at = 10**18 + index * PERIOD_NS
    return Command(index, np.array([value] * 6 + [gripper], np.float32), at, at + 400_000)


def fill(ledger: CommandLedger, indices, writer: bytes = b"a") -> None:
    for i in indices:
        ledger.put(writer, command(i))


# ---- accounts


def test_every_index_once_is_sound():
    ledger = CommandLedger()
    fill(ledger, range(5))
    assert [ledger.take().index for _ in range(3)] == [0, 1, 2]
    ledger.close()
    fill(ledger, [5, 6])
    audit = ledger.audit(7)
    assert (audit.published, audit.received, audit.applied, audit.surplus) == (7, 7, 3, 4)
    assert audit.lost_or_repeated == 0 and audit.foreign == 0 and ledger.take() is None


@pytest.mark.parametrize(
    "arrivals, published, lost, repeated",
    [
        ([1, 2, 3], 4, 1, 0),  # the first
        ([0, 1, 3], 4, 1, 0),  # one in the middle
        ([0, 1, 2], 4, 1, 0),  # the last
        ([0, 1, 1, 2], 3, 0, 1),  # one came twice
        ([0, 2, 1, 3], 4, 0, 1),  # out of order
        ([0, 1, 2, 3, 4], 3, 2, 0),  # more than the node says it published
    ],
)
def test_audit_sees_what_is_wrong(arrivals, published, lost, repeated):
    ledger = CommandLedger()
    fill(ledger, arrivals)
    while ledger.take() is not None:
        pass
    audit = ledger.audit(published)
    assert (audit.lost, audit.repeated) == (lost, repeated), audit


def test_command_dropped_before_its_step_is_lost():
    ledger = CommandLedger()
    fill(ledger, range(CAPACITY + 3))
    assert ledger.audit(CAPACITY + 3).lost == 3


def test_other_writers_are_never_executed():
    ledger = CommandLedger()
    fill(ledger, [0], b"a")
    fill(ledger, [0, 1], b"rival")
    ledger.begin()  # the next activation
    fill(ledger, [1], b"a")  # a late one of the last activation
    assert ledger.take() is None and ledger.audit(0).foreign == 1
    fill(ledger, [0], b"b")
    assert ledger.take().index == 0 and ledger.audit(1).lost_or_repeated == 0


def test_wait_ends_with_the_first_command():
    ledger = CommandLedger()
    assert not ledger.wait(0.01)
    threading.Timer(0.05, fill, (ledger, [0])).start()
    assert ledger.wait(5.0) and ledger.first_received_ns == command(0).received_ns


# ---- pace


@pytest.fixture
def steady(monkeypatch):
    """A steady clock that a test moves, in ns."""
    clock = SimpleNamespace(now=10**12)
    monkeypatch.setattr(pacer_module, "time", SimpleNamespace(monotonic_ns=lambda: clock.now))
    return clock


def test_pacer_keeps_absolute_deadlines_and_makes_up_for_late_steps(steady):
    pace, start = Pacer(0.05), steady.now
    assert pace.step() == 0 and pace.deadline_ns == start + PERIOD_NS
    steady.now += 3 * PERIOD_NS + 7_000_000
    assert pace.step() == pytest.approx(107.0) and pace.behind
    assert pace.step() == pytest.approx(57.0) and pace.step() == pytest.approx(7.0)
    assert not pace.behind and pace.deadline_ns == start + 4 * PERIOD_NS and pace.stalls == 0


def test_pacer_starts_anew_after_a_long_stop(steady):
    pace = Pacer(0.05)
    steady.now += (MAX_BEHIND + 1) * PERIOD_NS
    pace.step()
    assert pace.stalls == 1 and pace.deadline_ns == steady.now + PERIOD_NS


def test_pacer_rate_and_phase(steady):
    pace = Pacer(0.05, rate=2.0)
    assert pace.period_ns == PERIOD_NS // 2
    pace.start_at(steady.now + 5_000_000)
    assert pace.left_s() == pytest.approx(0.005)
    pace.start_at(steady.now - 5)
    assert pace.left_s() == 0
    with pytest.raises(ConfigError, match="rate"):
        Pacer(0.05, rate=0)


# ---- episodes


class FakeEnv:
    """Succeeds after `needs` commands with motion; keeps the actions of each episode."""

    max_steps, control_hz = 120, 20

    def __init__(self, needs: int = 3, broken: tuple[int, ...] = ()):
        self.needs, self.broken, self.actions = needs, broken, {}

    def reset(self, seed: int) -> None:
        if seed in self.broken:
            raise RuntimeError("no scene")
        self.seed, self.steps, self.success, self.prompt = seed, 0, False, f"task {seed}"
        self.actions[seed] = []

    def step(self, action: np.ndarray) -> None:
        self.actions[self.seed].append(action.copy())
        self.steps += 1
        self.success = sum(bool(a[0]) for a in self.actions[self.seed]) >= self.needs


class FakeNode:
    """An operator whose node obeys at once. Each activation is a new writer; `tick` publishes its next command."""

    def __init__(self, ledger: CommandLedger):
        self.ledger, self.state, self.prompt, self.problem = ledger, "unconfigured", None, None
        self.log, self.sent, self.epoch, self.obeys = [], 0, 0, True

    def go(self, state: str) -> None:
        self.log.append(state)
        self._target = state
        if not self.obeys:
            return
        if state == "active" and self.state != "active":
            self.sent, self.epoch = 0, self.epoch + 1
        self.state = state

    @property
    def arrived(self) -> bool:
        return self.state == self._target

    @property
    def commands(self) -> int:
        return self.sent

    def tick(self, value: float = 0.5, deliver: bool = True) -> None:
        if self.state == "active":
            if deliver:
                self.ledger.put(b"%d" % self.epoch, command(self.sent, value))
            self.sent += 1


def make(seeds, needs=3, broken=(), settings=None):
    ledger = CommandLedger()
    node, env, done, clock = FakeNode(ledger), FakeEnv(needs, broken), [], SimpleNamespace(s=0.0)

    def on_scene(episode):
        node.prompt = episode.prompt

    sim = Lockstep(
        env, ledger, node, seeds, settings=settings or Settings(), on_scene=on_scene, on_episode=done.append,
        now_s=lambda: clock.s,
    )  # fmt: skip

    def step(value: float | None = 0.5) -> None:
        if value is not None:
            node.tick(value)
        sim.step()
        clock.s += 0.05

    return SimpleNamespace(sim=sim, node=node, env=env, done=done, clock=clock, step=step, ledger=ledger)


def run(rig, most: int = 500) -> None:
    for _ in range(most):
        rig.step()
        if rig.sim.stage is Stage.DONE or rig.sim.fatal:
            return
    raise AssertionError(rig.sim.stage)


def test_episodes_one_activation_each():
    rig = make([7, 8, 9])
    run(rig)
    assert rig.sim.fatal is None
    assert [(e.seed, e.prompt, e.success, e.steps, e.missing) for e in rig.done] == [
        (s, f"task {s}", True, 3, 0) for s in (7, 8, 9)
    ]
    assert rig.node.epoch == 3 and rig.node.log[0] == "inactive" and rig.node.state == "inactive"
    for e in rig.done:
        assert e.indices == [0, 1, 2] and e.audit["lost"] == e.audit["repeated"] == 0
        assert e.audit["published"] == e.audit["received"] >= 3
        assert json.loads(json.dumps(e.to_json(), allow_nan=False))["seed"] == e.seed


def test_scene_stands_still_until_the_first_command():
    rig = make([1])
    for _ in range(40):
        rig.step(None)
    assert rig.sim.stage is Stage.START and rig.env.steps == 0 and rig.sim.waiting_for_command
    rig.step(0.5)
    assert rig.env.steps == 1


def test_step_without_a_command_holds_with_the_same_gripper():
    rig = make([1])
    while rig.env.actions.get(1, []) == []:
        rig.step(0.5)
    rig.step(None)
    held = rig.env.actions[1][-1]
    assert held.tolist() == [0, 0, 0, 0, 0, 0, 1.0] and rig.sim.episode.missing == 1
    assert rig.sim.episode.indices[-1] is None
    run(rig)
    assert rig.done[0].success and rig.done[0].audit["lost"] == 0  # late is not lost


def test_no_command_of_an_episode_reaches_the_next():
    rig = make([1, 2])
    while not rig.done:
        rig.step(0.25)
    while rig.sim.stage is not Stage.RUN:
        rig.ledger.put(b"1", command(99, 0.25))  # a straggler of the first activation
        rig.step(0.75)
    run(rig)
    assert all(a[0] == 0.75 or a[0] == 0.5 for a in rig.env.actions[2])
    assert rig.done[1].audit["foreign"] > 0 and rig.done[1].audit["lost"] == rig.done[1].audit["repeated"] == 0


def test_lost_command_is_counted_after_waiting_for_it():
    rig = make([1], settings=Settings(stop_timeout_s=1.0))
    while rig.env.actions.get(1, []) == []:
        rig.step(0.5)
    rig.node.tick(deliver=False)
    run(rig)
    assert rig.done[0].audit["lost"] == 1 and rig.done[0].success


def test_episode_without_success_ends_at_the_step_limit():
    rig = make([1], needs=10**6)
    run(rig)
    assert not rig.done[0].success and rig.done[0].steps == 120


def test_broken_scene_is_an_error_of_its_own():
    rig = make([1, 2], broken=(1,))
    run(rig)
    assert rig.done[0].error == "RuntimeError: no scene" and rig.done[0].steps == 0
    assert rig.done[1].success and rig.done[1].error is None


def test_gives_up_when_the_node_does_not_get_there():
    rig = make([1], settings=Settings(prepare_timeout_s=1.0))
    rig.node.state, rig.node.obeys = "unconfigured", False
    run(rig)
    assert "inactive" in rig.sim.fatal
    rig = make([1])
    rig.node.problem, rig.node.state = "configure failed: no such checkpoint", "unconfigured"
    run(rig)
    assert "no such checkpoint" in rig.sim.fatal


def test_gives_up_without_commands_and_without_the_prompt():
    rig = make([1], settings=Settings(start_timeout_s=1.0))
    for _ in range(60):
        rig.step(None)
    assert "no command" in rig.sim.fatal
    rig = make([1], settings=Settings(stop_timeout_s=1.0))
    rig.sim._on_scene = lambda episode: None
    run(rig)
    assert "prompt" in rig.sim.fatal


def test_node_that_goes_active_by_itself_is_brought_back():
    rig = make([1])
    rig.step(None)
    assert rig.sim.stage is Stage.SHOW
    rig.node.state = "active"
    for _ in range(10):
        rig.step(None)
    assert rig.sim.stage is Stage.SHOW
    rig.node.state = "inactive"
    run(rig)
    assert rig.done[0].success and rig.done[0].audit["lost"] == 0


# ---- processes and files


def test_recorded_topics_have_their_full_names():
    topics = recorded_topics(load_robot("tabletop"), "policy_node")
    assert topics["/policy_node/action_chunk"] == ("flashrt_ros/msg/ActionChunk", "chunk")
    others = {
        "/agentview/image",
        "/wrist/image",
        "/joint_states",
        "/tabletop/commands",
        "/policy_node/prompt",
        "/clock",
    }
    assert others < set(topics)
    assert not any("joint_trajectory" in t for t in topics)  # the tabletop has no position commands


def test_event_file_is_followed_line_by_line(tmp_path):
    path = tmp_path / "e.jsonl"
    follower = EventFollower(path)
    assert list(follower.news()) == []
    writer = EventWriter(path)
    writer.write("a", n=1)
    with path.open("a") as file:
        file.write('{"event": "hal')
    assert list(follower.news()) == [{"event": "a", "n": 1}]
    with path.open("a") as file:
        file.write('f"}\n')
    assert list(follower.news()) == [{"event": "half"}] and list(follower.news()) == []


SLEEP = ["-n", "1", "-r", "1", "import os,time; print(os.environ.get('X_SET'), flush=True); time.sleep(60)"]


@pytest.mark.parametrize("ours", [signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def test_child_runs_with_settings_and_ends_when_told(tmp_path, ours):
    before = signal.signal(signal.SIGINT, ours)  # a shell's background jobs ignore it, and so do what they start
    try:
        c = child.start("sleeper", "timeit", SLEEP, environment={"X_SET": "yes"}, log=tmp_path / "log")
    finally:
        signal.signal(signal.SIGINT, before)
    until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").stat().st_size, "the child's first word")
    assert c.running and os.getsid(c.pid) == c.pid
    assert c.end() != 0 and not c.running
    assert "KeyboardInterrupt" in c.last_words()


def test_child_that_ignores_the_request_is_killed(tmp_path):
    words = [
        "-n",
        "1",
        "-r",
        "1",
        "import signal,time; signal.signal(2, signal.SIG_IGN); print(1, flush=True); time.sleep(60)",
    ]
    c = child.start("deaf", "timeit", words, environment={}, log=tmp_path / "log")
    until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").stat().st_size, "the child's first word")
    assert c.end(patience_s=0.2) == -signal.SIGKILL


def test_child_does_not_outlive_its_parent(tmp_path):
    text = (
        "import sys, time; from pathlib import Path; from flashrt_ros.worker.child import start\n"
        f"c = start('s', 'timeit', {SLEEP!r}, environment={{}}, log=Path({str(tmp_path / 'log')!r}))\n"
        "print(c.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
        until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").stat().st_size, "the child's first word")
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    until(lambda: not alive(pid), "the child's end")


def alive(pid: int) -> bool:
    try:
        state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(condition, what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.02)
