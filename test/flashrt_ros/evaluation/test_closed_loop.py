"""The loop of one episode on a scripted scene and policy: who is asked when, what is counted, what an error does."""

import numpy as np
import pytest

from flashrt_core.errors import ConfigError, ObservationError
from flashrt_ros.evaluation.closed_loop import ABLATIONS, CALLS_PER_EPISODE, LoopSettings, run_episode


class LineEnv:
    """A hand on a line: succeeds when 20 steps of +1 have been executed. Counts the pictures it renders."""

    max_steps, control_hz = 60, 20

    def __init__(self, fail_at: int | None = None):
        self.fail_at, self.rendered = fail_at, 0

    def reset(self, seed: int) -> None:
        self.prompt, self.steps, self.x = "pick up the red block", 0, 0.0

    @property
    def success(self) -> bool:
        return self.x >= 20

    def observe(self) -> dict:
        self.rendered += 1
        return {"images": [np.full((4, 4, 3), 9, np.uint8)] * 2, "state": np.full(8, self.x, np.float32)}

    def frame(self, size: int = 8, samples: int = 1) -> np.ndarray:
        return np.zeros((size, size, 3), np.uint8)

    def step(self, action: np.ndarray) -> None:
        if self.steps == self.fail_at:
            raise ObservationError("action", expected="a working simulator", found="an injected fault")
        self.x += float(action[0])
        self.steps += 1


def forward(images, *, prompt, state, seed) -> np.ndarray:
    return np.tile(np.array([[1, 0, 0, 0, 0, 0, -1]], np.float32), (10, 1))


def test_success_ends_the_episode_and_pictures_are_made_only_when_wanted():
    env = LineEnv()
    got = run_episode(env, forward, 3)
    assert (got.success, got.steps, got.tick_misses, got.error) == (True, 20, 0, None)
    assert env.rendered == len(got.model_ms) == 4  # a chunk every 5 ticks
    assert got.switch_ticks == [5, 10, 15] and got.executed == got.elapsed == [0, 0, 0]
    assert got.commands.shape == (20, 7) and got.commands.dtype == np.float32


@pytest.mark.parametrize("latency_ms, row", [(50, 1), (100, 2), (200, 4), (120, 3)])
def test_latency_drops_the_rows_that_were_executed_meanwhile(latency_ms, row):
    got = run_episode(LineEnv(), forward, 0, LoopSettings(latency_ms=latency_ms))
    assert set(got.executed) == {row} and got.executed == got.elapsed
    assert got.tick_misses == 0


def test_latency_longer_than_the_chunk_is_a_miss_and_the_hand_rests():
    got = run_episode(LineEnv(), forward, 0, LoopSettings(latency_ms=400))
    # asked at row 5, there at row 13: rows 10, 11 and 12 were not planned
    assert got.tick_misses > 0
    assert got.commands[10, 0] < 1 and got.commands[10, 6] == -1


def test_every_call_has_its_own_seed():
    seeds = []

    def note(images, *, prompt, state, seed):
        seeds.append(seed)
        return forward(images, prompt=prompt, state=state, seed=seed)

    run_episode(LineEnv(), note, 7)
    assert seeds == [7 * CALLS_PER_EPISODE + k for k in range(4)]


def test_commands_never_leave_the_range_of_the_action():
    wild = run_episode(LineEnv(), lambda images, **_: np.full((10, 7), 3.0, np.float32), 0)
    assert wild.commands.max() == 1.0


def test_realtime_keeps_the_pace_and_reports_lateness():
    env = LineEnv()
    env.control_hz = 200
    got = run_episode(env, forward, 0, LoopSettings(realtime=True))
    assert got.success and len(got.late_ms) == got.steps
    assert np.median(got.late_ms) < 50


def test_a_policy_that_fails_once_is_counted_and_survived():
    calls = []

    def flaky(images, **_):
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("injected")
        return forward(images, prompt="", state=None, seed=0)

    got = run_episode(LineEnv(), flaky, 0)
    assert got.success and got.policy_errors == 1 and got.error is None


def test_a_policy_that_never_works_ends_the_episode_as_an_error():
    def broken(images, **_):
        raise ObservationError("image 0", expected="a picture", found="nothing")

    got = run_episode(LineEnv(), broken, 0)
    assert got.error.startswith("ObservationError: image 0") and not got.success and got.steps == 0


def test_ablations_change_what_they_name_and_nothing_else():
    env = LineEnv()
    env.reset(0)
    env.x = 5.0
    obs = {**env.observe(), "prompt": "pick up the red block"}
    changed = {name: change(obs) for name, change in ABLATIONS.items()}
    assert changed["wrong prompt"]["prompt"] == "pick up the green block"
    assert [int(im.max()) for im in changed["black wrist"]["images"]] == [9, 0]
    assert [int(im.max()) for im in changed["black agentview"]["images"]] == [0, 9]
    assert [int(im.max()) for im in changed["black images"]["images"]] == [0, 0]
    assert not changed["zero state"]["state"].any() and obs["state"].any()
    for name, key in (("wrong prompt", "state"), ("zero state", "images"), ("black images", "state")):
        assert changed[name][key] is obs[key]


@pytest.mark.parametrize(
    "options, word",
    [
        ({"splice": "cubic"}, "splice"), ({"latency_ms": -1}, "latency_ms"), ({"latency_ms": float("nan")}, "latency_ms"),
        ({"realtime": True, "latency_ms": 50}, "latency_ms"), ({"replan_ticks": 0}, "replan_ticks"),
    ],
)  # fmt: skip
def test_bad_settings(options, word):
    with pytest.raises(ConfigError, match=word):
        LoopSettings(**options)
