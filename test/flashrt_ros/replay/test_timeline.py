"""Ticks lie on the grid of the first command, inputs come before the ticks that may see them, pauses end episodes."""

import itertools

import numpy as np
import pytest

from flashrt_ros.replay.timeline import Command, Input, Tick, Timeline

T, GAP = 50, 500


def play(messages) -> list:
    """Inputs as their time, ticks as (episode, tick, time, command's first number or None)."""
    out = []
    for event in Timeline(T, GAP).events(messages):
        if isinstance(event, Tick):
            out.append((event.episode, event.tick, event.at_ns, None if event.command is None else float(event.command[0])))
        else:
            out.append(event.at_ns)
    return out


def command(at: int, value: float) -> Command:
    return Command(at, np.array([value]))


def ticks(messages) -> list:
    return [e for e in play(messages) if isinstance(e, tuple)]


def test_inputs_come_before_the_tick_of_the_same_time():
    events = play([Input(90, "a"), Input(100, "b"), command(100, 0), Input(120, "c"), command(150, 1), Input(151, "d")])
    assert events == [90, 100, (0, 0, 100, 0.0), 120, (0, 1, 150, 1.0), 151]


def test_jitter_does_not_move_the_grid():
    times = [1000, 1062, 1091, 1155, 1203]
    assert ticks([command(t, i) for i, t in enumerate(times)]) == [(0, i, 1000 + i * T, float(i)) for i in range(5)]


def test_the_nearest_command_counts_and_a_missing_one_is_none():
    got = ticks([command(0, 0), command(40, 1), command(51, 2), command(70, 3), command(200, 4)])
    assert got == [(0, 0, 0, 0.0), (0, 1, 50, 2.0), (0, 2, 100, None), (0, 3, 150, None), (0, 4, 200, 4.0)]


def test_a_pause_ends_the_episode_and_its_ticks():
    got = ticks([command(0, 0), command(50, 1), command(50 + GAP, 2), command(1000 + GAP, 3), command(1050 + GAP, 4)])
    assert [g[:2] for g in got] == [(0, k) for k in range(12)] + [(1, 0), (1, 1)]
    assert got[11][3] == 2.0 and got[12][2:] == (1000 + GAP, 3.0)


def test_inputs_of_a_pause_are_given_out_as_they_come():
    messages = [command(0, 0), Input(10, "a"), Input(GAP + 5, "b")]
    seen = []
    stream = Timeline(T, GAP).events(iter(messages))
    for event in stream:
        seen.append(event.at_ns)
    assert seen == [0, 10, GAP + 5]


def test_memory_is_bounded_by_the_gap():
    timeline = Timeline(T, GAP)
    waiting = []

    def messages():
        yield command(0, 0)
        for t in range(1, 100_000):
            waiting.append(len(timeline._pending))
            yield Input(t, None)

    assert sum(1 for _ in timeline.events(messages())) == 100_000
    assert max(waiting) <= GAP + 1


def test_no_command_no_tick():
    assert play([Input(1, "a"), Input(2, "b")]) == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_every_input_once_in_order_and_ticks_count_up(seed):
    rng = np.random.default_rng(seed)
    at, messages = 0, []
    for _ in range(400):
        at += int(rng.choice([5, 20, 60, 900], p=[0.5, 0.3, 0.18, 0.02]))
        messages.append(command(at, 1.0) if rng.random() < 0.4 else Input(at, "x"))
    events = play(messages)
    assert [e for e in events if not isinstance(e, tuple)] == [m.at_ns for m in messages if isinstance(m, Input)]
    last = {}
    for episode, tick, _, _ in ticks(messages):
        assert tick == last.get(episode, -1) + 1
        last[episode] = tick
    times = [e[2] if isinstance(e, tuple) else e for e in events]
    assert all(a <= b for a, b in itertools.pairwise(times))
