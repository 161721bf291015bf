"""`load_model` and `VLAModel`: the documented names, values and error types, on a small checkpoint of the real format."""

from __future__ import annotations

import inspect
import logging
import sys

import numpy as np
import pytest
from support.checkpoints import STATE_DIM, TINY, write_checkpoint

import flashrt_core
from flashrt_core import VLAModel, load_model
from flashrt_core.errors import ConfigError, NotBuilt, ObservationError
from flashrt_core.hardware import _PIPELINE_MAP

PROMPT = "pick up the red block"
STATE = np.linspace(-0.4, 0.4, STATE_DIM)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("api") / "ckpt", manifest=True)


@pytest.fixture(scope="module")
def shared(checkpoint):
    return load_model(checkpoint, hardware="host")


@pytest.fixture()
def model(shared):
    return VLAModel(shared._pipe, "torch")  # a fresh prompt, the same weights


def images(seed: int = 0, views: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (28, 28, 3), dtype=np.uint8) for _ in range(views)]


def test_documented_signature() -> None:
    p = inspect.signature(load_model).parameters
    documented = dict(
        framework="torch", num_views=2, autotune=3, recalibrate=False, weight_cache=True, config="pi05", device=None,
        decode_cuda_graph=False, decode_graph_steps=80, max_decode_steps=256, hardware="auto", embodiment_tag=None,
        action_horizon=None, use_fp4=False, fp4_layers=None, use_awq=None, awq_alpha=0.5, use_p1_split_gu=None,
        num_steps=None, vision_pool_factor=None, vision_num_layers=None, cache_frames=None, use_fp16=False,
    )  # fmt: skip
    assert next(iter(p)) == "checkpoint"
    for name, default in documented.items():
        assert p[name].default == default, name
    assert flashrt_core.__version__ and flashrt_core.VLAModel is VLAModel


def test_predict_shape_dtype_and_determinism(model, shared) -> None:
    a = model.predict(images(), PROMPT, state=STATE, seed=3)
    assert a.shape == (TINY.horizon, 7) and a.dtype == np.float32 and np.isfinite(a).all()
    assert np.array_equal(a, model.predict(images(), state=STATE, seed=3)), "same inputs and seed: the same bits"
    assert not np.array_equal(a, model.predict(images(), state=STATE, seed=4))
    noise = np.random.default_rng(3).standard_normal((TINY.horizon, TINY.action_dim), dtype=np.float32)
    assert np.array_equal(a, model.predict(images(), state=STATE, noise=noise))
    assert model.prompt == PROMPT and model.framework == "torch" and model.precision_spec is None


def test_unseeded_noise_is_fresh_each_call_and_repeats_with_the_load_seed(checkpoint) -> None:
    runs = []
    for _ in range(2):
        m = load_model(checkpoint, hardware="host", seed=7)
        runs.append([m.predict(images(), PROMPT, state=STATE) for _ in range(2)])
    assert not np.array_equal(runs[0][0], runs[0][1])
    assert np.array_equal(runs[0], runs[1])


def test_prompt_image_and_state_reach_the_actions(model) -> None:
    base = model.predict(images(), PROMPT, state=STATE, seed=0)
    assert not np.allclose(base, model.predict(images(), "push the blue bowl", state=STATE, seed=0))
    assert not np.allclose(base, model.predict(images(1), PROMPT, state=STATE, seed=0))
    assert not np.allclose(base, model.predict(images(), PROMPT, state=STATE + 0.3, seed=0))


def test_list_and_dict_observations_agree(model) -> None:
    a, b = images()
    want = model.predict([a, b], PROMPT, state=STATE, seed=0)
    got = model.predict({"image": a, "wrist_image": b, "state": STATE}, PROMPT, seed=0)
    assert np.array_equal(want, got)
    as_float = [x.astype(np.float32) / 255 * 2 - 1 for x in (a, b)]
    assert np.allclose(model.predict(as_float, PROMPT, state=STATE, seed=0), want, atol=1e-4)
    assert np.allclose(model.predict([a, as_float[1]], PROMPT, state=STATE, seed=0), want, atol=1e-4)


def test_first_call_needs_a_prompt(model) -> None:
    with pytest.raises(ValueError, match="prompt is required on first call"):
        model.predict(images(), state=STATE)


