"""Reads the `config.json` of published Pi0.5 checkpoints: LeRobot's says enough for a profile, openpi's does not.

Sources: lerobot `policies/pi05/configuration_pi05.py`, `processor_pi05.py`, `processor/relative_action_processor.py`;
openpi `examples/convert_jax_model_to_pytorch.py` (the five keys that it writes).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.paths import confined
from ...core.strict_json import read_json
from ...errors import ConfigError
from .dims import GemmaDims, Pi05Dims, VisionDims
from .profile_file import Reader, variant

if TYPE_CHECKING:
    from .profile import Pi05Profile

CONFIG = "config.json"
UNDECIDED = (
    "views", "state_dim", "robot_action_dim", "state_in_prompt", "state_norm", "action_norm", "delta_action_dims",
    "prompt_capacity",
)  # fmt: skip
_NORM_MODES = {"QUANTILES": "quantile", "MEAN_STD": "zscore", "IDENTITY": "none"}
_STEPS = {
    "policy_preprocessor.json": (
        "rename_observations_processor", "to_batch_processor", "relative_actions_processor", "normalizer_processor",
        "pi05_prepare_state_tokenizer_processor_step", "tokenizer_processor", "device_processor",
    ),
    "policy_postprocessor.json": ("unnormalizer_processor", "absolute_actions_processor", "device_processor"),
}  # fmt: skip
_IMAGES = "observation.images."


def openpi_facts(config: Mapping | None) -> dict[str, int]:
    """The sizes that an openpi config.json states (action_dim, action_horizon); empty for any other config."""
    if config is None or "type" in config:
        return {}
    return {key: Reader(config, CONFIG).integer(key) for key in ("action_horizon", "action_dim") if key in config}


def from_config_json(config: Mapping, folder: Path, builtin: Mapping[str, Pi05Profile]) -> dict[str, object]:
    """Keyword arguments of Pi05Profile from a LeRobot config; ConfigError that lists what is open for any other."""
    if config.get("type") == "pi05":
        return _lerobot(config, folder)
    if "type" in config:
        raise ConfigError(f"{CONFIG}: type", expected="'pi05'", found=repr(config["type"])[:80])
    facts = openpi_facts(config)
    fitting = [
        name
        for name, p in builtin.items()
        if all({"action_horizon": p.dims.horizon, "action_dim": p.dims.action_dim}[k] == v for k, v in facts.items())
    ]
    raise ConfigError(
        f"profile of {folder.resolve().name}",
        expected="an answer for " + ", ".join(UNDECIDED),
        found=f"{CONFIG} without any of them",
        hint=f"Pass profile=: {', '.join(fitting) or 'no built-in one'} fits action_horizon="
        f"{facts.get('action_horizon', '?')}, or write flashrt_profile.json.",
    )


def _lerobot(config: Mapping, folder: Path) -> dict[str, object]:
    read = Reader(config, CONFIG)
    views = _views(config)
    before = _steps(folder, "policy_preprocessor.json")
    after = _steps(folder, "policy_postprocessor.json")
    norms = _norm_modes(config, before, after)
    state_dim = _feature_size(config, "input_features", "observation.state")
    action_dim = _feature_size(config, "output_features", "action")
    delta, delta_source = _delta(config, before, after, min(state_dim, action_dim), action_dim)
    names = before.get("tokenizer_processor", {}).get("tokenizer_name")
    if names is not None and "paligemma" not in str(names):
        raise ConfigError(
            "policy_preprocessor.json: tokenizer_name", expected="a PaliGemma tokenizer", found=repr(names)
        )
    eps = before.get("normalizer_processor", {}).get("eps", 1e-8)
    if type(eps) is not float or not 0 < eps < 1:
        raise ConfigError("policy_preprocessor.json: eps", expected="a number in (0, 1)", found=repr(eps))
    dims = Pi05Dims(
        vision=_vision(config),
        prefix=variant(config.get("paligemma_variant"), GemmaDims, f"{CONFIG}: paligemma_variant"),
        expert=variant(config.get("action_expert_variant"), GemmaDims, f"{CONFIG}: action_expert_variant"),
        action_dim=read.integer("max_action_dim"),
        horizon=read.integer("chunk_size"),
        prompt_capacity=read.integer("tokenizer_max_length"),
        num_views=len(views),
        num_steps=read.integer("num_inference_steps"),
        time_min_period=read.number("min_period") if "min_period" in config else Pi05Dims.time_min_period,
        time_max_period=read.number("max_period") if "max_period" in config else Pi05Dims.time_max_period,
    )
    origin = f"{CONFIG} (LeRobot)"
    decided = ("dims", "layout", "views", "action_horizon", "prompt_capacity", "num_steps", "state_dim", "state_norm")
    return {
        "name": folder.name or "lerobot",
        "dims": dims,
        "layout": "lerobot",
        "views": views,
        "state_dim": state_dim,
        "robot_action_dim": action_dim,
        "state_in_prompt": True,
        "state_norm": norms["STATE"],
        "action_norm": norms["ACTION"],
        "norm_eps": eps,
        "delta_action_dims": delta,
        "source": dict.fromkeys((*decided, "robot_action_dim", "action_norm"), origin)
        | {"state_in_prompt": "LeRobot's pi05 processor always puts it there", "delta_action_dims": delta_source}
        | {"norm_eps": "policy_preprocessor.json" if "normalizer_processor" in before else "LeRobot's default"},
    }


def _vision(config: Mapping) -> VisionDims:
    size = config.get("image_resolution", [224, 224])
    if not isinstance(size, list) or len(size) != 2 or size[0] != size[1] or type(size[0]) is not int:
        raise ConfigError(f"{CONFIG}: image_resolution", expected="[n, n]", found=repr(size)[:80])
    return dataclasses.replace(variant("so400m", VisionDims, CONFIG), image_size=size[0])


def _features(config: Mapping, key: str) -> Mapping:
    value = config.get(key)
    if not isinstance(value, Mapping) or not all(isinstance(v, Mapping) for v in value.values()):
        raise ConfigError(f"{CONFIG}: {key}", expected="an object of features", found=type(value).__name__)
    return value


def _views(config: Mapping) -> tuple[str, ...]:
    # An empty camera is a masked slot. Positions count unmasked tokens only, so leaving it out changes nothing.
    names = [
        name
        for name, feature in _features(config, "input_features").items()
        if feature.get("type") == "VISUAL" and not name.startswith(_IMAGES + "empty_camera_")
    ]
    if not 1 <= len(names) <= 3:
        raise ConfigError(f"{CONFIG}: input_features", expected="1 to 3 cameras", found=names)
    return tuple(name.removeprefix(_IMAGES) for name in names)


def _feature_size(config: Mapping, group: str, name: str) -> int:
    shape = _features(config, group).get(name, {}).get("shape")
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int or not 1 <= shape[0] <= 4096:
        raise ConfigError(f"{CONFIG}: {group}.{name}.shape", expected="[n]", found=repr(shape)[:80])
    return shape[0]


def _norm_modes(config: Mapping, before: Mapping, after: Mapping) -> dict[str, str]:
    """STATE and ACTION modes; the saved processors are what LeRobot runs, so they must agree with config.json."""
    modes = {}
    stated = config.get("normalization_mapping")
    if not isinstance(stated, Mapping):
        raise ConfigError(f"{CONFIG}: normalization_mapping", expected="an object", found=type(stated).__name__)
    if stated.get("VISUAL", "IDENTITY") != "IDENTITY":
        raise ConfigError(
            f"{CONFIG}: normalization_mapping.VISUAL", expected="'IDENTITY'", found=repr(stated["VISUAL"])
        )
    for kind, step, file in (
        ("STATE", before.get("normalizer_processor"), "policy_preprocessor.json"),
        ("ACTION", after.get("unnormalizer_processor"), "policy_postprocessor.json"),
    ):
        mode = stated.get(kind)
        if not isinstance(mode, str) or mode not in _NORM_MODES:
            raise ConfigError(
                f"{CONFIG}: normalization_mapping.{kind}",
                expected=f"one of {', '.join(_NORM_MODES)}",
                found=repr(mode)[:80],
            )
        saved = (step or {}).get("norm_map")
        if isinstance(saved, Mapping) and saved.get(kind, mode) != mode:
            raise ConfigError(
                f"{file}: norm_map.{kind}", expected=f"{mode!r}, as {CONFIG}", found=repr(saved[kind])[:80]
            )
        modes[kind] = _NORM_MODES[mode]
    return modes


def _steps(folder: Path, name: str) -> dict[str, Mapping]:
    """registry name -> config of a saved processor's steps; {} without the file. ConfigError for an unknown step."""
    path = confined(folder, name)
    if not path.exists():
        return {}
    content = read_json(path, max_bytes=1 << 20, error=ConfigError)
    steps = content.get("steps") if isinstance(content, Mapping) else None
    if not isinstance(steps, list) or not all(isinstance(s, Mapping) for s in steps):
        raise ConfigError(name, expected='{"steps": [...]}', found="something else")
    out = {}
    for step in steps:
        kind = step.get("registry_name")
        if kind not in _STEPS[name]:
            raise ConfigError(
                f"{name}: step {str(kind)[:80]!r}",
                expected=f"one of {', '.join(_STEPS[name])}",
                found="a step that this engine does not run",
                hint="If it does not change the values, write flashrt_profile.json or pass profile=.",
            )
        config = step.get("config") or {}
        if not isinstance(config, Mapping):
            raise ConfigError(f"{name}: {kind}", expected="an object as config", found=type(config).__name__)
        out[kind] = config
    return out


