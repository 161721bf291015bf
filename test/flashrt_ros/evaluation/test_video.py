"""The film: it plays what was kept, fits its limit and names the prompt."""

import numpy as np
from PIL import Image

from flashrt_ros.evaluation.closed_loop import Episode
from flashrt_ros.evaluation.video import BAR_PX, LAST_FRAME_MS, write_gif


def episode(n: int, prompt: str = "pick up the red block", noise: bool = False) -> Episode:
    rng = np.random.default_rng(0)
    frames = [np.full((64, 64, 3), 40 * (i % 5), np.uint8) for i in range(n)]
    if noise:
        frames = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(n)]
    return Episode(0, prompt, success=True, frames=frames)


def test_film_holds_every_frame_and_waits_at_the_end(tmp_path):
    size = write_gif(tmp_path / "a.gif", [episode(6), episode(3)])
    with Image.open(tmp_path / "a.gif") as film:
        assert size == (tmp_path / "a.gif").stat().st_size
        assert film.size == (64, 64 + BAR_PX) and film.n_frames == 9
        film.seek(5)
        assert film.info["duration"] == LAST_FRAME_MS


def test_film_over_the_limit_gets_fewer_frames(tmp_path):
    whole = write_gif(tmp_path / "a.gif", [episode(32, noise=True)])
    assert write_gif(tmp_path / "b.gif", [episode(32, noise=True)], limit=whole // 3) <= whole // 3
    with Image.open(tmp_path / "b.gif") as film:
        assert 2 <= film.n_frames <= 16


def test_nothing_kept_nothing_written(tmp_path):
    assert write_gif(tmp_path / "a.gif", [Episode(0, "x")]) == 0
    assert not (tmp_path / "a.gif").exists()


def test_a_long_prompt_fits(tmp_path):
    assert write_gif(tmp_path / "a.gif", [episode(2, prompt="x" * 500)]) > 0


def test_a_small_block_keeps_its_colour(tmp_path):
    """Red on 0.5 % of a floor of many browns, as in the tabletop task."""
    side = 128
    ramp = np.linspace(60, 200, side)
    floor = np.stack([ramp[:, None] + 0 * ramp, 0.8 * ramp[:, None] + 0.1 * ramp, 0.5 * ramp[:, None] + 0.2 * ramp], -1)
    frame = floor.astype(np.uint8)
    frame[60:69, 60:69] = (205, 28, 24)
    write_gif(tmp_path / "a.gif", [Episode(0, "x", frames=[frame] * 3)])
    with Image.open(tmp_path / "a.gif") as film:
        seen = np.asarray(film.convert("RGB")).astype(int)[:side]
    assert np.abs(seen[62:67, 62:67] - (205, 28, 24)).max() <= 12
    assert np.abs(seen - frame).max() <= 24