def test_state_snapshot_detects_in_place_mutation(model) -> None:
    state = STATE.copy()
    first = model.predict(images(), PROMPT, state=state, seed=0)
    state += 0.5
    assert not np.allclose(first, model.predict(images(), state=state, seed=0))


def test_explicit_state_is_for_the_prompt_and_the_observation_keeps_its_own(model, monkeypatch) -> None:
    seen = {}
    pipe_infer, pipe_prompt = model._pipe.infer, model._pipe.set_prompt

    def infer(observation, **kw):
        seen["observation"] = observation["state"]
        return pipe_infer(observation, **kw)

    def set_prompt(prompt, state=None):
        seen["prompt"] = state
        return pipe_prompt(prompt, state)

    monkeypatch.setattr(model._pipe, "infer", infer)
    monkeypatch.setattr(model._pipe, "set_prompt", set_prompt)
    own = STATE + 0.1
    monkeypatch.setattr(model, "_prompt", None)
    infer.__signature__ = inspect.signature(pipe_infer)
    model.predict({"images": images(), "state": own}, PROMPT, state=STATE, seed=0)
    assert np.array_equal(seen["observation"], own) and np.array_equal(seen["prompt"], STATE)


def test_set_prompt_and_infer_are_delegates(model) -> None:
    model.set_prompt(PROMPT, STATE)
    assert model.prompt == PROMPT
    a = model.infer({"images": images(), "state": STATE}, seed=1)["actions"]
    assert np.array_equal(a, model.predict(images(), state=STATE, seed=1))


def test_warm_state_prompt_buckets(model) -> None:
    states = [STATE, STATE * 0, STATE - 5]
    lengths = model.warm_state_prompt_buckets(images(), PROMPT, states)
    assert lengths == sorted(set(lengths)) and all(isinstance(n, int) for n in lengths) and model.prompt is None
    with pytest.raises(ValueError, match="states"):
        model.warm_state_prompt_buckets(images(), PROMPT, [])


class NoState:
    """A plug-in frontend with neither state in its prompt nor optional hooks."""

    def __init__(self, checkpoint, *, num_views=2):
        self.prompts, self.num_views = [], num_views

    def set_prompt(self, prompt):
        self.prompts.append(prompt)

    def infer(self, observation):
        return {"actions": np.zeros((2, 3), np.float32)}


def test_frontends_without_state_are_never_prompted_for_it() -> None:
    pipe = NoState("x")
    model = VLAModel(pipe, "torch")
    for state in (None, STATE, STATE + 1):
        model.predict(images(), PROMPT, state=state)
    model.predict(images(), "other")
    assert pipe.prompts == [PROMPT, "other"]
    with pytest.raises(NotImplementedError):
        model.warm_state_prompt_buckets(images(), PROMPT, [STATE])
    with pytest.raises(ConfigError, match="seed"):
        model.predict(images(), PROMPT, seed=1)


