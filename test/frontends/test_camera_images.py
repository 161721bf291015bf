"""Pictures of the cameras' own sizes: fitted into the model's square by the machine, as the reference does on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from support.checkpoints import STATE_DIM, TINY, write_checkpoint

from flashrt_core import load_model
from flashrt_core.errors import ConfigError, ObservationError
from flashrt_core.frontends.camera_images import camera_sizes
from flashrt_core.ops.resample import fit_into

SIDE, STATE, PROMPT = TINY.vision.image_size, np.linspace(-0.4, 0.4, STATE_DIM), "pick up the red block"
SIZES = [(48, 64), (30, 90)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("cameras") / "ckpt")


def picture(size: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("sizes", [SIZES, [SIZES[0]] * 2, SIZES[0], [SIZES[0], (SIDE, SIDE)]], ids=str)
def test_equals_resizing_before(checkpoint, sizes) -> None:
    model = load_model(checkpoint, hardware="host", image_sizes=sizes)
    pictures = [picture(size, i) for i, size in enumerate(camera_sizes(sizes, 2, SIDE))]
    squares = [fit_into(p, SIDE) for p in pictures]
    got = model.predict(pictures, PROMPT, STATE, seed=0)
    assert np.array_equal(got, model.predict(squares, PROMPT, STATE, seed=0)), "squares are taken too"
    assert np.array_equal(got, model.predict([pictures[0], squares[1]], PROMPT, STATE, seed=0)), "and a mixture"
    assert not np.allclose(got, model.predict([p[::-1] for p in pictures], PROMPT, STATE, seed=0)), "any strides, this picture"


def test_an_unknown_size_is_named_and_nothing_is_made_for_it(checkpoint) -> None:
    model = load_model(checkpoint, hardware="host", image_sizes=SIZES)
    before = model.predict([picture(s, 1) for s in SIZES], PROMPT, STATE, seed=0)
    with pytest.raises(ObservationError, match=r"image 1 \(wrist\).*\(28, 28, 3\).*or \(30, 90, 3\), as loaded.*image_sizes"):
        model.predict([picture(SIZES[0], 1), picture((31, 90), 1)], PROMPT, STATE)
    with pytest.raises(ObservationError, match=r"image 0.*beside a float image"):
        model.predict([picture(SIZES[0], 1), np.zeros((SIDE, SIDE, 3), np.float32)], PROMPT, STATE)
    assert np.array_equal(before, model.predict([picture(s, 1) for s in SIZES], PROMPT, STATE, seed=0))


def test_without_the_option_the_error_says_how(checkpoint) -> None:
    model = load_model(checkpoint, hardware="host")
    with pytest.raises(ObservationError, match="image_sizes="):
        model.predict([picture(s, 1) for s in SIZES], PROMPT, STATE)


def test_calibration_takes_them_too(checkpoint, tmp_path) -> None:
    options = dict(hardware="host", use_fp8=True, calibration_dir=tmp_path)
    pictures = [picture(s, 1) for s in SIZES]
    a = load_model(checkpoint, image_sizes=SIZES, **options).predict(pictures, PROMPT, STATE, seed=0)
    b = load_model(checkpoint, **options).predict([fit_into(p, SIDE) for p in pictures], PROMPT, STATE, seed=0)
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    "sizes",
    [(48,), [(48, 64)], [(48, 64)] * 3, [(0, 64)] * 2, [(48, 5000)] * 2, [(4.5, 3)] * 2, 7, "ab", [("a", 1)] * 2],
    ids=str,
)
def test_broken_option(sizes) -> None:
    with pytest.raises(ConfigError, match="image_sizes"):
        camera_sizes(sizes, 2, SIDE)


def test_cached_calls_upload_no_image(checkpoint) -> None:
    model = load_model(checkpoint, hardware="host", image_sizes=SIZES, cache_frames=2)
    first = model.predict([picture(s, 1) for s in SIZES], PROMPT, STATE, seed=0)
    again = model.predict([picture(s, 2) for s in SIZES], PROMPT, STATE, seed=0)
    assert np.array_equal(first, again), "the prefix of the first call"
    assert not np.array_equal(first, model.predict([picture(s, 2) for s in SIZES], PROMPT, STATE, seed=0))
