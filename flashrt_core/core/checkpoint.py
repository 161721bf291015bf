"""A checkpoint folder on disk: finds its weight files, opens them, identifies their content."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError, CheckpointNotFound
from .content_digest import content_digest
from .manifest import MANIFEST, FileDigest, read_manifest, sha256_stream
from .paths import confined
from .pickles import SUFFIXES, refuse_pickle
from .safetensors_file import SafetensorsFile, check_finite, nearest_key
from .strict_json import read_json
from .weight_source import FileSource

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_INDEX = 16 << 20
_READERS = 8  # threads that look for NaN; more do not read memory faster
_HASHERS = 16


class Checkpoint:
    """An opened folder: `dir`, `files` (file name -> SafetensorsFile), `manifest` (name -> digest, or None)."""

    def __init__(self, directory: Path, files: dict[str, SafetensorsFile]):
        self.dir, self.files = directory, files
        self.manifest: dict[str, FileDigest] | None = read_manifest(directory)
        self._digest: str | None = None
        self._digesting = threading.Lock()

    def source(self, strip_prefix: str | None = None, *, device: str = "cpu") -> FileSource:
        """All tensors as one weight source; see `FileSource` for the prefix. `get` gives torch tensors on `device`."""
        return FileSource(self.files.values(), strip_prefix=strip_prefix, device=device)

    def check_finite(self) -> None:
        """Reads all weights once, in several threads; CheckpointError names the first tensor with a NaN or an infinity."""
        tensors = [(file, key) for file in self.files.values() for key in file.keys()]
        with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
            for _ in pool.map(lambda pair: check_finite(pair[0], [pair[1]]), tensors):
                pass

    def digest_soon(self) -> None:
        """Compute `digest` beside what the caller does next. What goes wrong is raised by `digest` itself."""

        def compute() -> None:
            with suppress(CheckpointError, OSError):
                self.digest()

        threading.Thread(target=compute, name="checkpoint-digest", daemon=True).start()

    def digest(self, progress: Callable[[int, int], None] | None = None) -> str:
        """sha256 that changes with any byte of any weight file: over `name, size, content digest` of each, by name; the
        content digest is that of core/content_digest.py.

        progress(done, total) in bytes. Computed once per object; two processes that load the same files agree.
        """
        with self._digesting:  # a second caller waits for the first one's result
            if self._digest is None:
                self._digest = self._read_digest(progress)
        return self._digest

    def _read_digest(self, progress: Callable[[int, int], None] | None) -> str:
        total, summary = sum(f.size for f in self.files.values()), hashlib.sha256()
        count = _Count(lambda done: progress(done, total)) if progress else None
        with ExitStack() as stack:
            files = {name: stack.enter_context(self._open(name)) for name in sorted(self.files)}
            pool = stack.enter_context(ThreadPoolExecutor(min(_HASHERS, os.cpu_count() or 1)))  # ended before they are closed
            waits = {
                name: content_digest(pool, name, file.fileno(), self.files[name].size, count) for name, file in files.items()
            }
            for name, wait in waits.items():
                summary.update(f"{name}\0{self.files[name].size}\0{wait()}\n".encode())
        return summary.hexdigest()

    def verify(self, *, allow_unverified: bool = False, progress: Callable[[int, int], None] | None = None) -> str:
        """Compares the files with the manifest. Returns "verified", "no manifest" or "unverified: <reason>".

        CheckpointError names the file, the listed and the computed digest. A weight file that is not in the manifest
        is refused too. `allow_unverified=True` (an explicit choice of the user, to be shown in status) turns an error
        into the third answer. A digest covers a whole file, so it cannot tell which tensor was damaged.
        """
        if self.manifest is None:
            return "no manifest"
        try:
            unlisted = [name for name in self.files if name not in self.manifest]
            if unlisted:
                raise CheckpointError(unlisted[0], expected=f"a file listed in {MANIFEST}", found="not listed")
            total = sum(d.bytes for d in self.manifest.values())
            count = _Count(lambda done: progress(done, total)) if progress else None
            with ThreadPoolExecutor(min(_HASHERS, os.cpu_count() or 1)) as pool:
                for _ in pool.map(lambda listed: self._compare(*listed, count), self.manifest.items()):
                    pass
        except CheckpointError as exc:
            if allow_unverified:
                return f"unverified: {exc}"
            raise
        return "verified"

    def _compare(self, name: str, listed: FileDigest, advance: Callable[[int], None] | None) -> None:
        path = confined(self.dir, name)
        if not path.is_file():
            raise CheckpointNotFound(name, expected=f"a file listed in {MANIFEST}", found="nothing")
        size = path.stat().st_size
        if size != listed.bytes:
            raise CheckpointError(
                name,
                expected=f"{listed.bytes} bytes ({MANIFEST})",
                found=f"{size} bytes",
                hint="The file is truncated." if size < listed.bytes else "The file was changed.",
            )
        with self._open(name) as file:
            digest = sha256_stream(file, advance)
        if digest != listed.sha256:
            raise CheckpointError(
                f"{name}: sha256",
                expected=f"{listed.sha256} ({MANIFEST})",
                found=digest,
                hint="The content was damaged or changed; fetch the file again.",
            )

    def _open(self, name: str) -> BinaryIO:
        """CheckpointError when a weight file is not the one whose header was read."""
        file = confined(self.dir, name).open("rb", buffering=0)
        status, opened = os.fstat(file.fileno()), self.files.get(name)
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if opened is not None and identity != opened.identity:
            file.close()
            raise CheckpointError(name, expected="the file that was opened", found="a file changed since then")
        return file


class _Count:
    """Bytes done, from several threads, in order."""

    def __init__(self, say: Callable[[int], None]):
        self._say, self._done, self._lock = say, 0, threading.Lock()

    def __call__(self, more: int) -> None:
        with self._lock:
            self._done += more
            self._say(self._done)


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a local folder with `model.safetensors` or a sharded index, or one `.safetensors` file of a folder.

    Only headers are read. Raises CheckpointNotFound when there is nothing there, CheckpointError for pickles, damaged
    files, shards that disagree with the index, and names that lead out of the folder.
    """
    path = Path(path).expanduser()
    if path.is_file():
        refuse_pickle(path)
        if path.name == INDEX:
            return Checkpoint(path.parent, _open_shards(path.parent))
        return Checkpoint(path.parent, {path.name: SafetensorsFile(confined(path.parent, path.name))})
    if not path.is_dir():
        raise CheckpointNotFound(
            str(path),
            expected="a local checkpoint folder",
            found="nothing",
            hint="Nothing is downloaded here; fetch the checkpoint first and pass its folder.",
        )
    single, index = (path / SINGLE).exists(), (path / INDEX).exists()
    if single and index:
        raise CheckpointError(
            path.name,
            expected=f"{SINGLE} or {INDEX}",
            found="both",
            hint="Remove one, or pass the path of one of them.",
        )
    if single:
        return Checkpoint(path, {SINGLE: SafetensorsFile(confined(path, SINGLE))})
    if index:
        return Checkpoint(path, _open_shards(path))
    raise _nothing_to_open(path)


