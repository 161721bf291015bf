"""Normalisation statistics of a checkpoint: found in its own folder, checked, applied by the formula of its project.

Sources: openpi `shared/normalize.py` and `transforms.py`; lerobot `processor/normalize_processor.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ...errors import CheckpointError, CheckpointNotFound, ConfigError
from ..paths import confined
from ..safetensors_file import SafetensorsFile
from ..strict_json import read_json

_MAX_BYTES = 4 << 20
_NAMES = ("mean", "std", "q01", "q99", "min", "max")
_PROCESSORS = (
    ("observation.state", re.compile(r"policy_preprocessor_step_\d+_normalizer_processor\.safetensors")),
    ("action", re.compile(r"policy_postprocessor_step_\d+_unnormalizer_processor\.safetensors")),
)
_EPS = {"openpi": 1e-6, "lerobot": 1e-8}
FORMATS = (
    "assets/<name>/norm_stats.json or norm_stats.json (openpi), "
    "policy_preprocessor_step_<n>_normalizer_processor.safetensors with "
    "policy_postprocessor_step_<n>_unnormalizer_processor.safetensors (LeRobot policy), "
    "meta/stats.json or stats.json (LeRobot dataset)"
)
Block = Mapping[str, object]


class NormProfile(Protocol):
    """The part of a profile that decides about statistics (see Pi05Profile)."""

    layout: str
    state_dim: int
    robot_action_dim: int
    state_norm: str
    action_norm: str
    norm_asset: str | None
    allow_minmax_stats: bool


@dataclass(frozen=True)
class Stats:
    """Statistics of one vector, each [n], or None: float64 from JSON, float32 from LeRobot's processors.

    convention: whose formulas apply, "openpi" or "lerobot".
    """

    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    q01: np.ndarray | None = None
    q99: np.ndarray | None = None
    convention: str = "openpi"


@dataclass(frozen=True)
class NormStats:
    """state and actions, cut to the robot's dimensions; source: the file(s), relative to the checkpoint folder."""

    state: Stats
    actions: Stats
    source: str


def normalize(x: np.ndarray, stats: Stats, mode: str, eps: float | None = None) -> np.ndarray:
    """x [..., D] in physical units -> normalised, never clipped. Dimensions beyond the statistics pass through.

    mode: "quantile" ([q01, q99] -> [-1, 1]), "zscore" or "none". eps: None takes the convention's (openpi 1e-6 added to
    the range, LeRobot 1e-8 added to std and put in place of an empty range). The result has the wider dtype of x and
    statistics, as in both projects.
    """
    return _apply(x, stats, mode, eps, _forward)


def unnormalize(x: np.ndarray, stats: Stats, mode: str, eps: float | None = None) -> np.ndarray:
    """The inverse of `normalize`; LeRobot's z-score leaves eps out, as it does."""
    return _apply(x, stats, mode, eps, _inverse)


def _apply(x: np.ndarray, stats: Stats, mode: str, eps: float | None, formula: Callable) -> np.ndarray:
    x = np.asarray(x)
    if mode == "none":
        return x
    pair = {"quantile": (stats.q01, stats.q99), "zscore": (stats.mean, stats.std)}.get(mode)
    if pair is None:
        raise ConfigError("normalisation", expected="'quantile', 'zscore' or 'none'", found=repr(mode))
    a, b = pair
    if a is None or b is None:
        raise CheckpointError(f"statistics for {mode}", expected="both of its vectors", found="none")
    n = min(x.shape[-1], a.shape[-1])
    eps = _EPS[stats.convention] if eps is None else eps
    head = formula(x[..., :n], a[:n], b[:n], mode, stats.convention, eps)
    return head if n == x.shape[-1] else np.concatenate([head, x[..., n:].astype(head.dtype)], axis=-1)


