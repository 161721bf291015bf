"""Initial states of LIBERO tasks, read from .npz files without objects (F84): never from the pickles they ship as."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from flashrt_core.errors import CheckpointNotFound, ConfigError

CONVERT = "python tools/convert_init_states.py"
KEY = "states"
MAX_STATES, MAX_SIZE = 1000, 4096


def init_state_file(folder: Path, suite: str, task: str) -> Path:
    """Where the converter puts the states of a task."""
    return folder / suite / f"{task}.npz"


def read_init_states(file: Path) -> np.ndarray:
    """float64 [N, S]: flattened simulator states (time, qpos, qvel) of one task.

    Raises ConfigError for a pickle in any wrapping, for anything but one finite float array, CheckpointNotFound when
    there is no file.
    """
    file = Path(file)
    if not file.exists():
        raise CheckpointNotFound(
            "init states", expected=f"{file.name} in {file.parent}", found="no such file", hint=f"Run: {CONVERT}"
        )
    refuse_pickle(file)
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = archive.files
            states = archive[KEY] if names == [KEY] else None
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise ConfigError(f"init states {file.name}", expected="an .npz without objects", found=str(error)[:100]) from None
    if states is None:
        raise ConfigError(f"init states {file.name}", expected=f"one array {KEY!r}", found=", ".join(names[:5]) or "none")
    check_init_states(states, file.name)
    return states


def check_init_states(states: np.ndarray, name: str) -> None:
    """Raises ConfigError unless `states` is float64 [N, S], finite and of a believable size."""
    good = states.dtype == np.float64 and states.ndim == 2
    if not (good and 1 <= states.shape[0] <= MAX_STATES and 1 <= states.shape[1] <= MAX_SIZE):
        raise ConfigError(f"init states {name}", expected="float64 [N, S]", found=f"{states.dtype} {states.shape}")
    if not np.isfinite(states).all():
        raise ConfigError(f"init states {name}", expected="finite numbers", found="NaN or infinity")


def refuse_pickle(file: Path) -> None:
    """Raises ConfigError when the file is a pickle, or a zip that holds one (what torch.save writes)."""
    with file.open("rb") as stream:
        head = stream.read(4)
    inside = ""
    if head[:1] == b"\x80":
        inside = "a pickle"
    elif zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            held = [n for n in archive.namelist() if n.endswith((".pkl", ".pickle"))]
        inside = f"a pickle ({held[0]})" if held else ""
    if inside:
        raise ConfigError(
            f"init states {file.name}", expected="an .npz without objects", found=inside,
            hint=f"A pickle can run code when it is read. Convert it once: {CONVERT}",
        )  # fmt: skip
