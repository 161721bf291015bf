"""Several safetensors files seen as one table of tensors, with LeRobot's `model.` prefix taken off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import CheckpointError
from .safetensors_file import SafetensorsFile, nearest_key
from .safetensors_header import TensorInfo

if TYPE_CHECKING:
    import torch

WRAPPER = "model."  # LeRobot saves the whole policy, whose network is its attribute `model`
SENTINELS = ("paligemma_with_expert.", "paligemma.model.")  # Pi0 and Pi0.5; Pi0-FAST


def detect_prefix(keys: Iterable[str]) -> str:
    """`model.` when every key of a known family carries it (and there is one), else no prefix."""
    bare = wrapped = False
    for key in keys:
        bare = bare or key.startswith(SENTINELS)
        wrapped = wrapped or (key.startswith(WRAPPER) and key.startswith(SENTINELS, len(WRAPPER)))
    return WRAPPER if wrapped and not bare else ""


class FileSource:
    """A weight source (`get`, `has`) over open files; nothing is read before `get`.

    strip_prefix: None detects `model.`, "" strips nothing. Keys without the prefix keep their name.
    CheckpointError when two files, or a stripped and a bare name, give the same key.
    """

    def __init__(self, files: Iterable[SafetensorsFile], *, strip_prefix: str | None = None, device: str = "cpu"):
        files = list(files)
        self.device = device
        self.prefix = detect_prefix(k for f in files for k in f.keys()) if strip_prefix is None else strip_prefix
        self._where: dict[str, tuple[SafetensorsFile, str]] = {}
        for file in files:
            for stored in file.keys():
                key = stored[len(self.prefix) :] if stored.startswith(self.prefix) else stored
                if key in self._where:
                    first, first_stored = self._where[key]
                    raise CheckpointError(
                        f"tensor {key}",
                        expected="one tensor of this name",
                        found=f"duplicates: {first_stored!r} in {first.name} and {stored!r} in {file.name}",
                    )
                self._where[key] = (file, stored)

    def keys(self) -> list[str]:
        """Names without the prefix."""
        return list(self._where)

    def has(self, key: str) -> bool:
        """Whether there is a tensor of this name."""
        return key in self._where

    def _find(self, key: str) -> tuple[SafetensorsFile, str]:
        try:
            return self._where[key]
        except KeyError:
            raise CheckpointError(
                f"tensor {key}", expected="in the checkpoint", found="missing", hint=nearest_key(key, self._where)
            ) from None

    def info(self, key: str) -> TensorInfo:
        """dtype and shape as stored, without reading."""
        file, stored = self._find(key)
        return file.info(stored)

    def get(self, key: str) -> torch.Tensor:
        """The tensor in its stored dtype on `device`, in memory of its own: nothing depends on the file afterwards.

        CheckpointError with the nearest name when it is missing.
        """
        file, stored = self._find(key)
        tensor = file.torch(stored)
        return tensor.clone() if self.device == "cpu" else tensor.to(self.device)

    def numpy(self, key: str) -> np.ndarray:
        """The same as an array (BF16 and FP8 widened to float32)."""
        file, stored = self._find(key)
        return file.numpy(stored)
