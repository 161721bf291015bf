"""What one normalised unit of each action dimension is: the policy's own statistics, or the robot's ranges."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..config.settings import RobotConfig
from ..evaluation.rollout import checkpoint_folder
from ..worker.policy_load import checkpoint_facts
from .settings import ReplaySettings


def action_scale(settings: ReplaySettings) -> tuple[np.ndarray, str]:
    """(float64 [A], where it is from). A policy sees an action a as (a - offset) / scale.

    Quantile statistics map q01..q99 to -1..1, z-scores have the standard deviation. Dimensions that never move in the
    statistics, and policies without any, are measured in half of the robot's range.
    """
    robot = settings.robot
    scale = half_range(robot)
    if settings.script is not None:
        return scale, "half of the robot's range"
    from flashrt_core.inspect import inspect_checkpoint

    folder = checkpoint_folder(settings.policy.checkpoint or None)
    found = inspect_checkpoint(folder, settings.policy.profile or None, digest=False)
    stats = (found.get("norm_stats") or {}).get("actions")
    norm = (found.get("profile") or {}).get("decisions", {}).get("action_norm", {}).get("value")
    if not stats or norm not in ("quantile", "zscore"):
        return scale, "half of the robot's range"
    unit = (np.array(stats["q99"]) - np.array(stats["q01"])) / 2 if norm == "quantile" else np.array(stats["std"])
    unit = unit[: len(scale)]
    used = np.isfinite(unit) & (unit > 1e-6)
    scale[: len(unit)][used] = unit[used]
    return scale, f"{norm} statistics in {Path(str(found['norm_stats']['source'])).name}"


def check_checkpoint(settings: ReplaySettings) -> None:
    """Look at the checkpoint's files before anything is loaded. CheckpointError when they do not say how to read them."""
    if settings.script is not None:
        return
    checkpoint_facts(checkpoint_folder(settings.policy.checkpoint or None), settings.policy.profile or None)


def half_range(robot: RobotConfig) -> np.ndarray:
    """float64 [A], at least 1e-6."""
    return np.maximum(np.array([(d.upper - d.lower) / 2 for d in robot.actions]), 1e-6)
