"""Soak on a Hopper GPU: replays of one input are bit-identical, no memory is taken, latency does not drift; prompts come and go.

`--soak-replays 30000` is the long form (about ten minutes at full rate with a full-size model: tools/gpu_check.sh soak-long).
"""

from __future__ import annotations

import numpy as np
import pytest

from flashrt_core.bench.measure import replay_ms
from flashrt_core.bench.random_model import RandomCheckpoint, prompt_of, size_named
from flashrt_core.frontends.program import Variant

pytestmark = pytest.mark.gpu
PROMPTS = 200
PARTS = 10  # the latency's drift is between the first and the last of these


@pytest.fixture(scope="module")
def model(tmp_path_factory, request):
    from flashrt_core import load_model

    folder, size = tmp_path_factory.mktemp("soak"), request.config.getoption("--soak-size")
    model = load_model(
        RandomCheckpoint(folder, size_named(size)), hardware="hopper", calibration_dir=folder / "c", autotune_dir=folder / "a"
    )
    side = model._pipe.dims.vision.image_size
    rng = np.random.default_rng(0)
    looks = [list(rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)) for _ in range(3)]
    model.predict(looks[0], prompt_of(20), state=np.zeros(8), seed=0)
    return model, looks


def test_soak(model, request) -> None:
    model, looks = model
    program = model._pipe._program_served
    count = request.config.getoption("--soak-replays")
    want = [model.predict(look, seed=5) for look in looks]
    free = program.machine.free_bytes()
    first = np.median(replay_ms(program, Variant.FULL_U8, 200, 50))
    for i in range(count):
        k = i % len(looks)
        assert np.array_equal(model.predict(looks[k], seed=5), want[k]), f"call {i} differs"
    last = np.median(replay_ms(program, Variant.FULL_U8, 200, 50))
    grown = free - program.machine.free_bytes()
    print(f"\nsoak: {count} calls, replay P50 {first:.3f} -> {last:.3f} ms ({100 * (last / first - 1):+.1f} %), {grown} bytes")
    assert grown == 0 and last <= 1.02 * first + 0.005


def test_F46_prompts_of_every_length_need_no_capture(model, monkeypatch) -> None:
    """200 prompts: the same graph serves them, nothing is captured and nothing grows."""
    model, looks = model
    program = model._pipe._program_served
    monkeypatch.setattr(program.graph, "capture", lambda *a, **k: pytest.fail("captured after configure"))
    capacity = model._pipe.dims.prompt_capacity
    free, seen = program.machine.free_bytes(), set()
    for i in range(PROMPTS):
        chunk = model.predict(looks[0], prompt_of(3 + i % (capacity - 2)), seed=1)
        assert np.isfinite(chunk).all()
        seen.add(chunk.tobytes())
    assert len(seen) == capacity - 2, "the prompt reaches the actions"
    assert free - program.machine.free_bytes() == 0
