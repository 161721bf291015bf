"""Keep calibrated scales on disk, bound to everything they were measured with; when in doubt there is no cache.

A file is used only when the full content of the checkpoint, the prefix length, the shape key, the hardware, the
precision plan and the package version are the ones asked for and its own checksum holds. Every other case is a miss
with one log line, and the caller measures again. Names and positional arguments of the functions are as documented.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from ...errors import ConfigError
from ...version import __version__
from ..strict_json import parse_json
from ..utils.private_file import is_temporary, open_private_dir, read_private, write_private
from ..utils.sealed_json import checksum

logger = logging.getLogger(__name__)

SCHEMA = 3  # 1 is upstream FlashRT's, which is bound to the first 64 KB of the checkpoint; 2 had no means
_MAX_BYTES = 16 << 20
_FILE_NAME = re.compile(r"([0-9a-f]{64})_Se\d+_[0-9a-f]{12}\.json")
_ARRAYS = ("enc_scales", "enc_alpha", "ae_scales", "enc_w_scales")
_NAMED = ("activation_scales", "weight_scales")
_SMALLEST, _LARGEST = (float(value) for value in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


@dataclass(frozen=True)
class CacheKey:
    """What a set of scales is valid for. Se: prefix rows; shape: any further sizes, as text; plan: precision plan."""

    ckpt_hash: str  # sha256 of the full content of the checkpoint, 64 hex digits
    Se: int
    hardware: str = "host"
    shape: str = ""
    plan: str = ""
    flashrt_version: str = __version__

    def __post_init__(self):
        if not re.fullmatch(r"[0-9a-f]{64}", self.ckpt_hash):
            raise ConfigError("digest", expected="a sha256 as 64 lower-case hex digits", found=self.ckpt_hash)
        if isinstance(self.Se, bool) or not isinstance(self.Se, (int, np.integer)) or self.Se < 1:
            raise ConfigError("Se", expected="an integer >= 1", found=self.Se)
        object.__setattr__(self, "Se", int(self.Se))

    @property
    def file_name(self) -> str:
        """The version is not part of it: a newer package replaces the file that an older one left."""
        rest = json.dumps([self.hardware, self.shape, self.plan])
        return f"{self.ckpt_hash}_Se{self.Se}_{hashlib.sha256(rest.encode()).hexdigest()[:12]}.json"


def save_calibration(
    checkpoint_path: str | Path,
    Se: int,
    enc_scales: Sequence[float] | np.ndarray = (),
    enc_alpha: Sequence[float] | np.ndarray = (),
    ae_scales: Sequence[float] | np.ndarray = (),
    enc_w_scales: Sequence[float] | np.ndarray = (),
    metadata: Mapping[str, object] | None = None,
    *,
    activation_scales: Mapping[str, float] | None = None,
    weight_scales: Mapping[str, float] | None = None,
    input_means: Mapping[str, np.ndarray] | None = None,
    hardware: str = "host",
    shape: str = "",
    plan: str = "",
    digest: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path | None:
    """Write the scales atomically and return the file's path, or None (one warning) when the disk does not allow it.

    activation_scales, weight_scales: by site, such as "encoder.3.down". input_means: fp32 [K] by weight. digest: the
    checkpoint's sha256 when the caller has it; else the checkpoint is read in full. cache_dir: default
    ~/.cache/flashrt/calibration. ConfigError for a scale that is not finite and > 0 in fp32 or a mean that is not finite (both
    named), or metadata that is not JSON; CheckpointNotFound.
    """
    key = CacheKey(digest or checkpoint_digest(checkpoint_path), Se, hardware, shape, plan)
    arrays = dict(zip(_ARRAYS, (enc_scales, enc_alpha, ae_scales, enc_w_scales), strict=True))
    body: dict[str, object] = {"version": SCHEMA, **_as_dict(key)}
    body.update({name: np.asarray(value, dtype=np.float64).tolist() for name, value in arrays.items()})
    body.update(num_enc_scales=int(np.size(enc_scales)), num_ae_scales=int(np.size(ae_scales)))
    for name, scales in zip(_NAMED, (activation_scales, weight_scales), strict=True):
        body[name] = {str(site): float(value) for site, value in (scales or {}).items()}
    body["metadata"] = dict(metadata or {})
    _check_scales(body)
    body["input_means"] = {str(name): _text_of(name, mean) for name, mean in (input_means or {}).items()}
    try:
        data = json.dumps({**body, "sha256": checksum(body)}, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ConfigError("calibration metadata", expected="JSON values", found=str(error)) from error
    try:
        directory = _directory(cache_dir)
        with open_private_dir(directory, create=True) as descriptor:
            write_private(descriptor, key.file_name, data)
    except OSError as error:
        logger.warning("calibration cache not written (%s): continuing without it", error)
        return None
    return directory / key.file_name


def load_calibration(
    checkpoint_path: str | Path,
    Se: int,
    *,
    hardware: str = "host",
    shape: str = "",
    plan: str = "",
    digest: str | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, object] | None:
    """What save_calibration stored for exactly this key, `input_means` as arrays, or None: absent, foreign, unsafe or damaged
    (one log line)."""
    key = CacheKey(digest or checkpoint_digest(checkpoint_path), Se, hardware, shape, plan)
    try:
        with open_private_dir(_directory(cache_dir)) as descriptor:
            data = read_private(descriptor, key.file_name, _MAX_BYTES)
        return _verified(data, key)
    except FileNotFoundError:
        return None
    except (OSError, ConfigError, RecursionError) as error:
        logger.warning("calibration cache not used, measuring again: %s", error)
        return None


def clear_calibration(
    checkpoint_path: str | Path | None = None,
    *,
    digest: str | None = None,
    cache_dir: str | Path | None = None,
) -> int:
    """Remove the files of one checkpoint, or of all when neither it nor a digest is given; returns how many.

    ConfigError when a file cannot be removed: it would be used again.
    """
    everything = checkpoint_path is None and digest is None
    wanted = None if everything else digest or checkpoint_digest(checkpoint_path)
    removed = 0
    try:
        with open_private_dir(_directory(cache_dir)) as descriptor:
            for name in os.listdir(descriptor):
                match = _FILE_NAME.fullmatch(name)
                if (match and wanted in (None, match[1])) or (everything and is_temporary(name)):
                    os.unlink(name, dir_fd=descriptor)
                    removed += match is not None
    except FileNotFoundError:
        return removed
    except OSError as error:
        raise ConfigError("calibration cache", expected="a directory that can be cleared", found=str(error)) from error
    return removed


def checkpoint_digest(checkpoint_path: str | Path) -> str:
    """sha256 (hex) over the full content of a checkpoint; CheckpointNotFound when it is not there."""
    from ..checkpoint import open_checkpoint  # here: callers that know the digest need no checkpoint reader

    return open_checkpoint(Path(checkpoint_path)).digest()


def _directory(cache_dir: str | Path | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    try:
        return Path.home() / ".cache" / "flashrt" / "calibration"
    except RuntimeError as error:  # a user without a home directory
        raise OSError(str(error)) from error


def _as_dict(key: CacheKey) -> dict[str, object]:
    return {f.name: getattr(key, f.name) for f in fields(key)}


def _verified(data: bytes, key: CacheKey) -> dict[str, object]:
    """The file's content; ConfigError says which part of it is not what was asked for."""
    body = parse_json(data, name=key.file_name, max_bytes=_MAX_BYTES, error=ConfigError)
    if not isinstance(body, dict):
        raise ConfigError(key.file_name, expected="a JSON object", found=type(body).__name__)
    for name, expected in {"version": SCHEMA, **_as_dict(key)}.items():
        if body.get(name) != expected or type(body.get(name)) is not type(expected):
            raise ConfigError(f"{name} of the cache", expected=repr(expected), found=repr(body.get(name))[:80])
    stored = body.pop("sha256", None)
    if stored != checksum(body):
        raise ConfigError("sha256 of the cache", expected=checksum(body), found=repr(stored)[:80])
    _check_scales(body)
    if not isinstance(body.get("input_means"), dict):
        raise ConfigError(
            "input_means of the cache", expected="an object", found=type(body.get("input_means")).__name__
        )
    body["input_means"] = {name: _mean_of(name, text) for name, text in body["input_means"].items()}
    return body


