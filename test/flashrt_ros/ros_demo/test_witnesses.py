"""Figures of a run over DDS, from made-up events and recordings: lateness, plans, the join of both witnesses, the summary."""

import json

import numpy as np
import pytest

from flashrt_ros.evaluation.closed_loop import LoopSettings
from flashrt_ros.evaluation.rollout import Rollout
from flashrt_ros.ros_demo import witnesses as ros_run
from flashrt_ros.ros_demo.ros_summary import page_parts, ros_summary, spread

PERIOD_NS = 50_000_000


def test_lateness_against_the_best_grid():
    late = [0, 3, 1, 12, 0.5]
    sent = [10**18 + i * PERIOD_NS + int(x * 1e6) for i, x in enumerate(late)]
    assert ros_run.lateness_ms(sent, 0.05) == pytest.approx(late, abs=1e-3)
    del sent[3]  # a tick that the node skipped
    assert ros_run.lateness_ms(sent, 0.05, skipped=1) == pytest.approx([0, 3, 1, 0.5], abs=1e-3)
    assert ros_run.lateness_ms([], 0.05) == []


def test_following_a_plan_sees_shifts_and_forgives_holds():
    plan = np.arange(10, dtype=np.float32)[:, None] + np.ones((1, 7), np.float32)
    assert ros_run.follow(plan, list(plan)) == (10, 0)
    assert ros_run.follow(plan, list(plan[:4])) == (4, 0)
    hold = [plan[0], plan[1], plan[1] * 0.75, plan[1] * 0.5]
    assert ros_run.follow(plan, hold) == (2, 0)
    assert ros_run.follow(plan, [plan[0], plan[1], plan[3]]) == (2, 1)  # row 2 is lost
    assert ros_run.follow(plan, [plan[0], plan[1], plan[1]]) == (2, 1)  # row 1 is repeated
    assert ros_run.follow(plan, [*plan, plan[9] * 0]) == (10, 0)  # used up


def made_run(lost: int = 0):
    """Rows of the simulation, a recording and the episodes made of both: two chunks, one held step."""
    plan = np.linspace(-1, 1, 7 * 8, dtype=np.float32).reshape(8, 7)
    sent = [10**18 + i * PERIOD_NS for i in range(8)]
    rows = [{
        "seed": 5, "prompt": "lift", "success": True, "steps": 9, "missing": 1, "waited_max": 1, "error": None,
        "commands": [*plan[:4].tolist(), [0.0] * 7, *plan[4:].tolist()], "indices": [0, 1, 2, 3, None, 4, 5, 6, 7],
        "sent_ns": sent, "received_ns": [t + 400_000 for t in sent],
        "ended_ns": sent[-1] + 400_000, "started_ns": sent[0] + 400_000,
        "audit": {"published": 8, "received": 8, "applied": 8, "surplus": 0, "lost": lost, "repeated": 0, "foreign": 0},
        "node": {"skipped": 0, "tick_late_p50_ms": 0.1, "tick_late_p99_ms": 2.0, "tick_late_max_ms": 3.0},
    }]  # fmt: skip
    chunks = [
        ros_run.Chunk(sent[0] + 1, sent[0] - 30_000_000, 0, 0, plan[:6], 20.0, None),
        ros_run.Chunk(sent[4] + 1, sent[3] - 24_000_000, 4, 1, plan[4:], 21.0, 0.1),
    ]
    recording = ros_run.Recording([(t + 1000, plan[i]) for i, t in enumerate(sent)], chunks, {})
    return rows, recording


def test_run_is_joined_from_both_witnesses():
    rows, recording = made_run()
    run = ros_run.join(rows[0], recording, 0.05, False)
    e = run.episode
    assert (e.switch_ticks, e.executed, e.elapsed) == ([5], [1], [1]) and e.disagreements == [0.1]
    assert e.model_ms == [20.0, 21.0] and e.tick_misses == 1 and run.start_ticks == 0
    assert run.image_age_ms == pytest.approx([24.0]) and run.transport_ms == pytest.approx([0.4] * 8)
    assert (run.bag_mismatches, run.plan_mismatches) == (0, 0)
    rows, recording = made_run()
    recording.commands[2] = (recording.commands[2][0], recording.commands[3][1])
    assert ros_run.join(rows[0], recording, 0.05, False).bag_mismatches == 1
    rows, recording = made_run()
    rows[0]["commands"][2] = rows[0]["commands"][1]
    assert ros_run.join(rows[0], recording, 0.05, False).plan_mismatches == 1


def test_summary_and_page_parts():
    rows, recording = made_run(lost=2)
    runs = [ros_run.join(rows[0], recording, 0.05, False)]
    recorder = {"/a": {"messages": 3, "lost": 0, "repeated": 0, "delay_ms": {"p50": 1.0, "p95": 1.0, "p99": 1.0}}}
    what = Rollout(loop=LoopSettings(realtime=True))
    r = ros_summary(runs, rows, what, 5, 1.0, {"stalls": 0}, recorder, {"rate": 1.0})
    json.dumps(r, allow_nan=False)
    assert r["lost_or_repeated_actions"] == 2 and r["actions"]["applied"] == 8 and r["held_steps"] == 1
    assert set(r["tick_lateness_ms"]) == {"p50", "p99", "p999", "max"} and set(r["image_age_ms"]) == {
        "p50",
        "p95",
        "p99",
    }
    assert (
        r["transport_delay_ms"]["command"]["p50"] == pytest.approx(0.4) and r["transport_delay_ms"]["a"]["p50"] == 1.0
    )
    assert r["successes"] == 1 and r["rows"][0]["seed"] == 5
    parts = page_parts(r, runs)
    assert ("Lost or repeated actions", "2") == parts.figures[0][:2] and len(parts.sections) == 4
    assert spread([])["max"] is None
