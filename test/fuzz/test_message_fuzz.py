"""Random fields of image, joint state, prompt and configuration messages: a typed refusal or the right result, no third."""

from __future__ import annotations

import array
import logging

import numpy as np
import pytest
from support.arm import arm, camera

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import FakeClock
from flashrt_ros.config.option import build, option_types
from flashrt_ros.config.settings import ActionDim, CameraConfig, NodeConfig, PolicyConfig, SafetyConfig, StateDim
from flashrt_ros.inputs.image_decode import CHANNELS
from flashrt_ros.inputs.observation import ObservationBuilder

COUNT = 100_000  # FAULTS.md, fuzz counts: every commit
HUGE = [0, 1, -1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63, -(2**40), None, "4", 2.0, np.nan, True]
NAMES = ["shoulder", "elbow", "wrist", "gripper", "", "Elbow", "elbow ", "\0", None, 3]
NUMBERS = [0.0, 0.5, -1.0, 1.19, 1.21, 57.3, 1e308, -1e308, 5e-324, np.nan, np.inf, -np.inf, 7, None, "1", [1.0]]


class Choice:
    """Fast random choices from one generator (numpy's own are slow one at a time)."""

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)
        self._pool, self._at = self._rng.random(1 << 16).tolist(), 0

    def real(self) -> float:
        self._at += 1
        if self._at == len(self._pool):
            self._pool, self._at = self._rng.random(1 << 16).tolist(), 0
        return self._pool[self._at]

    def below(self, n: int) -> int:
        return int(self.real() * n)

    def of(self, items):
        return items[self.below(len(items))]


@pytest.fixture
def obs():
    robot = arm(cameras=(
        camera("front", resize="pad", encodings=tuple(CHANNELS)), camera("hand", encodings=("rgb8",)),
    ))  # fmt: skip
    silent = logging.Logger("silent", logging.CRITICAL)
    return ObservationBuilder(robot, image_size=8, clock=FakeClock(9.0), logger=silent)


def test_image_fields(obs):
    """Correct decodes are checked against pixels put together independently, byte by byte."""
    choice, stored, refused = Choice(1), 0, {}
    memory = np.random.default_rng(2).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    for _ in range(COUNT):
        encoding = choice.of([*CHANNELS, *CHANNELS, "16UC1", "yuv422", "", None, 8])
        width, height = 1 + choice.below(12), 1 + choice.below(12)
        bpp = CHANNELS[encoding][0] if encoding in CHANNELS else 3
        step = width * bpp + choice.of([0, 0, 0, 1, 5])
        length = step * height
        broken = choice.below(6)
        if broken == 0:
            height = choice.of(HUGE)
        elif broken == 1:
            width = choice.of(HUGE)
        elif broken == 2:
            step = choice.of(HUGE)
        elif broken == 3:
            length = max(0, length - 1 - choice.below(length))
        data = memory[:length]
        carrier = choice.of([data, bytearray(data), array.array("B", data), memoryview(data)])
        view = choice.of(["front", "front", "hand"])
        if choice.below(200) == 0:
            carrier = choice.of([None, 3, "text", [1, 2], np.zeros((4, 4)), b""])
        report = obs.put_image(view, height, width, encoding, step, carrier, choice.of([0, 1, 2**63, -5, None, "x"]))
        if report is not None:
            refused[report.id] = refused.get(report.id, 0) + 1
            continue
        stored += 1
        assert encoding in CHANNELS and len(data) >= step * height and step >= width * bpp
        if (height, width) == (8, 8):
            _, order = CHANNELS[encoding]
            x, y = choice.below(8), choice.below(8)
            pixel = data[y * step + x * bpp : y * step + (x + 1) * bpp]
            assert obs.images[view].frame.image[y, x].tolist() == [pixel[i] for i in order]
    assert stored > COUNT / 20 and set(refused) == {"F05", "F06", "F07", "F09"}, (stored, refused)
    assert sum(refused.values()) == sum(obs.counters[f] for f in refused)


def test_joint_state_fields(obs):
    choice, stored, refused = Choice(3), 0, {}
    safety = obs.safety
    for _ in range(COUNT):
        names = ["shoulder", "elbow", "wrist", "gripper"][: choice.of([3, 4, 4])]
        values = [choice.real() * 2 - 1 for _ in names]
        broken = choice.below(5)
        if broken == 0:
            names[choice.below(len(names))] = choice.of(NAMES)
        elif broken == 1:
            values[choice.below(len(values))] = choice.of(NUMBERS)
        elif broken == 2:
            values = choice.of(
                [values[1:], [*values, 0.0], None, 3.0, "abc", {}, array.array("d", values), tuple(values)]
            )
        elif broken == 3:
            names = choice.of([names[::-1], tuple(names), names * 2, [], None, 5, "elbow"])
        report = obs.put_state(names, values, choice.of([0, 5, -1, None]))
        if report is not None:
            refused[report.id] = refused.get(report.id, 0) + 1
            continue
        stored += 1
        want = [float(values[list(names).index(n)]) for n in ("shoulder", "elbow", "wrist")]
        got = obs.state.values
        assert got.tolist() == np.asarray(want, np.float32).tolist()
        assert np.all(np.abs(got) <= safety.limits_factor + 1e-6)
    assert stored > COUNT / 5 and set(refused) == {"F14", "F16", "F17"}, (stored, refused)


def test_prompts(obs):
    choice = Choice(5)
    pool = [*"abc öß\0\n\t\x1b\x7f\x85", "\ud800", "🟩", "word " * 300]
    for _ in range(5000):
        text = "".join(choice.of(pool) for _ in range(choice.below(12)))
        report = obs.put_prompt(text)
        good = text.strip() and len(text.encode("utf-8", "surrogatepass")) <= 4096
        good = good and not any(c in text for c in "\0\t\x1b\x7f\x85\ud800")
        good = good and text.replace("_", " ").strip()
        assert (report is None) == bool(good), ascii(text)


@pytest.mark.parametrize(
    "cls", [CameraConfig, StateDim, ActionDim, SafetyConfig, PolicyConfig, NodeConfig], ids=lambda c: c.__name__
)
def test_settings(cls):
    """Random values for random keys: a ConfigError or an object whose every field has its declared type."""
    choice = Choice(7)
    keys = [*option_types(cls), "typo"]
    values = [
        0,
        1,
        -1,
        2.5,
        "auto",
        "chunk",
        "",
        "x" * 5000,
        None,
        True,
        [],
        ["rgb8"],
        {},
        1e400,
        float("nan"),
        10**400,
        50,
    ]
    needed = {"view": "a", "topic": "a", "name": "a", "kind": "delta", "lower": -1.0, "upper": 1.0}
    made = 0
    for _ in range(2500):
        data = {k: v for k, v in needed.items() if k in option_types(cls)}
        data |= {choice.of(keys): choice.of(values) for _ in range(choice.below(3))}
        try:
            config = build(cls, data, "fuzz.yaml")
        except ConfigError:
            continue
        made += 1
        assert "typo" not in data
        for name, kind in option_types(cls).items():
            value = getattr(config, name)
            if kind in (str, int, float, bool):
                assert type(value) is kind, name
    assert made > 100
