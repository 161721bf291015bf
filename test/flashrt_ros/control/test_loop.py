"""The control loop in lock step with a fake clock: what each level does, what each operator call does."""

import itertools

import numpy as np
import pytest
from support.loop_rig import HZ, SIDE, VIEWS, LoopRig, arm, script

from flashrt_core.errors import ConfigError, DeviceError, ObservationError
from flashrt_ros.config.settings import ActionDim
from flashrt_ros.control.health import Level
from flashrt_ros.control.loop import Mode
from flashrt_ros.control.plan_limits import PlanLimits

T = 1 / HZ


def values(records) -> list[float]:
    return [float(r.command[0]) for r in records]


def go(rig: LoopRig, ticks: int) -> list:
    return [rig.tick() for _ in range(ticks)]


# ---- serving


def test_serves_every_row_of_the_plan_once():
    rig = LoopRig(0.06).activate()
    records = go(rig, 400)
    assert [r.seq for r in records] == list(range(400)), "one command per tick, no gap"
    assert values(records[30:]) == list(range(30, 400))
    assert rig.loop.counters.index_errors == 0 and rig.active() == set() and rig.loop.outlet.held == 3
    chunks = [r for r in records if r.source == "chunk"]
    for a, b in itertools.pairwise(chunks):
        assert b.row == a.row + 1 if b.chunk == a.chunk else b.chunk == a.chunk + 1
    stats = rig.loop.stats()
    assert stats["swaps"] + 1 == rig.loop.counters.chunks == 1 + chunks[-1].chunk


def test_index_errors_are_counted():
    """The count is able to fail: a runner that loses a tick behind our back is caught, with and without a request."""
    for when in (8, 14):
        rig = LoopRig(0.06).activate()
        go(rig, when)
        rig.runner.next_action(None, block_if_empty=False)  # an index nobody published
        go(rig, 40)
        assert rig.loop.counters.index_errors == 1, when


def test_anchor_is_held_until_the_first_chunk():
    rig = LoopRig(0.1, robot=arm(), follow=True)
    rig.arm.q = np.array([0.3, -0.2])
    rig.activate()
    records = go(rig, 12)
    assert [r.source for r in records] == ["anchor"] * 5 + ["chunk"] * 7
    assert np.allclose([r.command for r in records[:5]], [[0.3, -0.2]] * 5, atol=1e-6)


def test_no_chunk_at_all_holds_the_anchor_for_ever():
    rig = LoopRig(0.0, play=script(faults=dict.fromkeys(range(100), "exception"))).activate()
    assert set(values(go(rig, 100))) == {0.0} and rig.loop.counters.chunks == 0


def test_sinks_get_chunks_as_they_will_be_served():
    rig = LoopRig(0.06).activate()
    go(rig, 100)
    by_seq = {r.seq: r for r in rig.record.records}
    assert len(rig.record.chunks) == rig.loop.counters.chunks > 5
    for plan, following in itertools.pairwise(rig.record.chunks):
        for i in range(following.seq - plan.seq):
            assert np.array_equal(plan.rows[i], by_seq[plan.seq + i].command)
        assert plan.rows.shape == (20 - plan.executed, 2) and plan.period_s == T
        assert plan.observation.prompt == "go" and plan.executed == by_seq[plan.seq].row


def test_plan_limits():
    robot = arm(v_max=10.0, span=5.0)
    limits = PlanLimits(robot, 0.1)
    rows = np.array([[0.0, 4.0], [3.0, 6.0], [3.5, 5.5], [3.6, 4.0]])
    assert limits.apply(rows).tolist() == [[0, 4], [1, 5], [1.5, 4.5], [1.6, 3.5]]
    quiet = np.array([[0.0, 0.0], [0.5, 1.0]])
    assert limits.apply(quiet).tolist() == quiet.tolist()


def test_plan_limits_of_deltas_and_choices():
    robot = arm()
    dims = (
        ActionDim(name="j0", kind="delta", lower=-1, upper=1, v_max=5.0),
        ActionDim(name="j1", kind="discrete", lower=-1, upper=1, values=(-1.0, 1.0)),
    )
    robot = type(robot)(**{**vars(robot), "actions": dims})
    out = PlanLimits(robot, 0.1).apply(np.array([[0.0, 1.0], [0.9, 0.2], [-0.9, -0.2]]))
    assert out.tolist() == [[0, 1], [0.5, 1], [-0.5, -1]]


# ---- levels


