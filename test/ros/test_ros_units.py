"""Parts of the node that need messages but no other process: conversions, sinks, ticks of simulated time, transitions."""

from __future__ import annotations

import math
import sys
import time
import types

import numpy as np
import pytest
from rig_ros import BENCH, until

from flashrt_core.errors import ConfigError
from flashrt_ros import convert
from flashrt_ros.config.config_file import load_robot
from flashrt_ros.config.settings import NodeConfig
from flashrt_ros.control.health import Level
from flashrt_ros.control.tick_record import PlannedChunk, TickRecord
from flashrt_ros.sim_time import SimTicker
from flashrt_ros.sinks import ChunkSink, ForwardSink, TrajectorySink

ROBOT = load_robot(BENCH)
SPEC = NodeConfig(control_hz=50.0).runner_config(ROBOT).spec


class Seen:
    stamp_ns, seq = 1_500_000_007, 42


def plan(rows: np.ndarray, **changes) -> PlannedChunk:
    values = dict(chunk=3, seq=70, executed=2, rows=rows, period_s=0.02, observation=Seen(), latency_s=0.05)
    return PlannedChunk(**{**values, **changes})


def record(command, source: str = "chunk") -> TickRecord:
    return TickRecord(0, 0, np.asarray(command, dtype=float), source, Level.OK)


@pytest.mark.parametrize("ns", [0, 1, 999_999_999, 10**9, 1_795_247_571_472_728_663])
def test_times_go_both_ways(ns):
    assert convert.stamp_ns(convert.to_time(ns)) == ns


def test_times_that_a_message_cannot_hold_are_cut():
    assert convert.stamp_ns(convert.to_time(-5)) == 0
    assert convert.to_time(2**31 * 10**9).sec == 2**31 - 1


def test_chunk_message_is_the_plan():
    rows = np.arange(12, dtype=np.float64).reshape(4, 3) / 7
    sent = []
    ChunkSink(sent.append, ROBOT).chunk(plan(rows, disagreement=0.25))
    message = sent[0]
    assert np.array_equal(np.frombuffer(message.data, np.float32).reshape(4, 3), rows.astype(np.float32))
    assert (message.chunk, message.observation, message.first_command, message.executed) == (3, 42, 70, 2)
    assert convert.stamp_ns(message.header.stamp) == 1_500_000_007 and message.disagreement == 0.25
    ChunkSink(sent.append, ROBOT).chunk(plan(rows))
    assert math.isnan(sent[1].disagreement)


def test_forward_sends_each_command_and_no_chunk():
    sent = []
    sink = ForwardSink(sent.append)
    sink.command(record([1.0, 2.0, 3.0]))
    sink.chunk(plan(np.zeros((2, 3))))
    assert len(sent) == 1 and list(sent[0].data) == [1.0, 2.0, 3.0] and sent[0].layout.dim[0].size == 3


def test_trajectory_is_what_joint_trajectory_controller_takes():
    sent = []
    now = 77_000_000_000
    sink = TrajectorySink(sent.append, ROBOT, SPEC, lambda: now)
    rows = np.linspace(0, 0.1, 10)[:, None] * np.ones(3)
    sink.chunk(plan(rows))
    message = sent[0]
    times = [p.time_from_start.sec * 10**9 + p.time_from_start.nanosec for p in message.points]
    assert times[0] > 0 and np.all(np.diff(times) > 0)  # strictly increasing
    assert convert.stamp_ns(message.header.stamp) + times[-1] > now  # the end is in the future
    assert message.joint_names == list(ROBOT.position_names)
    assert all(len(p.positions) == 3 and not p.velocities and not p.accelerations and not p.effort for p in message.points)
    path = np.array([p.positions for p in message.points])
    assert np.allclose(path[:10], rows) and len(path) > 10
    speed = np.diff(path, axis=0)[9:] / 0.02
    assert np.abs(speed[-1]).max() < 1e-9 and np.all(np.abs(np.diff(speed, axis=0)) / 0.02 <= 10.0 * 1.001)  # to rest


