"""The public entry: `load_model` gives a `VLAModel`, whose `predict` turns images and a prompt into an action chunk."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ConfigError, FlashRTError, NotBuilt, ObservationError, nearest
from .hardware import _PIPELINE_MAP, ARCHS, detect_arch, resolve_pipeline_class

logger = logging.getLogger(__name__)

# Models of the documented API; which of them this build serves is what _PIPELINE_MAP says.
CONFIGS = ("pi05", "pi0", "pi0fast", "groot", "groot_n17", "motus", "wan22_ti2v_5b", "cosmos3_video")
FRAMEWORKS = ("torch", "jax")


def load_model(
    checkpoint: str | Path,
    framework: str = "torch",
    num_views: int = 2,
    autotune: int | bool = 3,
    recalibrate: bool = False,
    weight_cache: bool = True,
    config: str = "pi05",
    device: Any = None,
    decode_cuda_graph: bool = False,
    decode_graph_steps: int = 80,
    max_decode_steps: int = 256,
    hardware: str = "auto",
    embodiment_tag: str | None = None,
    action_horizon: int | None = None,
    use_fp4: bool = False,
    fp4_layers: Sequence[int] | None = None,
    use_awq: bool | None = None,
    awq_alpha: float = 0.5,
    use_p1_split_gu: bool | None = None,
    num_steps: int | None = None,
    vision_pool_factor: int | None = None,
    vision_num_layers: int | None = None,
    cache_frames: int | None = None,
    use_fp16: bool = False,
    use_fp8: bool | None = None,
    state_prompt_mode: str = "exact",
    *,
    profile: str | Path | None = None,
    tokenizer: str | Path | None = None,
    calibration_dir: str | Path | None = None,
    autotune_dir: str | Path | None = None,
    allow_unverified: bool = False,
    image_sizes: Sequence[Any] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    **unknown: Any,
) -> VLAModel:
    """Load a policy for this machine.

    checkpoint: folder with `model.safetensors` (or a sharded index), statistics, tokenizer and profile.
    config, framework: which model, from which weights. hardware: "auto" (the GPU, else the CPU) or an arch string;
    "host" is the CPU. num_views: cameras, 1..3, in the order of the profile's `views`.
    num_steps: denoise steps (default: the profile's). vision_pool_factor: 1, 2 or 4. vision_num_layers: first layers
    of the vision tower to run. cache_frames: n > 1 runs images and prompt on every n-th call only (and whenever the
    prompt's tokens change); the calls between denoise new noise against the cached prefix.
    use_fp8: True: static FP8 (on the host emulated by rounding, for studying precision); False: none; None: what the
    hardware does best (host: fp32). recalibrate: forget cached scales of this checkpoint first.
    autotune: 0 off, 3 default, 5+ thorough (True = 3, False = 0); the host has one variant of each op and tunes nothing.
    profile: a built-in profile's name or a file, for checkpoints that do not say how they were trained.
    tokenizer: a SentencePiece model file, else looked up (see docs/checkpoints.md). calibration_dir: where scales are
    cached (default ~/.cache/flashrt/calibration). autotune_dir: where tuned choices are kept, by GPU, shape and library
    version (default ~/.cache/flashrt/autotune). allow_unverified: load although the manifest does not match.
    image_sizes: (height, width) of the pictures that `predict` will get, per view or one pair for all; they are resized with
    padding on the device. None: squares of the model's size, which are always taken too.
    seed: of the model's own noise generator. progress: called with one line per load step. device: reserved.

    ConfigError (a ValueError) for an unknown config, framework or option, or one that the chosen frontend does not have:
    an option is never dropped. NotBuilt (a RuntimeError) when no pipeline exists for this hardware. CheckpointError.
    """
    options = dict(locals())
    if unknown:
        name = next(iter(unknown))
        raise ConfigError(f"option {name!r}", found="unknown to load_model", hint=nearest(name, _DEFAULTS))
    for key, value, known in (("config", config, _configs()), ("framework", framework, FRAMEWORKS)):
        if value not in known:
            raise ConfigError(
                key, expected=f"one of {', '.join(known)}", found=repr(value), hint=nearest(str(value), known)
            )
    options["autotune"] = {True: 3, False: 0}[autotune] if isinstance(autotune, bool) else autotune
    arch = detect_arch() if hardware == "auto" else hardware
    if arch not in {*ARCHS, *(a for _, _, a in _PIPELINE_MAP)}:
        raise ConfigError(
            "hardware", expected=f"auto or one of {', '.join(ARCHS)}", found=repr(arch), hint=nearest(arch, ARCHS)
        )
    frontend = resolve_pipeline_class(config, framework, arch)
    pipe = frontend(checkpoint, **_forwarded(frontend, options, f"{config}/{framework}/{arch}"))
    model = VLAModel(pipe, framework)
    if recalibrate:
        model.recalibrate()
    return model


_DEFAULTS = {
    name: p.default
    for name, p in inspect.signature(load_model).parameters.items()
    if p.kind is not inspect.Parameter.VAR_KEYWORD
}
_HERE = {"checkpoint", "framework", "config", "hardware", "recalibrate", "device"}  # settled before the frontend


def _configs() -> tuple[str, ...]:
    return tuple(dict.fromkeys([*CONFIGS, *(c for c, _, _ in _PIPELINE_MAP)]))


def _forwarded(frontend: type, options: dict[str, Any], asked: str) -> dict[str, Any]:
    """The options that the frontend's constructor takes; ConfigError for a changed one that it does not."""
    parameters = inspect.signature(frontend).parameters
    out = {}
    for name, default in _DEFAULTS.items():
        if name in _HERE:
            continue
        if name in parameters:
            out[name] = options[name]
        elif options[name] != default:
            raise ConfigError(
                f"option {name}={options[name]!r}", found=f"not an option of {asked}",
                hint=nearest(name, [p for p in parameters if p in _DEFAULTS and p not in _HERE]),
            )  # fmt: skip
    return out


class VLAModel:
    """A loaded policy. Not thread-safe: serve it from one thread (`runtime/rtc.py` does)."""

    def __init__(self, pipe: Any, framework: str):
        self._pipe, self._framework = pipe, framework
        self._prompt: str | None = None
        self._state: np.ndarray | None = None
        self._infer_takes = frozenset(inspect.signature(pipe.infer).parameters)
        self._state_in_prompt = "state" in inspect.signature(pipe.set_prompt).parameters

    @property
    def framework(self) -> str:
        return self._framework

    @property
    def hardware(self) -> str:
        """Arch string of the machine that the frontend runs on."""
        return self._pipe.machine.arch

    @property
    def prompt(self) -> str | None:
        """The prompt that the next `predict` without one uses."""
        return self._prompt

    @property
    def precision_spec(self) -> Any:
        """ModelPrecisionSpec of a calibrated FP8 model, else None."""
        return getattr(self._pipe, "precision_spec", None)

    def set_prompt(self, *args: Any, **kwargs: Any) -> Any:
        """The frontend's `set_prompt`: for Pi0.5 (prompt, state=None)."""
        result = self._pipe.set_prompt(*args, **kwargs)
        prompt = args[0] if args else kwargs.get("prompt")
        self._prompt = prompt if isinstance(prompt, str) else None
        state = args[1] if len(args) > 1 else kwargs.get("state")
        self._state = None if state is None else np.array(state, copy=True)
        return result

    def infer(self, *args: Any, **kwargs: Any) -> Any:
        """The frontend's `infer`: for Pi0.5 (observation, seed=None, noise=None) -> {"actions": ...}."""
        return self._pipe.infer(*args, **kwargs)

    def predict(
        self,
        images: Sequence[Any] | Mapping[str, Any],
        prompt: str | None = None,
        state: Any = None,
        *,
        seed: int | None = None,
        noise: Any = None,
    ) -> np.ndarray:
        """One action chunk, float32 [horizon, robot_action_dim] in the robot's units.

        images: one (S, S, 3) RGB image per view (uint8, or float in [-1, 1]; uint8 also of the `image_sizes` at load), or a
        dict with "image", "wrist_image",
        "wrist_image_right" (and possibly "state"). prompt: needed on the first call, then kept. state: raw, as the
        robot reports it; the checkpoint's statistics normalise it. An explicit `state` goes into the prompt; the
        observation keeps its own if it has one. seed or noise [horizon, action_dim] fix the result bit for bit.
        ObservationError (a ValueError) names what is wrong with the input; the model stays usable.
        """
        observation = _observation(images, state)
        if prompt is None and self._prompt is None:
            raise ObservationError("prompt", hint="a prompt is required on first call")
        self._refresh_prompt(prompt if prompt is not None else self._prompt, observation, state)
        extra = {k: v for k, v in (("seed", seed), ("noise", noise)) if v is not None}
        for name in extra:
            if name not in self._infer_takes:
                raise ConfigError(f"option {name!r}", found=f"not an option of {type(self._pipe).__name__}.infer")
        return self._pipe.infer(observation, **extra)["actions"]

    def _refresh_prompt(self, prompt: str, observation: Mapping[str, Any], state: Any) -> None:
        """Set the prompt again when its text, or the state that goes into it, is another than last time."""
        if not self._state_in_prompt:
            if prompt != self._prompt:
                self.set_prompt(prompt)
            return
        state = observation.get("state") if state is None else state
        same_state = (
            self._state is None if state is None else self._state is not None and np.array_equal(state, self._state)
        )
        if prompt != self._prompt or not same_state:
            self.set_prompt(prompt, state)

    def calibrate(
        self,
        observations: Sequence[Mapping[str, Any]],
        *,
        percentile: float = 99.9,
        max_samples: int | None = None,
        verbose: bool = False,
    ) -> None:
        """Measure the FP8 activation scales on observations (dicts as for `predict`), after `set_prompt`."""
        self._pipe.calibrate(observations, percentile=percentile, max_samples=max_samples, verbose=verbose)

    def recalibrate(self) -> None:
        """Forget the calibration, also the cached one; the next `predict` measures again and needs no other call."""
        self._pipe.clear_calibration()

    def warm_state_prompt_buckets(
        self, images: Sequence[Any] | Mapping[str, Any], prompt: str, states: Sequence[Any]
    ) -> list[int]:
        """Prepare the prompt lengths of representative states; the sorted distinct lengths. `prompt` is None afterwards.

        NotImplementedError when the frontend has no state in its prompt to prepare.
        """
        hook = getattr(self._pipe, "warm_state_prompt_buckets", None)
        if hook is None:
            raise _NoHook(f"{type(self._pipe).__name__}.warm_state_prompt_buckets", found="no such hook")
        lengths = hook(_observation(images, None), prompt, states)
        self._prompt, self._state = None, None
        return lengths


class _NoHook(NotBuilt, NotImplementedError):
    """A frontend lacks an optional hook."""


def _observation(images: Any, state: Any) -> dict[str, Any]:
    if isinstance(images, Mapping):
        observation = dict(images)
    elif isinstance(images, Sequence) and not isinstance(images, str | bytes):
        if not len(images):
            raise ObservationError("images", hint="images list must have at least one frame")
        observation = {"images": list(images)}
    else:
        raise ObservationError(
            "images", expected="images must be a list of numpy arrays or a dict", found=type(images).__name__
        )
    if state is not None:
        observation.setdefault("state", state)
    return observation


__all__ = ["CONFIGS", "FRAMEWORKS", "FlashRTError", "VLAModel", "load_model"]
