"""The tabletop task: what a seed decides, what counts as success, what the cameras give, what bad input gets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from flashrt_core.errors import ConfigError, ObservationError
from flashrt_ros.sim.tabletop import COLOURS, TabletopEnv, all_prompts, parse_prompt
from flashrt_ros.sim.tabletop.render import GLRenderer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from expert import expert_action, label_chunk, wide_start

REST = np.array([0, 0, 0, 0, 0, 0, -1.0])


@pytest.fixture(scope="module")
def env() -> TabletopEnv:
    return TabletopEnv()


def seed_of(env: TabletopEnv, family: str) -> int:
    for seed in range(50):
        env.reset(seed)
        if env.task.family == family:
            return seed
    raise AssertionError(family)


def run(env: TabletopEnv) -> None:
    while not env.done:
        env.step(expert_action(env))


def test_observation_contract(env):
    env.reset(1)
    seen = env.observe()
    assert [im.shape for im in seen["images"]] == [(112, 112, 3)] * 2
    assert all(im.dtype == np.uint8 for im in seen["images"])
    assert seen["state"].dtype == np.float32 and seen["state"].shape == (8,)
    assert seen["state"][6] == -seen["state"][7] > 0.03  # fingers open, opposite signs
    np.testing.assert_array_equal(seen["state"], env.state())
    assert seen["images"][0].std() > 10 and (seen["images"][0] != seen["images"][1]).any()
    assert (env.control_hz, env.max_steps, env.steps, env.success) == (20, 120, 0, False)


def test_same_seed_same_episode(env):
    other = TabletopEnv()
    other.reset(99)  # a past must not matter
    other.step(np.array([1, 0, 0, 0, 0, 0, 1.0]))
    for seed in (3, 4):
        env.reset(seed)
        other.reset(seed)
        assert env.prompt == other.prompt
        for _ in range(4):
            a, b = env.observe(), other.observe()
            np.testing.assert_array_equal(a["images"], b["images"])
            np.testing.assert_array_equal(a["state"], b["state"])
            action = expert_action(env)
            np.testing.assert_array_equal(action, expert_action(other))
            env.step(action)
            other.step(action)


def test_observing_does_not_change_the_physics(env):
    other = TabletopEnv()
    env.reset(5)
    other.reset(5)
    for _ in range(12):
        env.observe()
        env.step(np.array([0.3, -0.5, -1, 0, 0, 0, 1]))
        other.step(np.array([0.3, -0.5, -1, 0, 0, 0, 1]))
    np.testing.assert_array_equal(env.state(), other.state())


def test_seeds_differ_in_scene_prompt_and_look(env):
    images, prompts = [], set()
    for seed in range(12):
        env.reset(seed)
        prompts.add(env.prompt)
        images.append(env.observe()["images"][0].astype(float))
    assert len(prompts) >= 4
    assert min(np.abs(images[0] - im).mean() for im in images[1:]) > 2


def test_jitter_zero_keeps_the_look():
    plain = TabletopEnv(jitter=0.0)
    looks = []
    for seed in (1, 2):
        plain.reset(seed)
        looks.append((plain.model.geom_rgba.copy(), plain.model.cam_pos.copy(), plain.model.light_pos.copy()))
    for a, b in zip(*looks, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("start", [0, 500_000])
def test_placements_are_apart(env, start):
    for seed in range(start, start + 60):
        env.reset(seed)
        spots = np.stack([env.block(c)[:2] for c in COLOURS])
        gaps = np.linalg.norm(spots[:, None] - spots[None], axis=-1)[np.triu_indices(3, 1)]
        assert gaps.min() > 0.08 and np.abs(spots).max() <= 0.15
        assert np.linalg.norm(spots, axis=1).min() > 0.085  # none starts on the zone
        for _ in range(3):
            env.step(REST)
        assert np.abs(np.stack([env.block(c)[:2] for c in COLOURS]) - spots).max() < 2e-3  # and they stay put


def test_expert_solves_every_seed(env):
    for seed in range(25):
        env.reset(seed)
        if seed % 2:
            wide_start(env, np.random.default_rng(seed))
        run(env)
        assert env.success, (seed, env.prompt)


def test_label_chunk_leaves_the_episode_alone(env):
    env.reset(8)
    before, steps = env.snapshot()[0], env.steps
    chunk = label_chunk(env, 10)
    np.testing.assert_array_equal(env.snapshot()[0], before)
    assert env.steps == steps and chunk.shape == (10, 7) and np.abs(chunk).max() <= 1
    np.testing.assert_array_equal(chunk[0], expert_action(env).astype(np.float32))


def test_pick_needs_the_named_block_alone_and_three_steps(env):
    env.reset(seed_of(env, "pick"))
    target, other = env.task.colour, next(c for c in COLOURS if c != env.task.colour)
    height = {c: env.data.qpos[env._blocks[c] :][:3] for c in COLOURS}  # views into the physics state

    def after(lifted: list[str], steps: int) -> bool:
        env.reset(env_seed)
        for _ in range(steps):
            for i, colour in enumerate(lifted):
                height[colour][:] = (0.2, 0.05 * i, 0.15)
            env.data.qvel[:] = 0
            env.step(REST)
        return env.success

    env_seed = seed_of(env, "pick")
    assert after([target], 3) and not after([target], 2)
    assert not after([other], 5)
    assert not after([target, other], 5)


def test_place_needs_an_open_raised_hand(env):
    seed = seed_of(env, "place")

    def after(hand: tuple[float, float, float], fingers: float, spot: tuple[float, float]) -> bool:
        env.reset(seed)
        at = env._blocks[env.task.colour]
        env.data.qpos[at : at + 3] = (*spot, 0.018)
        env.set_hand(np.array(hand), fingers)
        grip = 1 - 2 * fingers / 0.038
        for _ in range(4):
            env.step(np.array([0, 0, 0, 0, 0, 0, grip]))
        return env.success

    assert after((0.1, 0.1, 0.15), 0.038, (0.01, 0.01))
    assert not after((0.1, 0.1, 0.15), 0.038, (0.05, 0.01))  # off the zone
    assert not after((0.1, 0.1, 0.15), 0.0, (0.01, 0.01))  # closed
    assert not after((0.1, 0.1, 0.03), 0.038, (0.01, 0.01))  # not raised


@pytest.mark.parametrize(
    "action, found",
    [
        (np.zeros(6), "(6,)"),
        (np.zeros((1, 7)), "(1, 7)"),
        (np.array([0, 0, np.nan, 0, 0, 0, 0]), "nan at 2"),
        (np.array([0, 0, 0, 0, 0, 0, np.inf]), "inf at 6"),
    ],
)
def test_bad_action_is_named_and_changes_nothing(env, action, found):
    env.reset(2)
    before = env.snapshot()[0]
    with pytest.raises(ObservationError, match="action") as error:
        env.step(action)
    assert found in str(error.value)
    np.testing.assert_array_equal(env.snapshot()[0], before)
    assert env.steps == 0


def test_actions_beyond_one_are_clipped(env):
    ends = []
    for size in (1.0, 50.0):
        env.reset(2)
        env.step(np.array([size, 0, 0, 0, 0, 0, -size]))
        ends.append(env.state())
    np.testing.assert_array_equal(*ends)


def test_hand_stays_in_its_workspace(env):
    for direction in (1.0, -1.0):
        env.reset(2)
        for _ in range(60):
            env.step(np.array([direction, direction, direction, 0, 0, 0, 1.0]))
        x, y, z = env.state()[:3]
        assert abs(x) < 0.245 and abs(y) < 0.245 and 0.008 < z < 0.275


def test_bad_seed_and_options():
    env = TabletopEnv()
    for seed in (-1, 1.5, True, "3"):
        with pytest.raises(ConfigError, match="seed"):
            env.reset(seed)
    with pytest.raises(ConfigError, match=r"renderer.*ray"):
        TabletopEnv(renderer="rai")
    with pytest.raises(ConfigError, match="image_size"):
        TabletopEnv(image_size=0)


def test_prompts_parse_and_unknown_ones_are_refused(env):
    assert len(all_prompts()) == 18
    for prompt in all_prompts():
        task = parse_prompt(prompt)
        assert task.colour in prompt and (task.family == "place") == ("zone" in prompt)
    assert parse_prompt("  Pick up the RED block ").colour == "red"
    with pytest.raises(ConfigError, match="pick up the red block"):
        parse_prompt("make tea")
    env.reset(3, prompt="pick up the blue block")
    assert (env.task.family, env.task.colour) == ("pick", "blue")


@pytest.mark.parametrize("size", [64, 112, 160])
def test_ray_images_keep_their_content_at_any_size(size):
    small, base = TabletopEnv(image_size=size), TabletopEnv(image_size=224)
    small.reset(7)
    base.reset(7)
    for a, b in zip(small.observe()["images"], base.observe()["images"], strict=True):
        assert a.shape == (size, size, 3)
        assert np.abs(a.mean((0, 1)) - b.mean((0, 1))).max() < 3  # the same picture, sampled more coarsely


def test_images_show_the_named_colours(env):
    env.reset(11)
    image = env.observe()["images"][0].astype(int)
    for channel in range(3):
        others = np.delete(image, channel, axis=-1).max(-1)
        assert (image[..., channel] > others + 40).sum() > 20, COLOURS[channel]


def test_frame_is_larger_and_smooth(env):
    env.reset(1)
    assert env.frame().shape == (256, 256, 3)
    assert env.frame(96, samples=1).dtype == np.uint8


def test_gl_renders_the_same_view_or_says_what_is_missing():
    try:
        gl = TabletopEnv(renderer="gl")
    except ConfigError as error:
        assert "MUJOCO_GL" in str(error) and "renderer='ray'" in str(error)
        return
    ray = TabletopEnv()
    gl.reset(3)
    ray.reset(3)
    for a, b in zip(gl.observe()["images"], ray.observe()["images"], strict=True):
        assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 30
    assert isinstance(gl._renderer, GLRenderer)
    gl._renderer.close()
