"""Keeps every path that a checkpoint names inside the checkpoint folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError


def confined(root: Path, relative: str) -> Path:
    """`root / relative`, which need not exist. CheckpointError when it is absolute, has `..`, or really lies elsewhere.

    Symbolic links are followed and must end inside the folder. One layout may point out of it: a hub cache keeps
    `models--x/snapshots/<revision>/f` as a link into `models--x/blobs`, so for a root whose parent is `snapshots` the
    `blobs` folder two levels up counts as inside (if it is a real folder, not itself a link).
    """
    if not isinstance(relative, str) or not relative or "\0" in relative:
        raise CheckpointError("file name", expected="a relative path", found=repr(relative)[:80])
    parts = relative.replace("\\", "/").split("/")
    if os.path.isabs(relative) or relative.startswith("\\") or ".." in parts:
        raise CheckpointError(
            f"file name {relative!r}", expected="a path inside the checkpoint folder", found="a path outside it"
        )
    real = os.path.realpath(root / relative)
    home = os.path.realpath(root)
    allowed = [home]
    if os.path.basename(os.path.dirname(home)) == "snapshots":
        allowed.append(os.path.join(os.path.dirname(os.path.dirname(home)), "blobs"))
    if not any(real == base or real.startswith(base.rstrip(os.sep) + os.sep) for base in allowed):
        raise CheckpointError(
            f"file {relative!r}",
            expected="a file inside the checkpoint folder",
            found="a symbolic link that leaves it",
            hint="Copy the file into the folder.",
        )
    return root / relative