def test_plugin_rows_can_be_added(monkeypatch, checkpoint) -> None:
    monkeypatch.setitem(_PIPELINE_MAP, ("toy", "torch", "toyhw"), (__name__, "NoState"))
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
    model = load_model(checkpoint, config="toy", hardware="toyhw", num_views=3)
    assert model._pipe.num_views == 3
    with pytest.raises(ConfigError, match=r"num_steps=5.*not an option of toy/torch/toyhw"):
        load_model(checkpoint, config="toy", hardware="toyhw", num_steps=5)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (dict(num_step=5), "did you mean 'num_steps'"),
        (dict(use_fp4=True), "use_fp4=True.*not an option of pi05/torch/host"),
        (dict(use_fp16=True), "use_fp16=True"),
        (dict(embodiment_tag="gr1"), "embodiment_tag"),
        (dict(action_horizon=5), "action_horizon"),
        (dict(decode_cuda_graph=True), "decode_cuda_graph"),
        (dict(config="pi06"), "config.*did you mean"),
        (dict(framework="tf"), "framework"),
        (dict(hardware="hoper"), "did you mean 'hopper'"),
        (dict(num_views=0), "num_views"),
        (dict(num_views=3), "num_views.*at most the 2 views"),
        (dict(num_steps=0), "num_steps"),
        (dict(vision_pool_factor=3), "vision_pool_factor"),
        (dict(vision_num_layers=0), "vision_num_layers"),
        (dict(vision_num_layers=28), "vision_num_layers"),
        (dict(cache_frames=0), "cache_frames"),
        (dict(state_prompt_mode="sometimes"), "state_prompt_mode"),
        (dict(autotune=-1), "autotune"),
    ],
    ids=str,
)
def test_F61_bad_option_is_refused_by_name(checkpoint, option: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as e:
        load_model(checkpoint, **({"hardware": "host"} | option))
    assert isinstance(e.value, ValueError)


@pytest.mark.parametrize("hardware", ["thor", "rtx_sm120"])
def test_hardware_that_is_not_here_is_not_built(checkpoint, hardware: str) -> None:
    with pytest.raises(NotBuilt, match=hardware) as e:
        load_model(checkpoint, hardware=hardware)
    assert isinstance(e.value, RuntimeError) and "host" in str(e.value)


def test_hopper_without_the_kernels_says_how_to_build_them(checkpoint, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "flashrt_core._kernels", None)
    monkeypatch.delattr("flashrt_core._kernels", raising=False)
    with pytest.raises(NotBuilt, match=r"cmake --build .*hardware=\"host\""):
        load_model(checkpoint, hardware="hopper")


def test_host_is_chosen_without_a_gpu_and_says_so(checkpoint, caplog, monkeypatch) -> None:
    monkeypatch.setattr("flashrt_core.hardware.compute_capability", lambda: None)
    with caplog.at_level(logging.INFO):
        assert load_model(checkpoint).hardware == "host"
    assert any("host" in r.message for r in caplog.records)


BLACK = np.zeros((28, 28, 3), np.uint8)
NAN_IMAGE = np.full((28, 28, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ([], "at least one frame"),
        (BLACK, "list of numpy arrays or a dict"),
        ("images", "list of numpy arrays or a dict"),
        ([BLACK], "expected 2 views"),
        ([BLACK] * 3, "expected 2 views"),
        ([BLACK, BLACK[:27]], r"image 1 \(wrist\).*shape \(28, 28, 3\).*found shape \(27, 28, 3\)"),
        ([BLACK[..., :1], BLACK], r"image 0 \(agentview\)"),
        ([BLACK.astype(np.int64), BLACK], "dtype int64"),
        ([NAN_IMAGE, BLACK], "finite"),
        ([BLACK.astype(np.float32) + 255, BLACK], r"within \[-1, 1\]"),
        ({"image": BLACK}, "wrist_image"),
        ({"image": BLACK, "wrist_image": BLACK, "wrist_image_right": BLACK}, "wrist_image_right"),
        ({"pixels": BLACK}, "keys pixels"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_images_are_named(model, observation, words: str) -> None:
    before = model.predict(images(), PROMPT, state=STATE, seed=0)
    with pytest.raises(ObservationError, match=words) as e:
        model.predict(observation, PROMPT, state=STATE, seed=0)
    assert isinstance(e.value, ValueError)
    assert np.array_equal(model.predict(images(), PROMPT, state=STATE, seed=0), before), "the model is unharmed"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "8 values.*found none"),
        (STATE[:7], r"shape \(8,\).*found shape \(7,\)"),
        (np.where(np.arange(8) == 3, np.nan, STATE), "finite values, found nan at index 3"),
        (np.where(np.arange(8) == 0, -np.inf, STATE), "-inf at index 0"),
        (["a"] * 8, "8 numbers"),
    ],
    ids=["none", "short", "nan", "inf", "text"],
)
def test_F14_bad_state_is_named(model, state, words: str) -> None:
    with pytest.raises(ObservationError, match=words):
        model.predict(images(), PROMPT, state=state)


@pytest.mark.parametrize("noise", [np.zeros((1, 32)), np.full((6, 32), np.nan)], ids=["shape", "nan"])
def test_bad_noise_is_refused(model, noise) -> None:
    with pytest.raises(ObservationError, match="noise"):
        model.predict(images(), PROMPT, state=STATE, noise=noise)


def test_infer_before_a_prompt(checkpoint) -> None:
    with pytest.raises(RuntimeError, match="set_prompt first"):
        load_model(checkpoint, hardware="host").infer({"images": images()})


# ---- FP8


def observations(n: int) -> list[dict]:
    return [{"images": images(i), "state": STATE * (i + 1) / n} for i in range(n)]


@pytest.fixture()
def fp8(checkpoint, tmp_path):
    return load_model(checkpoint, hardware="host", use_fp8=True, calibration_dir=tmp_path)


def test_fp8_calibrates_on_the_first_observation_and_says_what_it_used(fp8, model) -> None:
    assert fp8.precision_spec is None
    got, want = (m.predict(images(), PROMPT, state=STATE, seed=0) for m in (fp8, model))
    assert not np.array_equal(got, want) and np.abs(got - want).max() < 0.5
    spec = fp8.precision_spec
    spec.validate()
    assert len(spec.activation_specs) == len(fp8._pipe.MODEL.site_names(TINY)) and spec.weight_specs
    assert np.array_equal(got, fp8.predict(images(), state=STATE, seed=0))


def test_calibrate_rules(fp8, model, caplog) -> None:
    with pytest.raises(RuntimeError, match="set_prompt first"):
        fp8.calibrate(observations(2))
    fp8.set_prompt(PROMPT, STATE)
    with pytest.raises(ValueError, match="observations"):
        fp8.calibrate([])
    with pytest.raises(ValueError, match="percentile"):
        fp8.calibrate(observations(1), percentile=101)
    with pytest.raises(ConfigError, match="use_fp8=True"):
        model.calibrate(observations(1))
    fp8.calibrate(observations(5), percentile=100, max_samples=3)
    assert next(iter(fp8.precision_spec.activation_specs.values())).calibration_samples == 3
    fp8.calibrate(observations(2))
    assert "already calibrated" in caplog.text


def test_scales_are_cached_and_found_again(checkpoint, fp8, tmp_path) -> None:
    fp8.set_prompt(PROMPT, STATE)
    fp8.calibrate(observations(3))
    again = load_model(checkpoint, hardware="host", use_fp8=True, calibration_dir=tmp_path)
    assert again.precision_spec == fp8.precision_spec
    want = fp8.predict(images(), PROMPT, state=STATE, seed=0)
    assert np.array_equal(again.predict(images(), PROMPT, state=STATE, seed=0), want)
    other = load_model(checkpoint, hardware="host", use_fp8=True, calibration_dir=tmp_path, num_steps=3)
    assert other.precision_spec is None, "scales of another number of steps are not reused"
    fresh = load_model(checkpoint, hardware="host", use_fp8=True, calibration_dir=tmp_path, recalibrate=True)
    assert fresh.precision_spec is None


def test_recalibrate_measures_again(fp8) -> None:
    fp8.predict(images(), PROMPT, state=STATE, seed=0)
    first = fp8.precision_spec
    fp8.recalibrate()
    assert fp8.precision_spec is None
    fp8.predict(images(5), PROMPT, state=STATE, seed=0)
    assert fp8.precision_spec != first


def test_F60_a_finetune_never_gets_the_scales_of_its_base(checkpoint, fp8, tmp_path) -> None:
    """Same layout, same size, other weights: upstream's key (64 KB and the size) cannot tell them apart."""
    fp8.set_prompt(PROMPT, STATE)
    fp8.calibrate(observations(2))
    tuned = write_checkpoint(tmp_path / "tuned", seed=1)
    assert (tuned / "model.safetensors").stat().st_size == (checkpoint / "model.safetensors").stat().st_size
    assert load_model(tuned, hardware="host", use_fp8=True, calibration_dir=tmp_path).precision_spec is None


def test_cache_frames_reuses_the_prefix_for_one_call(checkpoint) -> None:
    m = load_model(checkpoint, hardware="host", cache_frames=2)
    full = m.predict(images(0), PROMPT, state=STATE, seed=0)
    assert np.array_equal(m.predict(images(1), PROMPT, state=STATE, seed=0), full), "second call: the cached prefix"
    third = m.predict(images(1), PROMPT, state=STATE, seed=0)
    assert not np.allclose(third, full)
    other = m.predict(images(1), "push the blue bowl", state=STATE, seed=0)
    assert not np.allclose(other, third), "another prompt is never answered from the cache"
