"""Reads a Pi0.5 profile from a JSON or YAML mapping: every key checked, none ignored, none guessed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ...errors import ConfigError, nearest
from .dims import VARIANTS, GemmaDims, Pi05Dims, VisionDims

REQUIRED = (
    "model", "name", "layout", "dims", "action_horizon", "prompt_capacity", "views", "state_dim", "robot_action_dim",
    "state_in_prompt", "state_norm", "action_norm", "delta_action_dims",
)  # fmt: skip
OPTIONAL = ("num_steps", "norm_eps", "norm_asset", "allow_minmax_stats", "description")
DIM_PARTS = {"vision": VisionDims, "prefix": GemmaDims, "expert": GemmaDims}
_MAX_SIZE = 1 << 20  # of any integer in a profile


def parse_profile(content: object, origin: str) -> dict[str, object]:
    """Keyword arguments of Pi05Profile from a mapping. `origin` (a file or built-in name) is recorded per decision.

    ConfigError for an unknown key (with the nearest known), a missing key, a wrong type or a value out of range.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(origin, expected="a mapping of profile keys", found=type(content).__name__)
    known_keys(content, (*REQUIRED, *OPTIONAL), origin)
    missing = [key for key in REQUIRED if key not in content]
    if missing:
        raise ConfigError(
            f"{origin}: {missing[0]}",
            expected="this key",
            found="missing" if len(missing) == 1 else f"missing: {missing}",
        )
    read = Reader(content, origin)
    if read.text("model") != "pi05":
        raise ConfigError(f"{origin}: model", expected="'pi05'", found=repr(content["model"]))
    views = read.texts("views")
    layout = read.text("layout")
    defaulted = [key for key in ("num_steps", "norm_eps") if key not in content]
    return {
        "name": read.text("name"),
        "dims": _dims(content["dims"], read, num_views=len(views), origin=origin),
        "layout": layout,
        "views": views,
        "state_dim": read.integer("state_dim"),
        "robot_action_dim": read.integer("robot_action_dim"),
        "state_in_prompt": read.boolean("state_in_prompt"),
        "state_norm": read.text("state_norm"),
        "action_norm": read.text("action_norm"),
        "norm_eps": read.number("norm_eps") if "norm_eps" in content else default_eps(layout),
        "delta_action_dims": read.integers("delta_action_dims"),
        "norm_asset": read.text("norm_asset") if content.get("norm_asset") is not None else None,
        "allow_minmax_stats": read.boolean("allow_minmax_stats") if "allow_minmax_stats" in content else False,
        "source": {key: origin for key in content if key not in ("model", "description")}
        | {key: "default" for key in defaulted},
    }


def default_eps(layout: str) -> float:
    """What each project adds to (openpi) or puts in place of (LeRobot) a range when it divides."""
    return 1e-6 if layout == "openpi" else 1e-8


def known_keys(content: Mapping, known: tuple[str, ...], where: str) -> None:
    """ConfigError for the first key that is not in `known`, with the nearest one."""
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {str(key)[:80]!r}", hint=nearest(str(key), known))


def _dims(content: object, read: Reader, *, num_views: int, origin: str) -> Pi05Dims:
    where = f"{origin}: dims"
    if not isinstance(content, Mapping):
        raise ConfigError(where, expected="a mapping", found=type(content).__name__)
    keys = (*DIM_PARTS, "vocab_size", "action_dim")
    known_keys(content, keys, where)
    for key in keys:
        if key not in content:
            raise ConfigError(f"{where}.{key}", expected="this key", found="missing")
    inner = Reader(content, where)
    return Pi05Dims(
        **{part: _part(content[part], kind, f"{where}.{part}") for part, kind in DIM_PARTS.items()},
        vocab_size=inner.integer("vocab_size"),
        action_dim=inner.integer("action_dim"),
        horizon=read.integer("action_horizon"),
        prompt_capacity=read.integer("prompt_capacity"),
        num_views=num_views,
        num_steps=read.integer("num_steps") if "num_steps" in read.content else 10,
    )


def _part(content: object, kind: type[VisionDims] | type[GemmaDims], where: str) -> VisionDims | GemmaDims:
    if isinstance(content, str):
        return variant(content, kind, where)
    if not isinstance(content, Mapping):
        raise ConfigError(where, expected="a mapping or a variant name", found=type(content).__name__)
    fields = {f.name: f.type for f in dataclasses.fields(kind)}
    known_keys(content, tuple(fields), where)
    read = Reader(content, where)
    optional = ("ln_eps", "rms_eps", "rope_theta")
    values = {}
    for name in fields:
        if name in content:
            values[name] = read.number(name) if name in optional else read.integer(name)
        elif name not in optional:
            raise ConfigError(f"{where}.{name}", expected="this key", found="missing")
    return kind(**values)


def variant(name: object, kind: type, where: str) -> VisionDims | GemmaDims:
    """The published sizes of that name; ConfigError for an unknown one or one of another kind (LoRA included)."""
    names = [n for n, dims in VARIANTS.items() if isinstance(dims, kind)]
    if not isinstance(name, str) or name not in names:
        raise ConfigError(where, expected=f"one of {', '.join(names)}", found=repr(name)[:80])
    return VARIANTS[name]


class Reader:
    """Typed access to a mapping; each method raises ConfigError naming the key, the type wanted and what is there."""

    def __init__(self, content: Mapping, where: str):
        self.content, self.where = content, where

    def _fail(self, key: str, expected: str) -> ConfigError:
        value = self.content.get(key)
        return ConfigError(f"{self.where}: {key}", expected=expected, found=repr(value)[:80])

    def text(self, key: str) -> str:
        value = self.content.get(key)
        if not isinstance(value, str) or not 1 <= len(value) <= 200 or not value.isprintable():
            raise self._fail(key, "a name")
        return value

    def boolean(self, key: str) -> bool:
        value = self.content.get(key)
        if type(value) is not bool:
            raise self._fail(key, "true or false")
        return value

    def integer(self, key: str, low: int = 1) -> int:
        value = self.content.get(key)
        if type(value) is not int or not low <= value <= _MAX_SIZE:
            raise self._fail(key, f"an integer from {low} to {_MAX_SIZE}")
        return value

    def number(self, key: str) -> float:
        value = self.content.get(key)
        if type(value) not in (int, float) or not 0 < value < 1e30:
            raise self._fail(key, "a number > 0")
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.content.get(key)
        if not isinstance(value, list) or not all(isinstance(v, str) and v.isprintable() and v for v in value):
            raise self._fail(key, "a list of names")
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        value = self.content.get(key)
        if not isinstance(value, list) or not all(type(v) is int and 0 <= v < _MAX_SIZE for v in value):
            raise self._fail(key, "a list of integers >= 0")
        return tuple(value)
