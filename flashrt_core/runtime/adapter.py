"""Policy adapters: what the runner needs from a policy, and how a plain callable becomes one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from .chunk import ChunkError


class ActionChunkAdapter(Protocol):
    """A policy: one observation in, one chunk of actions [T, A] out. Called by one thread at a time."""

    def infer_actions(self, obs: object) -> np.ndarray: ...


class CallablePolicyAdapter:
    """Makes an ActionChunkAdapter of a function such as `model.predict`.

    fn: called with the observation. tuple_index: which element of a returned tuple is meant (None = not a tuple).
    output_key: which entry of a returned mapping is meant. A leading batch dimension of 1 is dropped.
    """

    def __init__(
        self, fn: Callable[[object], object], output_key: str | None = "actions", tuple_index: int | None = None
    ):
        self.fn, self.output_key, self.tuple_index = fn, output_key, tuple_index

    def infer_actions(self, obs: object) -> np.ndarray:
        """[T, A]. Raises ChunkError (a ValueError) when the result is not two-dimensional."""
        out = self.fn(obs)
        if self.tuple_index is not None:
            out = out[self.tuple_index]
        elif self.output_key is not None and isinstance(out, Mapping):
            if self.output_key not in out:
                raise ChunkError("policy output", expected=f"the key {self.output_key!r}", found=sorted(map(str, out)))
            out = out[self.output_key]
        actions = np.asarray(out)
        if actions.ndim == 3 and actions.shape[0] == 1:
            actions = actions[0]
        if actions.ndim != 2:
            raise ChunkError("expected action chunk [horizon, action_dim]", found=f"shape {actions.shape}")
        return actions


def copy_observation(obs: object) -> object:
    """A copy that shares no array with `obs`: the worker must not see a camera buffer change under it.

    Dicts, lists and tuples are walked, arrays copied, other objects deep-copied.
    """
    if isinstance(obs, np.ndarray) and obs.dtype != object:
        return obs.copy()
    if isinstance(obs, (str, bytes, int, float, bool, type(None))):
        return obs
    if type(obs) is dict:
        return {key: copy_observation(value) for key, value in obs.items()}
    if type(obs) in (list, tuple):
        return type(obs)(copy_observation(value) for value in obs)
    return copy.deepcopy(obs)
