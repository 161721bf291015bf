"""Prompt text and tokens of Pi0.5: the task, and the state as discretised numbers where the checkpoint was trained so."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import ObservationError

MAX_PROMPT_BYTES = 4096  # FAULTS.md, parser caps
STATE_BIN_EDGES = np.linspace(-1, 1, 257)[:-1]  # openpi models/tokenizer.py


def clean_prompt(prompt: str) -> str:
    """Strip, `_` and newline to a space (openpi models/tokenizer.py). ObservationError for what cannot be a prompt."""
    if not isinstance(prompt, str):
        raise ObservationError("prompt", expected="a string", found=type(prompt).__name__)
    size = len(prompt.encode("utf-8", "surrogatepass"))
    if size > MAX_PROMPT_BYTES:
        raise ObservationError("prompt", expected=f"at most {MAX_PROMPT_BYTES} bytes", found=f"{size} bytes")
    bad = [c for c in prompt if (ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000]
    if bad:
        raise ObservationError("prompt", expected="printable text", found=f"control character U+{ord(bad[0]):04X}")
    clean = prompt.strip().replace("_", " ").replace("\n", " ")
    if not clean.strip():
        raise ObservationError("prompt", expected="a task in words", found="an empty prompt")
    return clean


def discretize_state(state: np.ndarray) -> np.ndarray:
    """Normalised state [S] -> bins int [S]: 0..255 within [-1, 1), 255 at and above the last edge, -1 below -1.

    The dtype is the one that normalisation gave (openpi float64, LeRobot float32), as in both projects.
    """
    return np.digitize(np.asarray(state), STATE_BIN_EDGES) - 1


def format_prompt(prompt: str, state: np.ndarray | None) -> str:
    """`Task: {clean}, State: {b0 b1 ...};\\nAction: ` with a normalised state, else the cleaned prompt."""
    clean = clean_prompt(prompt)
    if state is None:
        return clean
    return f"Task: {clean}, State: {' '.join(map(str, discretize_state(state)))};\nAction: "


def tokenize(prompt: str, state: np.ndarray | None, tokenizer: Any, capacity: int) -> list[int]:
    """Token ids, BOS first: with a state the formatted prompt, without one the text and then a newline piece.

    ObservationError when there are more than `capacity` tokens: a prompt is never truncated.
    """
    text = format_prompt(prompt, state)
    ids = tokenizer.encode(text, add_bos=True)
    if state is None:
        ids = ids + tokenizer.encode("\n")
    if len(ids) > capacity:
        raise ObservationError(
            "prompt",
            expected=f"at most {capacity} tokens",
            found=f"{len(ids)} tokens",
            hint="shorten it, or raise prompt_capacity in the checkpoint's profile",
        )
    return ids
