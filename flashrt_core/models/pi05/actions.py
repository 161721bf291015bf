"""From the model's normalised actions to the robot's: unnormalise, cut to its dimensions, delta to absolute."""

from __future__ import annotations

import numpy as np

from ...core.utils.norm_stats import NormStats, unnormalize
from ...errors import ObservationError
from .profile import Pi05Profile


def robot_actions(
    model_actions: np.ndarray, profile: Pi05Profile, stats: NormStats, state: np.ndarray | None
) -> np.ndarray:
    """float32 [H, action_dim] normalised -> float32 [H, robot_action_dim] in the robot's units.

    state: raw [state_dim], needed where the profile has `delta_action_dims` (openpi transforms.py AbsoluteActions).
    """
    dims = profile.robot_action_dim
    actions = unnormalize(model_actions[:, :dims], stats.actions, profile.action_norm, profile.norm_eps)
    if profile.delta_action_dims:
        if state is None:
            raise ObservationError(
                "state",
                expected=f"{profile.state_dim} values: profile {profile.name!r} predicts actions relative to the state",
                found="none",
            )
        at = list(profile.delta_action_dims)
        actions = actions.copy()
        actions[:, at] += np.asarray(state, dtype=np.float32)[at]
    return np.ascontiguousarray(actions, dtype=np.float32)
