"""The life of a frontend, written once: load -> plan -> calibrate -> capture -> infer.

A subclass is a class with attributes: MODEL (the model's module of sizes, buffers, prompt and actions), PIPELINE (the order
of calls and the plans of one hardware), MACHINE (the hardware), SPEC (weight spec builder) and LOADER.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..core.checkpoint import Checkpoint, open_checkpoint
from ..core.quant.calibrator import CalibrationResult, clear_calibration, load_calibration, save_calibration
from ..core.quant.precision import ModelPrecisionSpec
from ..core.tokenizer import load_tokenizer
from ..core.utils.norm_stats import NormStats, load_norm_stats, normalize
from ..errors import ConfigError, NotBuilt, ObservationError
from .calibrate import measure_means, measure_scales
from .camera_images import camera_sizes
from .memory import within_memory
from .observation import image_views, noise_array, vector
from .program import Program, Variant, full_variant

logger = logging.getLogger(__name__)


class NotReady(NotBuilt):
    """A step was asked for before the one it needs (a RuntimeError)."""


class Frontend:
    """One policy on one machine. Not thread-safe: one caller at a time."""

    MODEL: ClassVar[Any]
    PIPELINE: ClassVar[Any]
    MACHINE: ClassVar[Callable[[], Any]]
    SPEC: ClassVar[Callable[..., Any]]
    LOADER: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint,
        *,
        num_views: int = 2,
        use_fp8: bool | None = None,
        num_steps: int | None = None,
        vision_pool_factor: int | None = None,
        vision_num_layers: int | None = None,
        cache_frames: int | None = None,
        state_prompt_mode: str = "exact",
        autotune: int = 3,
        weight_cache: bool = True,
        profile: str | Path | None = None,
        tokenizer: str | Path | None = None,
        calibration_dir: str | Path | None = None,
        autotune_dir: str | Path | None = None,
        allow_unverified: bool = False,
        image_sizes: Any = None,
        seed: int = 0,
        progress: Callable[[str], None] | None = None,
    ):
        """See `flashrt_core.load_model` for the arguments; raises the errors named there."""
        self._say = progress or (lambda text: logger.info("%s", text))
        self.cache_frames = 1 if cache_frames is None else cache_frames
        if self.cache_frames < 1:
            raise ConfigError("cache_frames", expected="an integer >= 1", found=cache_frames)
        if autotune < 0:
            raise ConfigError("autotune", expected="0 (off) or more", found=autotune)
        if state_prompt_mode not in ("exact", "fixed"):  # both are the fixed shape here: the valid length is data
            raise ConfigError("state_prompt_mode", expected="'exact' or 'fixed'", found=repr(state_prompt_mode))
        self._say("opening checkpoint")
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else open_checkpoint(Path(checkpoint))
        if self._wants_fp8(use_fp8):
            self.checkpoint.digest_soon()  # the calibration cache asks for it
        self.verified = self.checkpoint.verify(allow_unverified=allow_unverified)
        self.profile = self.MODEL.load_profile(self.checkpoint.dir, profile)
        self.dims = self.MODEL.loaded_dims(
            self.profile,
            num_views=num_views,
            num_steps=num_steps,
            pool=vision_pool_factor,
            vision_layers=vision_num_layers,
        )
        self.image_sizes = camera_sizes(image_sizes, num_views, self.dims.vision.image_size)
        self.stats = load_norm_stats(self.checkpoint.dir, self.profile)
        self.tokenizer = load_tokenizer(self.checkpoint.dir, expected_vocab=self.dims.vocab_size, path=tokenizer)
        self._views = self.profile.views[:num_views]
        self.quantised = self._wants_fp8(use_fp8)
        if self.quantised and self.PIPELINE.PLAN_FP8 is None:
            raise NotBuilt(f"FP8 on {self.MACHINE.arch}", found="no FP8 units there", hint="use_fp8=False runs in BF16")
        self.machine = self.MACHINE()
        self.machine.autotune, self.machine.autotune_dir = autotune, autotune_dir
        self._calibration_dir = calibration_dir
        self._random = np.random.default_rng(seed)
        self._text: str | None = None
        self._tokens: list[int] | None = None
        self._frames, self._cached_for = 0, None
        self._calibration: CalibrationResult | None = None
        self._say("checking weights")
        self.checkpoint.check_finite()
        if not self.quantised:
            self._serve(self._program("pi", self.PIPELINE.PLAN_WIDE))
        else:
            self._program_served: Program | None = None
            self._restore_calibration()

    @classmethod
    def _wants_fp8(cls, use_fp8: bool | None) -> bool:
        return cls.PIPELINE.FP8_BY_DEFAULT if use_fp8 is None else bool(use_fp8)

    # ---- load and plan

    def _program(self, name: str, plan: Any, means: Mapping[str, np.ndarray] | None = None) -> Program:
        """Buffers and weights of a plan; means: of the GEMMs' inputs, see `calibrate`. The tensors live in `program.tensors`.
        DeviceError (F35) when they do not fit."""
        self._say(f"loading weights ({plan.name})")
        return within_memory(self.machine, lambda: self._loaded(name, plan, means), self._bytes_of(plan))

    def _loaded(self, name: str, plan: Any, means: Mapping[str, np.ndarray] | None) -> Program:
        program = Program(name, self.machine, self.MODEL, self.PIPELINE, self.dims, plan)
        program.tensors, program.weight_scales = self.LOADER(self, plan, means)
        program.weights = self.MODEL.weights_at(
            program.tensors, self.dims, plan, self.machine.ptr, self.machine.ptr(program.tensors.styles)
        )
        return program

    def _bytes_of(self, plan: Any) -> int:
        """About what a program of this plan takes: its buffers and the checkpoint's tensors at the plan's precision."""
        numbers = sum(math.prod(shape) for shape in self.MODEL.expected_tensors(self.dims).values())
        return self.MODEL.buffer_plan(self.dims, plan).nbytes + numbers * plan.encoder.act.nbytes

    def _serve(self, program: Program) -> None:
        self._say("capturing")

        def captured() -> None:
            program.capture()
            program.fit_cameras(self.image_sizes)

        within_memory(self.machine, captured, 0)
        self.machine.trim()
        self._program_served, self._cached_for = program, None

    # ---- calibrate

    @property
    def calibrated(self) -> bool:
        """Whether a forward can run: always without FP8."""
        return self._program_served is not None

    @property
    def precision_spec(self) -> ModelPrecisionSpec | None:
        """Scales of every quantised tensor; None without FP8 or before calibration."""
        if self._calibration is None or self._program_served is None:
            return None
        return self._calibration.precision_spec(self._program_served.weight_scales)

    def calibrate(
        self,
        observations: Sequence[Mapping[str, Any]],
        *,
        percentile: float = 99.9,
        max_samples: int | None = None,
        verbose: bool = False,
    ) -> None:
        """Measure activation scales on observations (images, state, optional own `prompt`), then load and capture in FP8.

        Needs `set_prompt` unless every observation has a prompt. A second call warns and returns (`recalibrate` first).
        ConfigError without FP8, for no observations, or when a site saturates (F43).
        """
        if not self.quantised:
            raise ConfigError(
                "calibrate", expected="a model loaded with use_fp8=True", found=self.PIPELINE.PLAN_WIDE.name
            )
        if not observations:
            raise ConfigError("observations", expected="at least one", found="none")
        if self.calibrated:
            logger.warning("already calibrated; recalibrate() first to measure again")
            return
        if max_samples is not None:
            if max_samples < 1:
                raise ConfigError("max_samples", expected="an integer >= 1", found=max_samples)
            observations = observations[:max_samples]
        samples = [self._sample(obs, i) for i, obs in enumerate(observations)]
        say = self._say if verbose else logger.debug
        means = measure_means(self._program("calibration", self.PIPELINE.PLAN_FP8), samples, say)
        self.machine.trim()  # the memory of that program is what the next one is loaded into
        program = self._program("fp8", self.PIPELINE.PLAN_FP8, means)
        result = measure_scales(program, samples, percentile, say)
        for warning in result.warnings:
            logger.warning("calibration: %s", warning)
        self._serve_quantised(program, result)
        save_calibration(
            self.checkpoint.dir,
            self.dims.prefix_rows,
            metadata={k: v for k, v in result.to_dict().items() if k != "scales"},
            activation_scales=result.scales,
            weight_scales=program.weight_scales,
            input_means=means,
            **self._cache_key(),
        )

    def _sample(self, obs: Mapping[str, Any], index: int) -> tuple[list[np.ndarray], list[int], np.ndarray]:
        """Inputs of one calibration forward: images, tokens, seeded noise."""
        text = obs.get("prompt", self._text)
        if text is None:
            raise NotReady("calibrate", expected="set_prompt first, or a prompt in each observation", found="neither")
        images = self._images(obs)
        noise = np.random.default_rng([0, index]).standard_normal(self._noise_shape, dtype=np.float32)
        return images, self._encode_prompt(text, obs.get("state")), noise

    def _serve_quantised(self, program: Program, result: CalibrationResult) -> None:
        program.set_scales(result.scales)
        self._calibration = result
        self._serve(program)

    def _cache_key(self) -> dict[str, Any]:
        d = self.dims
        shape = (
            f"views={d.num_views} steps={d.num_steps} pool={d.pool} layers={d.vision_layers} horizon={d.horizon} "
            f"stats={_stats_digest(self.stats)} state_in_prompt={self.profile.state_in_prompt}"
        )
        return dict(
            hardware=self.machine.arch, shape=shape, plan=repr(self.PIPELINE.PLAN_FP8),
            digest=self.checkpoint.digest(), cache_dir=self._calibration_dir,
        )  # fmt: skip

    def _restore_calibration(self) -> None:
        cached = load_calibration(self.checkpoint.dir, self.dims.prefix_rows, **self._cache_key())
        if cached is None:
            return
        scales, means = cached["activation_scales"], cached["input_means"]
        sites = set(self.MODEL.site_names(self.dims))
        if set(scales) != sites or set(means) != {self.MODEL.weight_site(site) for site in sites}:
            logger.warning("calibration cache has other sites than this model; measuring again")
            return
        self._say("calibration found in the cache")
        program = self._program("fp8", self.PIPELINE.PLAN_FP8, means)
        self._serve_quantised(program, CalibrationResult.from_dict({"scales": scales, **cached["metadata"]}))

    def clear_calibration(self) -> None:
        """Forget the scales, in memory and in the cache. The next `infer` measures again."""
        clear_calibration(self.checkpoint.dir, digest=self.checkpoint.digest(), cache_dir=self._calibration_dir)
        if self.quantised:
            self._program_served, self._calibration = None, None

    # ---- prompt

    def set_prompt(self, prompt: str, state: Any = None) -> None:
        """Tokenise the prompt, with the raw state [state_dim] where the profile puts it in the prompt.

        ObservationError when it cannot be a prompt, does not fit the capacity, or the state is missing or broken.
        """
        if prompt == self._text and self._tokens is not None and not self.profile.state_in_prompt:
            return  # the state is new, the tokens are not
        self._tokens = self._encode_prompt(prompt, state)
        self._text = prompt

    def _encode_prompt(self, prompt: str, state: Any) -> list[int]:
        normalised = None
        if self.profile.state_in_prompt:
            if state is None:
                raise ObservationError(
                    "state",
                    expected=f"{self.profile.state_dim} values: profile {self.profile.name!r} puts the state in the prompt",
                    found="none",
                )
            normalised = normalize(
                vector(state, "state", self.profile.state_dim),
                self.stats.state, self.profile.state_norm, self.profile.norm_eps,
            )  # fmt: skip
        return self.MODEL.tokenize(prompt, normalised, self.tokenizer, self.dims.prompt_capacity)

    def warm_state_prompt_buckets(self, images: Any, prompt: str, states: Sequence[Any]) -> list[int]:
        """Sorted distinct prompt lengths of the states. Shapes are fixed here, so nothing has to be built for a length."""
        if not len(states):
            raise ConfigError("states", expected="at least one", found="none")
        return sorted({len(self._encode_prompt(prompt, state)) for state in states})

    # ---- infer

    @property
    def _noise_shape(self) -> tuple[int, int]:
        return (self.dims.horizon, self.dims.action_dim)

    def infer(
        self, observation: Mapping[str, Any], *, seed: int | None = None, noise: Any = None
    ) -> dict[str, np.ndarray]:
        """{"actions": float32 [horizon, robot_action_dim]} of one observation, with the prompt set before.

        Noise: `noise` [horizon, action_dim], else drawn from `seed`, else from the model's own generator (seeded at load).
        """
        if self._tokens is None:
            raise NotReady("infer", expected="set_prompt first", found="no prompt")
        images = self._images(observation)
        state = observation.get("state")
        if state is not None:
            state = vector(state, "state", self.profile.state_dim)
        if noise is None:
            random = self._random if seed is None else np.random.default_rng(seed)
            noise = random.standard_normal(self._noise_shape, dtype=np.float32)
        noise = noise_array(noise, self._noise_shape)
        if not self.calibrated:
            self.calibrate([observation])
        program = self._program_served
        variant = self._variant(images)
        program.write(None if variant == Variant.CACHED else images, self._tokens, noise)
        chunk = program.replay(variant)
        return {"actions": self.MODEL.robot_actions(chunk, self.profile, self.stats, state)}

    def _images(self, observation: Mapping[str, Any]) -> list[np.ndarray]:
        return image_views(observation, self._views, self.dims.vision.image_size, self.image_sizes)

    def _variant(self, images: list[np.ndarray]) -> Variant:
        """A whole forward on every `cache_frames`-th call, and whenever the prompt's tokens differ from the cached ones."""
        self._frames += 1
        due = self.cache_frames == 1 or self._frames % self.cache_frames == 1
        if due or self._cached_for != self._tokens:
            self._frames, self._cached_for = 1, list(self._tokens)
            return full_variant(images)
        return Variant.CACHED


def _stats_digest(stats: NormStats) -> str:
    """The statistics decide which state tokens the model sees, so scales belong to them too."""
    digest = hashlib.sha256()
    for block in (stats.state, stats.actions):
        for values in (block.mean, block.std, block.q01, block.q99):
            digest.update(b"-" if values is None else np.asarray(values, dtype=np.float64).tobytes())
    return digest.hexdigest()[:16]