def test_stopped_cameras_coast_to_the_end_of_the_chunk_then_hold():
    rig = LoopRig(0.0, play=script(horizon=60), config={"a_max": 500.0}).activate()
    go(rig, 50)
    rig.cameras = {"wrist"}
    records = go(rig, 120)
    kinds = ["chunk" if r.source == "chunk" else "hold" for r in records]
    first = kinds.index("hold")
    assert kinds == ["chunk"] * first + ["hold"] * (120 - first) and first > 25, "the valid rest is executed"
    coast = [x for x in rig.levels[50:] if x == Level.COAST]
    assert coast and rig.levels[-1] == Level.HOLD and rig.health.active["F02"] == Level.HOLD
    _, _, a = rig.arm.motion()
    assert np.abs(a[60:]).max() <= 500.0 * 1.001 and rig.arm.at_rest(20)
    rig.cameras = set(VIEWS)
    resumed = go(rig, 20)
    assert rig.active() <= {"F03"} and resumed[-1].source == "chunk" and rig.loop.counters.index_errors == 0


def test_lost_state_holds_within_its_bound():
    """F15: 50 ms + T."""
    rig = LoopRig(0.0, play=script(horizon=60)).activate()
    go(rig, 40)
    rig.joints = False
    records = go(rig, 10)
    first = next(i for i, r in enumerate(records) if r.source == "hold")
    assert first * T <= 0.05 + 2 * T and rig.health.active["F15"] == Level.HOLD
    assert rig.arm.at_rest(3)
    rig.joints = True
    resumed = go(rig, 20)
    sources = [r.source for r in resumed]
    assert sources.index("chunk") == 4, "in the fifth good cycle"
    assert resumed[4].row == 0 and rig.loop.counters.index_errors == 0 and not rig.active()


def test_hold_of_the_loop_decelerates_along_the_last_command():
    rig = LoopRig(0.0, play=script(horizon=60), config={"a_max": 500.0}).activate()
    go(rig, 40)
    rig.inputs.put_state(rig.robot.state_names, [5e5, 0.0], 1)  # teleport (F19): a hold at once
    record = rig.tick()
    assert record.source == "hold" and record.level == Level.HOLD
    go(rig, 4)
    assert np.allclose(np.diff(values(list(rig.record.records)[39:]))[:5], [0.8, 0.6, 0.4, 0.2, 0.0])
    after = go(rig, 20)
    assert after[-1].source == "chunk" and not rig.active()


def test_after_a_hold_the_arm_waits_where_it_came_to_rest(monkeypatch):
    rig = LoopRig(0.1, play=script(horizon=60), config={"a_max": 500.0}).activate()
    anchors, reset = [], rig.runner.reset
    monkeypatch.setattr(rig.runner, "reset", lambda anchor: anchors.append(anchor) or reset(anchor=anchor))
    go(rig, 40)
    rig.joints = False
    go(rig, 20)
    rig.joints = True
    rest = rig.record.records[-1].command
    waiting = [r for r in go(rig, 9) if r.source != "chunk"]
    assert len(waiting) > 6 and all(np.array_equal(r.command, rest) for r in waiting) and rig.levels[-1] < Level.HOLD
    assert np.array_equal(anchors[-1], rest), "the runner plans from there too"
    assert go(rig, 5)[-1].row >= 0


def test_hold_until_the_operator_says_so():
    rig = LoopRig(0.0, auto_resume=False).activate()
    go(rig, 30)
    rig.joints = False
    go(rig, 10)
    rig.joints = True
    assert {r.source for r in go(rig, 50)} == {"hold"} and rig.levels[-1] == Level.HOLD
    rig.loop.resume()
    assert go(rig, 3)[-1].source == "chunk" and not rig.active()


def test_policy_side_holds_wait_for_the_operator_too():
    rig = LoopRig(lambda n: 0.7 if n == 3 else 0.0, auto_resume=False).activate()
    go(rig, 200)
    assert rig.record.records[-1].source == "hold" and rig.health.active == {"F22": Level.HOLD}
    rig.loop.resume()
    assert go(rig, 5)[-1].source == "chunk"


def test_stop_holds_and_asks_for_deactivation_once_at_rest():
    rig = LoopRig(0.0, config={"a_max": 500.0}).activate()
    go(rig, 30)
    rig.health.raise_("F18", "second publisher")
    assert rig.tick().source == "hold" and rig.loop.request is None
    go(rig, 6)
    assert rig.loop.request == "deactivate" and rig.arm.at_rest(1)
    assert len([r for r in go(rig, 50) if r.source == "hold"]) == 50, "no way back by itself"
    rig.loop.deactivate()
    rig.tick()
    assert rig.loop.mode is Mode.INACTIVE and rig.loop.wait_inactive(0)
    rig.activate()
    assert rig.loop.request is None and not rig.active(), "the operator's activate ends a stop"
    assert go(rig, 30)[-1].source == "chunk"


