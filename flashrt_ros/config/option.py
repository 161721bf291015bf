"""A setting as a dataclass field: description, unit, range and whether it may change at run time, checked from there."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any

from flashrt_core.errors import ConfigError, nearest

MAX_TEXT = 4096  # characters of a text option


def option(
    default: Any = dataclasses.MISSING,
    description: str = "",
    *,
    factory: Any = dataclasses.MISSING,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = True,
) -> Any:
    """A dataclass field with `metadata` {description, unit, range (low, high) or None, choices, read_only}.

    read_only: may change only while the node is unconfigured. Without a default the option is required.
    """
    span = None if low is None and high is None else (low, high)
    metadata = {
        "description": description, "unit": unit, "range": span, "choices": tuple(choices), "read_only": read_only,
    }  # fmt: skip
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


@functools.cache
def option_types(cls: type) -> dict[str, Any]:
    """Name -> resolved type of every field of a configuration class."""
    return typing.get_type_hints(cls)


def check_options(config: Any) -> None:
    """For `__post_init__`: bring every field to its declared type and check range and choices; ConfigError names it.

    Whole numbers become floats where a float is declared and lists become tuples; nothing else is converted.
    """
    owner = type(config).__name__
    for field in dataclasses.fields(config):
        name = f"{owner}.{field.name}"
        value = coerce(getattr(config, field.name), option_types(type(config))[field.name], name)
        object.__setattr__(config, field.name, value)
        for item in value if isinstance(value, tuple) else (value,):
            _check_value(item, field.metadata, name)


def _check_value(value: Any, rule: typing.Mapping[str, Any], name: str) -> None:
    if isinstance(value, str):
        if len(value) > MAX_TEXT or any(ord(c) < 32 and c != "\n" for c in value):
            raise ConfigError(name, expected=f"printable text, at most {MAX_TEXT} characters", found=ascii(value)[:80])
        if rule.get("choices") and value not in rule["choices"]:
            raise ConfigError(
                name, expected=f"one of {', '.join(rule['choices'])}", found=ascii(value)[:80],
                hint=nearest(value, rule["choices"]),
            )  # fmt: skip
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(name, expected="a finite number", found=value)
    span = rule.get("range")
    if span and isinstance(value, int | float) and not isinstance(value, bool):
        low, high = span
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConfigError(name, expected=range_text(span, rule.get("unit", "")), found=value)


def range_text(span: tuple[float | None, float | None], unit: str = "") -> str:
    """`0.1..10 s`, `>= 1`."""
    low, high = span
    text = f">= {low:g}" if high is None else f"<= {high:g}" if low is None else f"{low:g}..{high:g}"
    return f"{text} {unit}".rstrip()


def coerce(value: Any, kind: Any, name: str) -> Any:
    """`value` as the declared type `kind`; ConfigError when it is of another one. Dictionaries become dataclasses."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        return None if value is None else coerce(value, inner[0], name)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(name, expected="a list", found=_kind_of(value))
        item = typing.get_args(kind)[0]
        return tuple(coerce(v, item, f"{name}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(name, expected="a finite number", found="a larger one") from None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        words = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
        raise ConfigError(name, expected=words.get(kind, str(kind)), found=_kind_of(value))
    return value


def _kind_of(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {ascii(value)[:60]}"


def build(cls: type, data: Any, name: str) -> Any:
    """A configuration object from a mapping. Unknown keys raise with the nearest known one, missing ones by name."""
    if not isinstance(data, dict):
        raise ConfigError(name, expected=f"a mapping of {', '.join(option_types(cls))}", found=_kind_of(data))
    known = [f for f in dataclasses.fields(cls) if f.init]
    for key in data:
        if key not in {f.name for f in known}:
            raise ConfigError(
                f"{name}: key {ascii(key)[:80]}", found="unknown", hint=nearest(str(key), [f.name for f in known])
            )
    for field in known:
        if (
            field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            and field.name not in data
        ):
            raise ConfigError(
                f"{name}: key {field.name!r}", expected=field.metadata.get("description") or "a value", found="none"
            )
    try:
        return cls(**data)
    except ConfigError as error:
        if error.thing.startswith(f"{name}:"):
            raise
        raise type(error)(
            f"{name}: {error.thing}", expected=error.expected, found=error.found, hint=error.hint
        ) from None
