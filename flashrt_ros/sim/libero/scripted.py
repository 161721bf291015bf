"""A scripted policy for robosuite's Lift that sees what every policy sees: it finds the red cube in the picture.

It remembers nothing between calls: what to do follows from the picture, the hand's position and the finger opening, so it
works in a simulation in this process and behind ROS topics alike. It shows that pictures, state and actions mean on both
sides of the bridge what they should; with a mirrored picture or a swapped axis it fails.
"""

from __future__ import annotations

import numpy as np

from flashrt_core.errors import ObservationError

HORIZON = 10
# robosuite models/assets/arenas/table_arena.xml as Lift places it: camera "agentview", world frame, metres.
CAMERA_AT = np.array([0.5, 0.0, 1.35])
CAMERA_AXES = np.array([[0.0, -0.7061, 0.7081], [1.0, 0.0, 0.0], [0.0, 0.7081, 0.7061]])  # columns: right, up, backward
FIELD_OF_VIEW_DEG = 45.0
SEEN_Z_M, SEEN_X_M = 0.825, 0.0034  # height of what is seen of the cube; its middle lies that much nearer to the camera
CUBE_Z_M = 0.821  # centre of the cube on the table, robosuite environments/manipulation/lift.py
HOVER_M = 0.06  # above the cube's centre
OVER_M, SINK_M, LOW_M = 0.012, 0.025, 0.012  # horizontal errors to begin and to keep descending; height to grasp at
STEP_M = 0.011  # what the arm moves in a step at full action in steady motion (measured; the set-point moves 5 cm)
# Finger opening: above OPEN nothing was closed; below HELD the cube may be held by its corners (4.4 cm * sqrt 2), or the
# fingers are still on their way: lift slowly; below TIGHT it is held by its sides.
OPEN_M, HELD_M, TIGHT_M = 0.070, 0.064, 0.050
SLOW_LIFT_M, LIFT_M = 0.008, 0.2


def find_cube(picture: np.ndarray) -> np.ndarray | None:
    """World position [2] (m) of the red cube on the table in an agentview picture uint8 [S, S, 3] as policies see it, or
    None when there is nothing red."""
    red, green, blue = (picture[..., i].astype(np.int32) for i in range(3))
    rows, columns = np.nonzero((red > 50) & (10 * red > 18 * green) & (10 * red > 18 * blue) & (red - green > 25))
    if len(rows) < 12:
        return None
    side = picture.shape[0]
    focal = 0.5 / np.tan(np.radians(FIELD_OF_VIEW_DEG) / 2)
    right = 0.5 - (columns.mean() + 0.5) / side  # the picture is turned by 180 degrees and its rows run downward again:
    up = 0.5 - (rows.mean() + 0.5) / side  # left and right are swapped, up is up
    ray = CAMERA_AXES @ np.array([right / focal, up / focal, -1.0])
    hit = CAMERA_AT + ray * ((SEEN_Z_M - CAMERA_AT[2]) / ray[2])
    return hit[:2] - (SEEN_X_M, 0.0)


class LiftPolicy:
    """Hover over the cube, descend, close, lift."""

    def predict(
        self, images: list[np.ndarray], prompt: str | None = None, state: np.ndarray | None = None, *,
        seed: int | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Chunk float32 [10, 7]. Raises ObservationError without a state."""
        if state is None:
            raise ObservationError("state", expected="(8,)", found="none")
        hand = np.asarray(state[:3], np.float64)
        opening = float(state[6] - state[7])
        cube = find_cube(images[0])
        if cube is None:  # hidden: straight down is the best guess when low, else wait
            cube = hand[:2]
        chunk = np.zeros((HORIZON, 7), np.float32)
        for row in chunk:
            move, grip = self._decide(hand, opening, cube)
            row[:3], row[6] = np.clip(move / (3 * STEP_M), -1.0, 1.0), grip
            hand = hand + np.clip(row[:3], -1.0, 1.0) * STEP_M  # where this row will have brought it
        return chunk

    @staticmethod
    def _decide(hand: np.ndarray, opening: float, cube: np.ndarray) -> tuple[np.ndarray, float]:
        """(wanted displacement [3] m, gripper) at a hand position."""
        aside = float(np.hypot(*(cube - hand[:2])))
        height = hand[2] - CUBE_Z_M
        if opening < HELD_M:
            return np.array([0.0, 0.0, LIFT_M if opening < TIGHT_M else SLOW_LIFT_M]), 1.0
        if (height < LOW_M and aside < 2 * SINK_M) or opening < OPEN_M:
            return np.zeros(3), 1.0
        if aside < OVER_M or (height < HOVER_M and aside < SINK_M):
            return np.array([*(cube - hand[:2]), -height]), -1.0
        return np.array([*(cube - hand[:2]), HOVER_M - height]), -1.0
