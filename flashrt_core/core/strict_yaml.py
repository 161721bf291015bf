"""Reads YAML from files: safe types only, 1 MiB, 32 levels, no aliases or tags, no duplicate keys."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..errors import ConfigError, FlashRTError
from .strict_json import read_capped

MAX_YAML = 1 << 20
MAX_DEPTH = 32  # the parser is quadratic in the depth


def parse_yaml(data: bytes, *, name: str, error: type[FlashRTError] = ConfigError) -> object:
    """The value of one YAML document. `error` names `name` for every broken rule, syntax errors included."""
    if len(data) > MAX_YAML:
        raise error(name, expected=f"at most {MAX_YAML} bytes of YAML", found=f"{len(data)} bytes")
    try:
        text = data.decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise error(name, expected=f"at most {MAX_DEPTH} levels", found="more")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise error(name, expected="YAML without aliases", found=f"one in line {event.start_mark.line + 1}")
            if getattr(event, "tag", None):
                raise error(
                    name, expected="YAML without tags", found=f"{event.tag!r} in line {event.start_mark.line + 1}"
                )
        _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader), name, error)
        return yaml.safe_load(text)
    except UnicodeDecodeError:
        raise error(name, expected="YAML in UTF-8", found="other bytes") from None
    except yaml.YAMLError as exc:
        raise error(name, expected="valid YAML", found=" ".join(str(exc).split())[:200]) from None
    except (RecursionError, ValueError) as exc:  # ValueError: a date or a number that Python cannot hold
        if isinstance(exc, FlashRTError):
            raise
        raise error(name, expected="plain YAML", found=str(exc)[:200]) from None


def read_yaml(path: Path, *, error: type[FlashRTError] = ConfigError) -> object:
    """`parse_yaml` of a file; CheckpointNotFound when it is not there."""
    return parse_yaml(read_capped(path, MAX_YAML), name=path.name, error=error)


def _refuse_duplicates(node: yaml.Node | None, name: str, error: type[FlashRTError]) -> None:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise error(
                    name, expected="each key once", found=f"duplicate {key.value!r} in line {key.start_mark.line + 1}"
                )
            seen.add(getattr(key, "value", None) if isinstance(key, yaml.ScalarNode) else id(key))
            _refuse_duplicates(value, name, error)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, name, error)