def _text_of(name: str, mean: np.ndarray) -> str:
    """fp32 little-endian, base64: as digits they would be three times as long."""
    values = np.asarray(mean, dtype="<f4")
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ConfigError(
            f"mean input of {name}", expected="finite fp32 [K]", found=f"shape {list(values.shape)}, or not finite"
        )
    return base64.b64encode(values.tobytes()).decode()


def _mean_of(name: str, text: object) -> np.ndarray:
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"mean input of {name}", expected="fp32 values in base64", found=str(error)) from error
    if not np.isfinite(values).all():
        raise ConfigError(f"mean input of {name}", expected="finite values", found="NaN or infinity")
    return values


def _check_scales(body: Mapping[str, object]) -> None:
    """Every scale is a float that fp32 can hold and divide by; its name is in the error."""
    for name, value in _scales(body):
        if type(value) is not float or not _SMALLEST <= value <= _LARGEST:
            raise ConfigError(f"calibration scale {name}", expected="a finite number > 0 in fp32", found=value)


def _scales(body: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for group in _NAMED:
        if not isinstance(body.get(group), dict):
            raise ConfigError(f"{group} of the cache", expected="an object", found=type(body.get(group)).__name__)
        yield from body[group].items()
    for group in _ARRAYS:
        if not isinstance(body.get(group), list):
            raise ConfigError(f"{group} of the cache", expected="a list", found=type(body.get(group)).__name__)
        for i, row in enumerate(body[group]):  # [L * 4] or [L, 4]
            if isinstance(row, list):
                yield from ((f"{group}[{i}][{k}]", value) for k, value in enumerate(row))
            else:
                yield f"{group}[{i}]", row