def _forward(x: np.ndarray, a: np.ndarray, b: np.ndarray, mode: str, convention: str, eps: float) -> np.ndarray:
    if mode == "zscore":
        return (x - a) / (b + b.dtype.type(eps))
    if convention == "openpi":
        return (x - a) / (b - a + eps) * 2.0 - 1.0
    return 2.0 * (x - a) / _range(a, b, eps) - 1.0


def _inverse(x: np.ndarray, a: np.ndarray, b: np.ndarray, mode: str, convention: str, eps: float) -> np.ndarray:
    if mode == "zscore":
        return x * (b + eps if convention == "openpi" else b) + a
    if convention == "openpi":
        return (x + 1.0) / 2.0 * (b - a + eps) + a
    return (x + 1.0) * _range(a, b, eps) / 2.0 + a


def _range(a: np.ndarray, b: np.ndarray, eps: float) -> np.ndarray:
    span = b - a
    return np.where(span == 0, span.dtype.type(eps), span)


def load_norm_stats(checkpoint_dir: str | Path, profile: NormProfile) -> NormStats:
    """The statistics that the profile needs, from the checkpoint folder only.

    Order: `assets/<profile.norm_asset or the only one>/norm_stats.json`, `norm_stats.json`, LeRobot's processor files
    (first for a LeRobot checkpoint), `meta/stats.json`, `stats.json`. The first that exists is used or refused. Raises
    CheckpointNotFound when none is there, CheckpointError for a wrong length, a value that is not finite, std <= 0,
    q01 >= q99, or quantiles that are absent (min and max replace them only with profile.allow_minmax_stats). There is
    no fallback to identity, to another folder or to a cache.
    """
    folder = Path(checkpoint_dir)
    needs = {profile.state_norm, profile.action_norm} - {"none"}
    if not needs:
        return NormStats(Stats(convention=profile.layout), Stats(convention=profile.layout), "not needed")
    finders = [_openpi, _processors, _dataset]
    if profile.layout == "lerobot":
        finders = [_processors, _openpi, _dataset]
    for find in finders:
        found = find(folder, profile)
        if found is not None:
            state, actions, source = found
            return NormStats(
                _checked(state, profile, "state", profile.state_dim, profile.state_norm, source),
                _checked(actions, profile, "actions", profile.robot_action_dim, profile.action_norm, source),
                source,
            )
    raise CheckpointNotFound(f"normalisation statistics in {folder.name}", expected=FORMATS, found="none of them")


Found = tuple[Block, Block, str]


def _openpi(folder: Path, profile: NormProfile) -> Found | None:
    assets = folder / "assets"
    names = sorted(p.parent.relative_to(assets).as_posix() for p in assets.rglob("norm_stats.json"))
    asset = profile.norm_asset
    if asset is not None and names and asset not in names:
        raise CheckpointNotFound(f"assets/{asset}/norm_stats.json", expected="this file", found=f"assets of {names}")
    if asset is None and len(names) > 1:
        raise CheckpointError(
            "assets", expected="one norm_stats.json, or a profile whose norm_asset names one", found=f"several: {names}"
        )
    if names:
        relative = f"assets/{asset or names[0]}/norm_stats.json".replace("/./", "/")
    elif (folder / "norm_stats.json").exists():
        relative = "norm_stats.json"
    else:
        return None
    content = read_json(confined(folder, relative), max_bytes=_MAX_BYTES)
    if isinstance(content, Mapping) and isinstance(content.get("norm_stats"), Mapping):
        content = content["norm_stats"]
    return (*_blocks(content, "state", "actions", relative), relative)


def _dataset(folder: Path, profile: NormProfile) -> Found | None:
    for relative in ("meta/stats.json", "stats.json"):
        if (folder / relative).exists():
            content = read_json(confined(folder, relative), max_bytes=_MAX_BYTES)
            return (*_blocks(content, "observation.state", "action", relative), relative)
    return None


