"""Tuned choices on disk, bound to the GPU, the library and the effort they were made with; when in doubt they are made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.strict_json import parse_json
from ..core.utils.private_file import open_private_dir, read_private, write_private
from ..core.utils.sealed_json import checksum
from ..errors import ConfigError
from ..version import __version__

logger = logging.getLogger(__name__)

SCHEMA = 1
_MAX_BYTES = 4 << 20
_HEX = re.compile(r"(?:[0-9a-f]{2}){1,256}")


@dataclass(frozen=True)
class TuneKey:
    """What a set of choices is valid for. library: name and version; effort: how many candidates were timed."""

    gpu: str
    library: str
    effort: int
    flashrt_version: str = __version__

    @property
    def file_name(self) -> str:
        """The versions are not part of it: a newer one replaces the file that an older one left."""
        return f"{hashlib.sha256(json.dumps([self.gpu, self.effort]).encode()).hexdigest()[:16]}.json"


class TuneCache:
    """shape -> choice (bytes that only the library understands). Reads at the start, writes at `save`."""

    def __init__(self, key: TuneKey, directory: str | Path | None = None):
        """directory: default ~/.cache/flashrt/autotune, mode 0700. A file that is absent, foreign, unsafe or damaged is
        not used (one log line unless absent)."""
        self.key, self.hits, self._changed = key, 0, False
        self._directory = Path(directory) if directory is not None else None
        self._choices = self._load()

    def get(self, shape: Sequence[int]) -> bytes | None:
        """The choice for a shape, if there is one."""
        found = self._choices.get(_name(shape))
        self.hits += found is not None
        return found

    def put(self, shape: Sequence[int], choice: bytes) -> None:
        """Remember a choice; empty bytes (nothing to choose) are not kept."""
        if choice and self._choices.get(_name(shape)) != choice:
            self._choices[_name(shape)], self._changed = choice, True

    def save(self) -> None:
        """Write what changed, atomically; a disk that does not allow it costs one warning and the next start's time."""
        if not self._changed:
            return
        body = {"version": SCHEMA, **dataclasses.asdict(self.key)}
        body["choices"] = {shape: choice.hex() for shape, choice in sorted(self._choices.items())}
        data = json.dumps({**body, "sha256": checksum(body)}, indent=1).encode()
        try:
            with open_private_dir(self._folder(), create=True) as descriptor:
                write_private(descriptor, self.key.file_name, data)
            self._changed = False
        except OSError as error:
            logger.warning("autotune cache not written (%s): continuing without it", error)

    def _folder(self) -> Path:
        if self._directory is not None:
            return self._directory
        try:
            return Path.home() / ".cache" / "flashrt" / "autotune"
        except RuntimeError as error:  # a user without a home directory
            raise OSError(str(error)) from error

    def _load(self) -> dict[str, bytes]:
        try:
            with open_private_dir(self._folder()) as descriptor:
                data = read_private(descriptor, self.key.file_name, _MAX_BYTES)
            return _verified(data, self.key)
        except FileNotFoundError:
            return {}
        except (OSError, ConfigError, RecursionError) as error:
            logger.warning("autotune cache not used, tuning again: %s", error)
            return {}


def _name(shape: Sequence[int]) -> str:
    return ",".join(map(str, map(int, shape)))


def _verified(data: bytes, key: TuneKey) -> dict[str, bytes]:
    """The file's choices; ConfigError says which part of it is not what was asked for."""
    body = parse_json(data, name=key.file_name, max_bytes=_MAX_BYTES, error=ConfigError)
    if not isinstance(body, dict):
        raise ConfigError(key.file_name, expected="a JSON object", found=type(body).__name__)
    stored = body.pop("sha256", None)
    if stored != checksum(body):
        raise ConfigError("sha256 of the cache", expected=checksum(body), found=repr(stored)[:80])
    for name, expected in {"version": SCHEMA, **dataclasses.asdict(key)}.items():
        if body.get(name) != expected or type(body.get(name)) is not type(expected):
            raise ConfigError(f"{name} of the cache", expected=repr(expected), found=repr(body.get(name))[:80])
    choices = body.get("choices")
    if not isinstance(choices, dict) or not all(isinstance(v, str) and _HEX.fullmatch(v) for v in choices.values()):
        raise ConfigError("choices of the cache", expected="hexadecimal text by shape", found="something else")
    return {shape: bytes.fromhex(text) for shape, text in choices.items()}