def _delta(
    config: Mapping, before: Mapping, after: Mapping, limit: int, action_dim: int
) -> tuple[tuple[int, ...], str]:
    """Dimensions that the model predicts relative to the state, and where that was read."""
    step = before.get("relative_actions_processor", {})
    enabled = {
        f"{CONFIG}: use_relative_actions": config.get("use_relative_actions"),
        "policy_preprocessor.json: relative_actions_processor": step.get("enabled"),
        "policy_postprocessor.json: absolute_actions_processor": after.get("absolute_actions_processor", {}).get(
            "enabled"
        ),
    }
    answers = {where: value for where, value in enabled.items() if value is not None}
    if not all(type(value) is bool for value in answers.values()) or len(set(answers.values())) > 1:
        raise ConfigError("relative actions", expected="one answer", found=answers)
    if not any(answers.values()):
        return (), next(iter(answers), "LeRobot's default")
    names = step.get("action_names") or config.get("action_feature_names")
    excluded = step.get("exclude_joints", config.get("relative_exclude_joints")) or []
    if not isinstance(excluded, list) or (names is not None and not isinstance(names, list)):
        raise ConfigError("relative actions", expected="lists of joint names", found=f"{excluded!r}, {names!r}"[:120])
    if excluded and names is None:
        raise ConfigError(
            "relative actions",
            expected="action_names, to know which dimensions exclude_joints leaves out",
            found=f"exclude_joints {excluded} alone",
        )
    tokens = [str(token).lower() for token in excluded if token]
    labels = [str(name).lower() for name in (names or [])][:action_dim]
    labels += [""] * (action_dim - len(labels))
    dims = tuple(i for i, label in enumerate(labels) if not any(token in label for token in tokens))
    if dims and dims[-1] >= limit:
        raise ConfigError(
            "relative actions", expected=f"state entries for dimensions {dims}", found=f"{limit} in common"
        )
    return dims, next(iter(answers))
