"""`manifest.json` of a checkpoint folder: size and sha256 of each file, written by an exporter, compared at load."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError
from .paths import confined
from .strict_json import read_json

MANIFEST = "manifest.json"
_MAX_BYTES = 1 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class FileDigest:
    """sha256: 64 lower-case hexadecimal digits. bytes: size of the file."""

    sha256: str
    bytes: int


def read_manifest(directory: Path) -> dict[str, FileDigest] | None:
    """Relative name -> digest, or None when the folder has no manifest. Other top-level keys are information only.

    Raises CheckpointError for a manifest that is not `{"files": {name: {"sha256", "bytes"}}}`.
    """
    path = confined(directory, MANIFEST)
    if not path.exists():
        return None
    content = read_json(path, max_bytes=_MAX_BYTES)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise CheckpointError(MANIFEST, expected='{"files": {name: {"sha256", "bytes"}}}', found="no files")
    out = {}
    for name, entry in files.items():
        confined(directory, name)
        digest = entry.get("sha256") if isinstance(entry, dict) else None
        size = entry.get("bytes") if isinstance(entry, dict) else None
        if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise CheckpointError(
                f"{MANIFEST}: {name}", expected="sha256 as 64 hexadecimal digits", found=repr(digest)[:80]
            )
        if type(size) is not int or size < 0:
            raise CheckpointError(f"{MANIFEST}: {name}", expected="bytes as an integer >= 0", found=repr(size)[:40])
        out[name] = FileDigest(digest, size)
    return out


def write_manifest(directory: str | Path, names: Iterable[str] | None = None, **information: object) -> Path:
    """Writes the manifest over `names` (default: every file below the folder) and returns its path. Atomic.

    information: further top-level keys, e.g. model="pi05", name="tabletop".
    """
    directory = Path(directory)
    if names is None:
        names = [p.relative_to(directory).as_posix() for p in sorted(directory.rglob("*")) if p.is_file()]
    files = {}
    for name in names:
        if name != MANIFEST:
            path = confined(directory, name)
            files[name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    target = directory / MANIFEST
    scratch = target.with_suffix(".json.tmp")
    scratch.write_text(json.dumps({**information, "files": files}, indent=1) + "\n", encoding="utf-8")
    os.replace(scratch, target)
    return target


def sha256_file(path: Path, advance: Callable[[int], None] | None = None) -> str:
    """sha256 of a whole file as hexadecimal digits; `advance(n)` is called after each n bytes."""
    with path.open("rb", buffering=0) as file:
        return sha256_stream(file, advance)


def sha256_stream(file: BinaryIO, advance: Callable[[int], None] | None = None) -> str:
    """The same for an open binary file, from its position on."""
    total = hashlib.sha256()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    while count := file.readinto(buffer):
        total.update(view[:count])
        if advance is not None:
            advance(count)
    return total.hexdigest()
