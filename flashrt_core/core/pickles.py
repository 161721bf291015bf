"""Refuses files that would have to be unpickled, by name and by content, and says how to convert them."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError

SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")
_HEADER_CAP = 1 << 25  # a first u64 below this, then '{': a safetensors header, whatever its first two bytes look like

HINT = (
    "Unpickling can run any code, so it is never done here. Convert once, where the file was made: "
    "`safetensors.torch.save_file(model.state_dict(), 'model.safetensors')`."
)


def refuse_pickle(path: str | os.PathLike[str], head: bytes = b"") -> None:
    """CheckpointError when the name of `path` or its first bytes (`head`, 9 or more) are those of a pickle or a zip."""
    name = Path(path).name
    if name.lower().endswith(SUFFIXES):
        raise CheckpointError(name, expected="a .safetensors file", found="a pickle-based format", hint=HINT)
    if head[:4] == b"PK\x03\x04":
        raise CheckpointError(name, expected="safetensors data", found="a zip archive (torch.save)", hint=HINT)
    if len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and not _is_safetensors(head):
        raise CheckpointError(name, expected="safetensors data", found=f"a pickle (protocol {head[1]})", hint=HINT)


def _is_safetensors(head: bytes) -> bool:
    return len(head) >= 9 and int.from_bytes(head[:8], "little") < _HEADER_CAP and head[8:9] == b"{"