def _open_shards(directory: Path) -> dict[str, SafetensorsFile]:
    content = read_json(confined(directory, INDEX), max_bytes=_MAX_INDEX)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(INDEX, expected='{"weight_map": {tensor: file}}', found="something else")
    files: dict[str, SafetensorsFile] = {}
    for name in sorted(set(weight_map.values())):
        path = confined(directory, name)
        refuse_pickle(path)
        if not path.exists():
            raise CheckpointNotFound(f"{INDEX}: {name}", expected="a shard in the folder", found="nothing")
        files[name] = SafetensorsFile(path)
    holder: dict[str, str] = {}
    for name, file in files.items():
        for key in file.keys():
            if key in holder:
                raise CheckpointError(
                    f"tensor {key}", expected="in one shard", found=f"duplicates: {holder[key]}, {name}"
                )
            holder[key] = name
    for key, name in weight_map.items():
        if holder.get(key) != name:
            found = f"in {holder[key]}" if key in holder else "missing"
            raise CheckpointError(
                f"{INDEX}: {key}", expected=f"in {name}", found=found, hint=nearest_key(key, files[name].keys())
            )
    extra = [key for key in holder if key not in weight_map]
    if extra:
        raise CheckpointError(
            f"{holder[extra[0]]}: {extra[0]}", expected=f"a tensor listed in {INDEX}", found=f"{len(extra)} not listed"
        )
    return files


def _nothing_to_open(path: Path) -> CheckpointError:
    """The most useful error for a folder without safetensors weights."""
    names = sorted(p.name for p in path.iterdir())
    for name in names:
        if name.lower().endswith(SUFFIXES):
            try:
                refuse_pickle(name)
            except CheckpointError as exc:
                return exc
    if "params" in names:
        hint = (
            "`params/` looks like an Orbax (JAX) checkpoint: convert it with openpi's convert_jax_model_to_pytorch.py."
        )
    elif any(name.endswith(".safetensors") for name in names):
        hint = "Pass the path of the .safetensors file that is meant."
    else:
        hint = "Pass the folder that holds the weights."
    shown = ", ".join(names[:8]) or "an empty folder"
    return CheckpointNotFound(path.name, expected=f"{SINGLE} or {INDEX}", found=shown, hint=hint)
