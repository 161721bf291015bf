"""Requests are made when the node would make them, errors are those of the record, and what cannot be asked is counted."""

from dataclasses import replace

import numpy as np
import pytest
from support.replay_bags import (
    IMAGE,
    PROMPT_TOPIC,
    START_NS,
    STATE,
    TEXT,
    Recording,
    arm_recording,
    arm_robot,
    image,
    scripted_settings,
    state,
    text,
)  # fmt: skip

from flashrt_ros.replay.compare import variant
from flashrt_ros.replay.run import Player, check_bags
from flashrt_ros.replay.session import Asker

ROBOT = arm_robot()
T = 50_000_000


def play(tmp_path, recording, settings, **kwargs):
    bag = recording.write(tmp_path / "bag")
    (job,) = check_bags([bag], settings, kwargs.pop("out", None))
    return Player(settings).play(job, inline=True)


@pytest.fixture
def asked(monkeypatch):
    """Ticks of the bag at which the policy was asked."""
    ticks, original = [], Asker.infer_actions

    def noted(self, obs):
        ticks.append(self.global_tick)
        return original(self, obs)

    monkeypatch.setattr(Asker, "infer_actions", noted)
    return ticks


@pytest.mark.parametrize(
    ("latency", "expected"),
    # 120 ms are 3 ticks: the first chunk starts at its row 0 in tick 3, reaches row 5 in tick 8, the next comes in tick 11
    [("0", [0, 5, 10, 15, 20, 25]), ("120", [0, 8, 13, 18, 23, 28]), ("50", [0, 6, 11, 16, 21, 26])],
)
def test_requests_are_made_at_the_nodes_ticks(tmp_path, asked, latency, expected):
    out = play(tmp_path, arm_recording(ROBOT, 30), scripted_settings(ROBOT, latency=latency))
    assert asked == expected and out.requests == len(expected)
    delay = float(latency) if latency != "120" else 150.0
    assert out.action_delay_ms == pytest.approx([delay] * len(out.action_delay_ms))
    assert set(out.traces["none"].executed) == {round(delay / 50)}
    assert out.traces["none"].executed == out.traces["none"].elapsed


@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_error_is_the_distance_to_the_record(tmp_path, offset):
    """The script predicts the states to come exactly; each command was recorded `offset` beside them."""
    out = play(tmp_path, arm_recording(ROBOT, 60, offset=offset), scripted_settings(ROBOT))
    figures = out.errors.to_json(ROBOT.action_names)
    for kind in ("first", "chunk"):
        assert figures["joints"]["j1"][kind]["mae"] == pytest.approx(offset, abs=1e-6)
        assert figures["all"][kind]["mae"] == pytest.approx(offset / 10, abs=1e-6)  # half of -10..10 is the unit
    assert figures["by_horizon_index"]["mae_normalised"] == pytest.approx([offset / 10] * 10, abs=1e-6)
    assert figures["all"]["chunk"]["count"] == sum(min(10, 60 - k) for k in range(0, 60, 5))
    assert out.compared_ticks == out.ticks == 60 and not out.skipped and out.silent_ticks == 0
    assert figures["joints"]["j0"]["served"]["mae"] == pytest.approx(offset, abs=0.03)


def test_guard_and_ranges_are_counted(tmp_path):
    tight = replace(ROBOT, actions=tuple(replace(a, lower=-0.2, upper=0.2) for a in ROBOT.actions))
    out = play(tmp_path, arm_recording(tight, 60), scripted_settings(tight))
    rows = np.add.outer(np.arange(0, 60, 5), np.arange(10)) * 0.01
    assert out.outside.tolist() == [int((rows > 0.2 + 1e-6).sum())] * 3
    assert out.clamped["j0"] > 0 and out.rows == rows.size


def test_noise_belongs_to_the_tick_and_the_seed(tmp_path):
    settings = scripted_settings(ROBOT, seed=3)
    chunks = []
    recording, player = arm_recording(ROBOT, 20), Player(settings)
    infer = player.worker.infer_actions
    player.worker.infer_actions = lambda obs: chunks.append(obs["seed"]) or infer(obs)
    (job,) = check_bags([recording.write(tmp_path / "bag")], settings, None)
    player.play(job, inline=True)
    assert chunks == [3_000_000 + k for k in (0, 5, 10, 15)]


def without(recording: Recording, topic: str, first: int, last: int) -> Recording:
    """The recording without a topic's messages of the ticks first..last."""
    kept = Recording()
    for row in recording.rows:
        tick = (row[0] - START_NS) / T
        if not (row[1] == topic and first <= tick <= last):
            kept.rows.append(row)
    return kept