def test_trajectory_follows_a_hold_step_by_step_and_says_each_once():
    sent = []
    sink = TrajectorySink(sent.append, ROBOT, SPEC, lambda: 0)
    for value, source in ((0.1, "chunk"), (0.11, "hold"), (0.115, "hold"), (0.115, "hold"), (0.2, "chunk"), (0.115, "hold")):
        sink.command(record([value] * 3, source))
    assert [m.points[0].positions[0] for m in sent] == [0.11, 0.115, 0.115]
    assert all(len(m.points) == 1 for m in sent)


def test_trajectory_needs_position_commands():
    with pytest.raises(ConfigError, match="position commands"):
        TrajectorySink(print, load_robot("tabletop"), SPEC, lambda: 0)


class TestSimTicker:
    def run(self, times: list[int]) -> list[tuple[int, float, int]]:
        """(time, late_s, skipped) of each tick while time takes these values, in ms."""
        now, ticks = [0], []
        ticker = SimTicker(lambda late, skipped: ticks.append((now[0] // 10**6, late, skipped)), 0.02, lambda: now[0])
        ticker.start()
        for at in times:
            now[0] = at * 10**6
            ticker.notify()
            time.sleep(0.03)
        assert ticker.stop() and not ticker.running
        return ticks

    def test_ticks_at_deadlines_only(self):
        assert [t for t, _, _ in self.run([100, 105, 119, 120, 121, 140])] == [100, 120, 140]

    def test_skips_and_never_bursts(self):
        assert self.run([100, 175]) == [(100, 0.0, 0), (175, pytest.approx(0.015), 2)]

    def test_nothing_while_time_is_unknown_or_stands_still(self):
        assert self.run([0, 0]) == [] and [t for t, _, _ in self.run([100, 100, 100])] == [100]

    def test_a_jump_back_starts_a_new_grid_with_one_tick(self):
        assert [t for t, _, _ in self.run([100, 120, 50, 60, 70])] == [100, 120, 50, 70]


def test_F73_broken_bond_is_a_hold_when_configured(probe, monkeypatch):
    """With a stand-in for bondpy (double), which the wheels do not have."""
    bonds = []

    class Bond:
        def __init__(self, topic, name, node, on_broken=None, on_formed=None):
            self.what, self.on_broken, self.open = (topic, name), on_broken, False
            bonds.append(self)

        def start(self):
            self.open = True

        def shutdown(self):
            self.open = False
            self.on_broken()  # as bondpy does

    package, module = types.ModuleType("bondpy"), types.ModuleType("bondpy.bondpy")
    module.Bond = Bond
    monkeypatch.setitem(sys.modules, "bondpy", package)
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", module)
    from flashrt_ros.bond import ManagerBond

    told = []
    bond = ManagerBond(probe.node, lambda: told.append(1))
    assert bonds[0].open and bonds[0].what == ("/bond", "probe") and not bond.broken
    bonds[0].on_broken()
    assert bond.broken and told == [1]
    other = ManagerBond(probe.node, lambda: told.append(2))
    other.close()  # our own end of it is no loss
    assert not other.broken and told == [1]


def test_F73_hold_on_bond_loss_without_bondpy_is_refused(probe):
    from flashrt_ros.bond import ManagerBond

    if "bondpy" not in sys.modules:
        with pytest.raises(ConfigError, match="bondpy"):
            ManagerBond(probe.node, print)


def test_transitions_do_not_keep_the_executor_busy(probe):
    """While a transition runs in its thread the executor sleeps: it is no busy loop."""
    from rclpy.lifecycle import TransitionCallbackReturn

    from flashrt_ros.transitions import CONFIGURE, ThreadedLifecycleNode

    class Slow(ThreadedLifecycleNode):
        def on_configure(self, state):
            time.sleep(1.0)
            return TransitionCallbackReturn.SUCCESS

    node = Slow("slow_transition", context=probe.context)
    probe.executor.add_node(node)
    used = time.process_time()
    node.change_soon(CONFIGURE)
    until(lambda: node.lifecycle == "inactive", 5)
    assert time.process_time() - used < 0.5
    probe.executor.remove_node(node)
    node.destroy_node()