def _blocks(content: object, state: str, actions: str, relative: str) -> tuple[Block, Block]:
    if not isinstance(content, Mapping):
        raise CheckpointError(relative, expected="a JSON object", found=type(content).__name__)
    for key in (state, actions):
        if not isinstance(content.get(key), Mapping):
            raise CheckpointError(relative, expected=f"statistics of {key!r}", found=f"keys {sorted(content)[:8]}")
    return content[state], content[actions]


def _processors(folder: Path, profile: NormProfile) -> Found | None:
    names = sorted(p.name for p in folder.iterdir())
    matches = [[name for name in names if pattern.fullmatch(name)] for _, pattern in _PROCESSORS]
    if not any(matches):
        return None
    tables = []
    for found, (_, pattern) in zip(matches, _PROCESSORS, strict=True):
        if len(found) != 1:
            raise CheckpointError(
                "LeRobot processors", expected=f"one file {pattern.pattern}".replace("\\", ""), found=found or "none"
            )
        file = SafetensorsFile(confined(folder, found[0]))
        tables.append({key: file.numpy(key) for key in file.keys()})
    before, after = tables
    for key in before.keys() & after.keys():
        if key.startswith("action.") and not np.array_equal(before[key], after[key]):
            raise CheckpointError(
                key, expected=f"the same values in {matches[0][0]} and {matches[1][0]}", found="others"
            )
    state, actions = (
        {key[len(feature) + 1 :]: value for key, value in table.items() if key.startswith(feature + ".")}
        for table, (feature, _) in zip(tables, _PROCESSORS, strict=True)
    )
    return state, actions, f"{matches[0][0]}, {matches[1][0]}"


def _checked(block: Block, profile: NormProfile, what: str, size: int, mode: str, source: str) -> Stats:
    """The vectors of the mode, cut to `size`. Longer ones are accepted when they have the model's padded width."""
    if mode == "none":
        return Stats(convention=profile.layout)
    where = f"{source}: {what}"
    values = {name: _vector(block[name], f"{where}.{name}", profile, size) for name in _NAMES if name in block}
    if mode == "quantile" and not {"q01", "q99"} <= values.keys() and profile.allow_minmax_stats:
        values |= {"q01": values.get("min"), "q99": values.get("max")}
    for name in ("q01", "q99") if mode == "quantile" else ("mean", "std"):
        if values.get(name) is None:
            raise CheckpointError(
                f"{where}.{name}",
                expected=f"{size} values ({mode} normalisation)",
                found="missing",
                hint="min and max stand in only with allow_minmax_stats in the profile." if "min" in values else None,
            )
    std, low, high = values.get("std"), values.get("q01"), values.get("q99")
    if std is not None and not (std > 0).all():
        at = int(np.argmin(std))
        raise CheckpointError(f"{where}.std[{at}]", expected="> 0", found=float(std[at]))
    if mode == "quantile" and not (low < high).all():
        at = int(np.argmax(~(low < high)))
        raise CheckpointError(f"{where}[{at}]", expected="q01 < q99", found=f"q01 {low[at]}, q99 {high[at]}")
    return Stats(values.get("mean"), std, low, high, profile.layout)


def _vector(value: object, where: str, profile: NormProfile, size: int) -> np.ndarray:
    try:
        vector = np.asarray(value)
    except ValueError:  # rows of different lengths
        vector = np.asarray(None)
    if vector.dtype.kind not in "fiu" or vector.ndim != 1:
        raise CheckpointError(where, expected=f"a list of {size} numbers", found=f"{vector.dtype} {list(vector.shape)}")
    padded = getattr(getattr(profile, "dims", None), "action_dim", size)
    if vector.size not in (size, padded):
        raise CheckpointError(where, expected=f"{size} values", found=f"{vector.size} values")
    vector = vector[:size].astype(np.float32 if vector.dtype == np.float32 else np.float64)
    if not np.isfinite(vector).all():
        at = int(np.argmax(~np.isfinite(vector)))
        raise CheckpointError(f"{where}[{at}]", expected="a finite number", found=float(vector[at]))
    vector.flags.writeable = False
    return vector