def test_missing_images_keep_requests_away(tmp_path, asked):
    """None between ticks 20 and 49. Tick 20 still has that of tick 19; from tick 25 on there is nothing new, and from tick
    30 on the newest is older than 0.5 s (F01). Its chunk is over with tick 29: the runner holds, and asks again at once."""
    out = play(tmp_path, without(arm_recording(ROBOT, 70), "/front/image", 20, 49), scripted_settings(ROBOT))
    assert asked == [0, 5, 10, 15, 20, 50, 55, 60, 65]
    assert out.skipped == {"waiting": 5, "F01": 20}
    assert out.faults["F01 cameras_stopped"] == 1 and out.held_ticks == 20


def test_missing_state_is_its_fault(tmp_path):
    out = play(tmp_path, without(arm_recording(ROBOT, 70), "/joint_states", 20, 49), scripted_settings(ROBOT))
    assert out.faults["F15 state_stopped"] == 1 and out.held_ticks >= 20


def test_bad_messages_are_counted_by_fault(tmp_path):
    recording = arm_recording(ROBOT, 30)
    for k in range(5, 10):
        at = START_NS + k * T + 1
        recording.add(at, "/front/image", IMAGE, image(np.zeros((8, 8, 3), np.uint8), at)[:-20])
        recording.add(at, "/joint_states", STATE, state(ROBOT.state_names, [np.nan] * 3, at))
        recording.add(at, PROMPT_TOPIC, TEXT, text("\x00bad"))
    out = play(tmp_path, recording, scripted_settings(ROBOT))
    assert out.refused["F14"] == 5 and out.refused["F86"] == 5
    assert out.unreadable["/front/image"] + out.refused["F07"] == 5


def test_not_ready_before_the_first_image(tmp_path, asked):
    out = play(tmp_path, without(arm_recording(ROBOT, 20), "/front/image", 0, 6), scripted_settings(ROBOT))
    assert out.not_ready == {"F01": 7} and asked[0] == 7
    assert out.silent_ticks == 7 and out.ticks == 20


def test_late_prompt_and_given_prompt(tmp_path, asked):
    recording = arm_recording(ROBOT, 12)
    recording.rows = [(START_NS + 3 * T, *row[1:]) if row[1] == PROMPT_TOPIC else row for row in recording.rows]
    out = play(tmp_path, recording, scripted_settings(ROBOT))
    assert out.not_ready == {"prompt": 3} and asked[0] == 3
    recording.rows = [row for row in recording.rows if row[1] != PROMPT_TOPIC]
    asked.clear()
    play(tmp_path / "second", recording, scripted_settings(ROBOT, prompt="go"))
    assert asked[0] == 0


def test_episodes_are_activations_of_their_own(tmp_path, asked):
    first, second = arm_recording(ROBOT, 12), arm_recording(ROBOT, 12, start_ns=START_NS + 12 * T + 2 * 10**9)
    first.rows += second.rows
    out = play(tmp_path, first, scripted_settings(ROBOT))
    assert out.episodes == 2 and out.ticks == 24 and asked == [0, 5, 10, 12, 17, 22]
    assert out.traces["none"].starts == [0, 12] and len(out.traces["none"].switches) == 4
    assert {key[0] for key in out.units} == {0, 1}


def test_policy_that_raises_or_gives_nonsense_is_counted(tmp_path):
    settings = scripted_settings(ROBOT, faults={1: "exception", 2: "nan", 3: "shape"})
    out = play(tmp_path, arm_recording(ROBOT, 60), settings)
    assert out.stats["policy_errors"] == 1 and out.stats["rejected_chunks"] == 2
    assert np.isfinite(out.errors.chunk.mean).all()


def test_measured_latency_delays_by_what_the_call_took(tmp_path):
    settings = scripted_settings(ROBOT, latency="measured", latencies_s=(0.06,))
    out = play(tmp_path, arm_recording(ROBOT, 30), settings)
    assert min(out.model_ms) >= 60 and min(out.action_delay_ms) >= 100  # 60 ms and more: two ticks or more


def test_drawn_latency_depends_on_the_seed_alone(tmp_path):
    delays = {}
    for seed in (1, 1, 2):
        settings = scripted_settings(ROBOT, latency="20..160", seed=seed)
        out = play(tmp_path / f"{seed}-{len(delays)}", arm_recording(ROBOT, 80), settings)
        delays.setdefault(seed, []).append(out.action_delay_ms)
    assert delays[1][0] == delays[1][1] != delays[2][0]
    assert len(set(delays[1][0])) > 1


def test_every_strategy_gets_the_same_chunks(tmp_path):
    out = play(tmp_path, arm_recording(ROBOT, 60), scripted_settings(ROBOT, latency="100"))
    assert set(out.traces) == set(out.references) == {"none", "linear", "quintic", "temporal_fusion"}
    assert len({tuple(t.executed) for t in out.traces.values()}) == 1
    assert set(out.references["none"].executed) == {0}
    side = variant("quintic", scripted_settings(ROBOT, latency="100"))
    again = play(tmp_path / "again", arm_recording(ROBOT, 60), side)
    assert np.array_equal(again.traces["linear"].commands.array, out.traces["linear"].commands.array)
