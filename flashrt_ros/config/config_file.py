"""Finds and reads configuration files: robots, policies and node settings by name or by path."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from flashrt_core.errors import CheckpointNotFound, ConfigError, nearest
from flashrt_core.inputs import read_yaml

from .option import build
from .settings import NodeConfig, PolicyConfig, RobotConfig
from .shipped import shipped_folder

T = TypeVar("T")
FOLDERS = {RobotConfig: "robots", PolicyConfig: "policies"}


def config_folder() -> Path:
    """The folder of the shipped configuration: robots/, policies/, node.yaml."""
    return shipped_folder("config", "robots")


def robot_names() -> list[str]:
    """Names of the shipped robots."""
    return sorted(p.stem for p in (config_folder() / "robots").glob("*.yaml"))


def load_robot(name_or_path: str | Path) -> RobotConfig:
    """A robot by the name of a shipped file or by path. ConfigError names the file, the key and what is wrong."""
    return _load(RobotConfig, name_or_path)


def load_policy(name_or_path: str | Path = "pi05") -> PolicyConfig:
    """A policy's settings by name or path."""
    return _load(PolicyConfig, name_or_path)


def load_node(path: str | Path | None = None, **overrides: Any) -> NodeConfig:
    """Node settings from a file (default: the shipped node.yaml); `overrides` replace single values."""
    file = config_folder() / "node.yaml" if path is None else Path(path)
    return build(NodeConfig, {**_mapping(file), **overrides}, file.name)


def _load(cls: type[T], name_or_path: str | Path) -> T:
    text = str(name_or_path)
    if "/" in text or text.endswith((".yaml", ".yml")):
        file = Path(text).expanduser()
    else:
        folder = config_folder() / FOLDERS[cls]
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        if text not in known:
            raise ConfigError(
                f"{FOLDERS[cls]} file {ascii(text)[:80]}",
                found="no such name",
                hint=f"{nearest(text, known)}, or a path",
            )
        file = folder / f"{text}.yaml"
    return build(cls, _mapping(file), file.name)


def _mapping(file: Path) -> dict[str, Any]:
    """The file's top level. ConfigError for a missing file, anything unsafe, or another type."""
    try:
        data = read_yaml(file, error=ConfigError)
    except (CheckpointNotFound, OSError) as error:
        raise ConfigError(file.name, expected="a readable file", found=type(error).__name__) from None
    if not isinstance(data, dict):
        raise ConfigError(file.name, expected="a mapping at the top level", found=type(data).__name__)
    return data