def test_exit_asks_for_exit():
    rig = LoopRig(0.0).activate()
    go(rig, 30)
    rig.health.raise_("F69", "SIGTERM")
    go(rig, 10)
    assert rig.loop.request == "exit" and rig.arm.at_rest(3)


def test_stop_before_anything_was_sent_holds_the_anchor():
    rig = LoopRig(0.0).activate()
    rig.health.raise_("F18", "second publisher")
    records = go(rig, 3)
    assert [r.source for r in records] == ["hold"] * 3 and set(values(records)) == {0.0}
    assert rig.loop.request == "deactivate"


# ---- what the operator does


@pytest.mark.parametrize(
    ("breaks", "error", "words"),
    [
        (lambda rig: rig.worker.close(), DeviceError, "expected ready"),
        (lambda rig: rig.inputs.images["front"].reset(), ObservationError, "F02"),
        (lambda rig: rig.inputs.state_slot.reset(), ObservationError, "F15"),
        (lambda rig: rig.inputs.put_image("front", SIDE, SIDE, "16UC1", 2 * SIDE, bytes(128), 1), ObservationError, "F05"),
        (lambda rig: setattr(rig.inputs.prompt_slot, "text", ""), ObservationError, "prompt"),
    ],
)  # fmt: skip
def test_activate_refuses_what_is_not_ready(breaks, error, words):
    rig = LoopRig(0.0)
    rig.see()
    breaks(rig)
    with pytest.raises(error, match=words):
        rig.loop.activate()
    assert rig.loop.mode is Mode.INACTIVE and rig.tick() is None
    if error is ObservationError:
        rig.inputs.put_prompt("go")
        rig.activate()
        assert rig.tick() is not None


def test_activate_refuses_a_robot_outside_its_limits():
    rig = LoopRig(0.0, robot=arm(span=10.0, anchor_gap=0.05))
    rig.see()
    with pytest.raises(ObservationError, match="outside its limits"):
        rig.loop.activate(np.array([11.0, 0.0]))
    rig.loop.activate(np.array([9.0, 0.0]))
    with pytest.raises(ConfigError, match="an inactive control loop"):
        rig.loop.activate()


def test_deactivate_comes_to_rest_and_then_is_silent():
    rig = LoopRig(0.0, config={"a_max": 500.0}).activate()
    go(rig, 30)
    rig.loop.deactivate()
    assert not rig.loop.wait_inactive(0)
    records = go(rig, 20)
    assert [r.source for r in records if r] == ["hold"] * 5 and records[5:] == [None] * 15
    assert rig.loop.wait_inactive(0) and rig.loop.mode is Mode.INACTIVE
    _, _, a = rig.arm.motion()
    assert np.abs(a[2:]).max() <= 500.0 * 1.001 and rig.arm.at_rest(15)
    rig.loop.deactivate()  # again: nothing
    assert rig.loop.mode is Mode.INACTIVE


def test_deactivate_before_the_first_tick():
    rig = LoopRig(0.0).activate()
    rig.loop.deactivate()
    assert rig.loop.wait_inactive(0) and rig.tick() is None


def test_takeover_is_silent_and_release_starts_from_where_the_robot_is():
    """F21, bound 2T."""
    rig = LoopRig(0.0, robot=arm(anchor_gap=2.0), follow=True).activate()
    go(rig, 30)
    rig.loop.takeover()
    assert go(rig, 10) == [None] * 10 and rig.health.active == {"F21": Level.HOLD}
    rig.arm.q = rig.arm.target = np.array([-40.0, -40.0])  # moved by hand
    rig.tick()
    rig.joints = False
    rig.clock.advance(1.0)
    with pytest.raises(ObservationError, match="F01"):
        rig.loop.release()
    assert rig.loop.mode is Mode.TAKEN and rig.tick() is None
    rig.joints = True
    rig.see()
    rig.loop.release()
    records = go(rig, 30)
    assert records[0] is not None and np.abs(records[0].command - -40.0).max() <= 2.0
    assert not rig.active() and records[-1].source == "chunk" and rig.loop.counters.index_errors == 0
    seqs = [r.seq for r in rig.record.records]
    assert seqs == list(range(len(seqs)))


def test_release_refuses_a_first_command_far_away():
    rig = LoopRig(0.0, robot=arm(anchor_gap=0.05), play=script(constant=0.0)).activate()
    rig.loop.takeover()
    go(rig, 2)
    with pytest.raises(ConfigError, match="that was taken over"):
        LoopRig(0.0).loop.release()
    rig.see()
    rig.loop.release(np.array([30.0, 30.0]))
    records = go(rig, 10)
    assert {float(r.command[0]) for r in records} == {30.0} and "F21" in rig.health.active
    assert "chunk" not in {r.source for r in records}
    assert not rig.record.chunks, "what the guard refuses is not announced to outputs that send it ahead"


