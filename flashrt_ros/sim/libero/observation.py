"""From a simulator's readings to what a LIBERO policy sees: two pictures and an 8-d state."""

from __future__ import annotations

import math

import numpy as np

STATE_NAMES = ("eef_x", "eef_y", "eef_z", "eef_rx", "eef_ry", "eef_rz", "finger_left", "finger_right")


def training_image(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] as MuJoCo gives it (bottom row first) -> as the policies were trained: turned by 180 degrees.

    openpi examples/libero/main.py: `[::-1, ::-1]`. The upright view is `[::-1]`, so a policy's picture is mirrored left
    to right; lerobot flips height and width too (processor/env_processor.py, LiberoProcessorStep).
    """
    return np.ascontiguousarray(picture[::-1, ::-1])


def upright_image(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] as MuJoCo gives it -> as a person sees the scene."""
    return np.ascontiguousarray(picture[::-1])


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """float [4] x, y, z, w -> float64 [3]: axis times angle, the angle in 0..2 pi.

    As the references have it (robosuite utils/transform_utils.py quat2axisangle): w is clipped, and w < 0 gives an
    angle above pi instead of the shorter way round. Policies were trained on that.
    """
    x, y, z, w = (float(v) for v in quaternion)
    w = min(1.0, max(-1.0, w))
    sine = math.sqrt(1.0 - w * w)
    if math.isclose(sine, 0.0):
        return np.zeros(3)
    return np.array([x, y, z]) * (2.0 * math.acos(w) / sine)


def policy_state(eef_position: np.ndarray, eef_quaternion: np.ndarray, fingers: np.ndarray) -> np.ndarray:
    """float32 [8]: position of the hand (m) [3], its axis-angle (rad) [3], finger joints (m) [2] (openpi main.py)."""
    return np.concatenate([eef_position, axis_angle(eef_quaternion), fingers]).astype(np.float32)
