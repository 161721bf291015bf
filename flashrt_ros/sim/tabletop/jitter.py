"""Per-episode changes of colours, light and camera, so that a policy cannot lean on one exact look."""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import numpy as np

SKY = np.array([0.62, 0.675, 0.735])  # mean of the two sky colours in scene.xml


@dataclass(frozen=True)
class Look:
    """What one episode looks like beyond the model's own fields: values the ray renderer reads."""

    sky: np.ndarray = field(default_factory=lambda: SKY.copy())  # [3] RGB in [0, 1]
    ambient: float = 0.45  # light that reaches every surface, fraction of its colour
    exposure: float = 1.0  # factor on the final image


class Jitter:
    """Keeps the model's original look and draws a new one from a generator. strength 0 changes nothing."""

    def __init__(self, model: mujoco.MjModel, strength: float = 1.0):
        self.strength = strength
        self._rgba = model.geom_rgba.copy()
        self._cam_pos, self._cam_quat = model.cam_pos.copy(), model.cam_quat.copy()
        self._light_pos, self._light_diffuse = model.light_pos.copy(), model.light_diffuse.copy()
        self._agentview = model.camera("agentview").id

    def apply(self, model: mujoco.MjModel, rng: np.random.Generator) -> Look:
        """Rewrites colours, lamp and agent camera of `model` in place; the draw order is fixed by the code below."""
        s = self.strength
        gain = 1 + s * rng.uniform(-0.18, 0.18, (model.ngeom, 1))  # brightness of each geom
        tint = s * rng.uniform(-0.05, 0.05, (model.ngeom, 3))  # and a little of its hue
        model.geom_rgba[:, :3] = np.clip(self._rgba[:, :3] * gain + tint, 0.02, 1.0)
        model.light_pos[:] = self._light_pos + s * rng.uniform([-0.35, -0.2, -0.15], [0.15, 0.7, 0.3])
        model.light_diffuse[:] = self._light_diffuse * (1 + s * rng.uniform(-0.15, 0.15))
        model.cam_pos[:] = self._cam_pos
        model.cam_quat[:] = self._cam_quat
        model.cam_pos[self._agentview] += s * rng.uniform(-0.012, 0.012, 3)
        turn = np.concatenate([[1.0], 0.5 * s * rng.uniform(-0.012, 0.012, 3)])  # about 0.7 degrees at most
        mujoco.mju_mulQuat(
            model.cam_quat[self._agentview], self._cam_quat[self._agentview], turn / np.linalg.norm(turn)
        )
        return Look(
            sky=np.clip(SKY * (1 + s * rng.uniform(-0.15, 0.15)) + s * rng.uniform(-0.05, 0.05, 3), 0.0, 1.0),
            ambient=0.45 + s * rng.uniform(-0.08, 0.08),
            exposure=1.0 + s * rng.uniform(-0.12, 0.12),
        )