def test_F21_release_takes_over_from_whom_was_a_second_publisher():
    """A teleoperation that commands on our topic is F18, a stop: it must not outlive the takeover."""
    rig = LoopRig(0.0).activate()
    go(rig, 10)
    rig.loop.takeover()
    for _ in range(5):
        rig.health.raise_("F18", "teleop publishes too")
        rig.tick()
    assert rig.health.active == {"F21": Level.HOLD, "F18": Level.STOP} and rig.loop.request is None
    rig.see()
    rig.loop.release()
    records = go(rig, 20)
    assert not rig.active() and rig.loop.request is None and records[-1].source == "chunk"
    rig.loop.takeover()
    rig.tick()
    rig.see()
    rig.loop.release()
    rig.health.raise_("F18", "teleop publishes still")
    go(rig, 5)
    assert rig.loop.request == "deactivate", "one that goes on publishing stops the arm"


@pytest.mark.parametrize("how", ["deactivate", "takeover", ""])
def test_without_ticks_it_can_be_abandoned_and_activated_anew(how):
    """Simulated time may stand still before the arm is at rest: the next activation must not find a loop that still ends."""
    rig = LoopRig(0.0).activate()
    go(rig, 30)
    if how:
        getattr(rig.loop, how)()
    assert not rig.loop.wait_inactive(0)
    rig.loop.abandon()
    assert rig.loop.wait_inactive(0) and rig.tick() is None
    rig.loop.abandon()
    assert go(rig.activate(), 10)[-1].source == "chunk"


def test_takeover_then_deactivate():
    rig = LoopRig(0.0).activate()
    go(rig, 5)
    rig.loop.takeover()
    rig.loop.deactivate()
    assert rig.loop.wait_inactive(0) and rig.tick() is None


def test_settings_at_run_time():
    rig = LoopRig(0.06, robot=arm()).activate()
    go(rig, 20)
    rig.loop.set_splice("quintic", 5)
    go(rig, 30)
    assert [e.blend for e in rig.runner.events if e.kind == "switch"][-1] == 5
    for bad in ({"splice": "quintik"}, {"splice": "linear", "blend_ticks": -1}):
        with pytest.raises(ConfigError):
            rig.loop.set_splice(**bad)
    rig.loop.set_limits(arm(v_max=10.0))
    go(rig, 20)
    _, v, _ = rig.arm.motion()
    assert np.abs(v[-15:]).max() <= 10.0 * (1 + 1e-9) and rig.loop.outlet.clamped > 0
    with pytest.raises(ConfigError):
        rig.loop.set_limits(arm(joints=3))
    with pytest.raises(ConfigError, match="target_hz"):
        rig.runner.reconfigure(target_hz=10.0)


# ---- never raises, never waits


class BrokenSink:
    def command(self, record):
        raise OSError("no space left")

    def chunk(self, plan):
        raise OSError("no space left")


def test_a_sink_that_raises_stops_the_arm_and_spares_the_other_sinks(caplog):
    rig = LoopRig(0.0, sinks=[BrokenSink()]).activate()
    records = go(rig, 10)
    assert all(r is not None for r in records) and len(rig.record.records) == 10
    assert rig.health.active == {"internal_error": Level.STOP} and rig.loop.request == "deactivate"
    assert rig.loop.outlet.sink_errors >= 10 and "no space left" in caplog.text


@pytest.mark.parametrize(
    "part", ["inputs.faults", "inputs.snapshot", "health.cycle", "runner.next_action", "worker.status"]
)
def test_an_error_of_our_own_becomes_a_stop(part, monkeypatch):
    rig = LoopRig(0.0).activate()
    go(rig, 12)
    owner, name = part.split(".")

    def broken(*args, **kwargs):
        raise ZeroDivisionError("broken")

    monkeypatch.setattr(getattr(rig, owner), name, broken)
    records = go(rig, 20)
    assert rig.loop.counters.internal_errors >= 1
    if part == "health.cycle":  # not even the level is known
        assert rig.loop.request == "exit"
        return
    assert records[-1].source == "hold" and rig.arm.at_rest(3)
    assert rig.health.active["internal_error"] == Level.STOP and rig.loop.request == "deactivate"


def test_a_closed_runner_ends_the_loop():
    rig = LoopRig(0.0).activate()
    go(rig, 5)
    rig.runner.close()
    assert rig.tick() is None and rig.loop.wait_inactive(0)


def test_a_full_event_log_of_the_runner_loses_no_fault():
    rig = LoopRig(0.0, play=script(faults={5: "nan"}), config={"event_log": 2}).activate()
    go(rig, 200)
    assert rig.health.counters == {"chunk_not_finite": 1} and rig.loop.counters.index_errors == 0
