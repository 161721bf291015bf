"""The tabletop task: a hand, three blocks and a prompt; observations in, 20 Hz actions out, success decided by physics."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

from flashrt_core.errors import ConfigError, ObservationError, nearest

from .jitter import Jitter, Look
from .prompts import COLOURS, WORDINGS, Task, parse_prompt
from .render import RENDERERS

SCENE = Path(__file__).with_name("scene.xml")
SUBSTEPS = 10  # of 5 ms: 20 Hz control
STEP_M = 0.02  # translation of a full action, relative to the measured position
FINGER_OPEN_M = 0.038
BLOCK_HALF_M = 0.018
AREA_M = 0.15  # blocks start within +- this
BLOCK_GAP_M = 0.08  # between block centres
ZONE_GAP_M = 0.085  # between block centres and the zone's centre
LIFT_M = 0.08
ZONE_RADIUS_M = 0.04
HOLD_STEPS = 3
_LOOK_STREAM, _SCENE_STREAM = 1, 0  # independent random streams of one seed


class TabletopEnv:
    """One scene at a time, all of it decided by `reset(seed)`.

    Observation: two uint8 RGB images (agentview, wrist) and a float32 state [8]: grip position x y z (m), axis-angle of
    the hand (rad, constant), finger positions (m, +left, -right). Action: float [7] in [-1, 1]: x y z (2 cm each per
    step), three rotations (ignored), gripper (-1 open, +1 close).
    """

    max_steps = 120
    control_hz = 20

    def __init__(self, renderer: str = "ray", image_size: int = 112, jitter: float = 1.0):
        """renderer: 'ray' or 'gl'. jitter: 0 = the scene's own colours, light and camera; 1 = as in training."""
        if renderer not in RENDERERS:
            raise ConfigError(
                "renderer", expected="'ray' or 'gl'", found=repr(renderer), hint=nearest(str(renderer), RENDERERS)
            )
        if not (isinstance(image_size, int) and 16 <= image_size <= 1024):
            raise ConfigError("image_size", expected="an integer in 16..1024", found=image_size)
        self.model = mujoco.MjModel.from_xml_path(str(SCENE))
        self.data = mujoco.MjData(self.model)
        self.image_size = image_size
        self._renderer = RENDERERS[renderer](self.model)
        self._jitter = Jitter(self.model, float(jitter))
        self._hand = [self.model.joint(n).qposadr[0] for n in ("x", "y", "z", "left", "right")]
        self._blocks = {c: self.model.joint(c).qposadr[0] for c in COLOURS}
        self.reset(0)

    # -- episode ------------------------------------------------------------------------------------------------------

    def reset(self, seed: int, prompt: str | None = None) -> None:
        """Starts episode `seed` (>= 0). `prompt` replaces the drawn sentence; scene and look stay the seed's."""
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ConfigError("seed", expected="an integer >= 0", found=repr(seed))
        rng = np.random.default_rng([_SCENE_STREAM, int(seed)])
        mujoco.mj_resetData(self.model, self.data)
        family = ("pick", "place")[rng.integers(2)]
        colour = COLOURS[rng.integers(len(COLOURS))]
        wording = WORDINGS[family][rng.choice(3, p=(0.6, 0.2, 0.2))]
        self.prompt = wording.format(colour) if prompt is None else prompt
        self.task: Task = parse_prompt(self.prompt)
        for name, xy in zip(COLOURS, _placements(rng), strict=True):
            yaw = rng.uniform(-0.15, 0.15)
            self._set_block(name, (xy[0], xy[1], BLOCK_HALF_M), yaw)
        start = rng.uniform([-0.10, -0.10, 0.13], [0.10, 0.10, 0.22])
        self.set_hand(start, FINGER_OPEN_M)
        self._look: Look = self._jitter.apply(self.model, np.random.default_rng([_LOOK_STREAM, int(seed)]))
        self.steps, self._held, self.success = 0, 0, False
        mujoco.mj_forward(self.model, self.data)

    def step(self, action: np.ndarray) -> None:
        """Executes one action for 50 ms. Raises ObservationError for a wrong shape or a value that is not finite."""
        a = np.asarray(action, dtype=np.float64)
        if a.shape != (7,):
            raise ObservationError("action", expected="shape (7,)", found=f"shape {a.shape}")
        if not np.isfinite(a).all():
            raise ObservationError(
                "action",
                expected="finite values",
                found=f"{a[~np.isfinite(a)][0]} at {np.flatnonzero(~np.isfinite(a))[0]}",
            )
        a = np.clip(a, -1.0, 1.0)
        ctrl = self.data.ctrl
        ctrl[:3] = self.data.qpos[self._hand[:3]] + STEP_M * a[:3]
        ctrl[:3] = np.clip(ctrl[:3], self.model.actuator_ctrlrange[:3, 0], self.model.actuator_ctrlrange[:3, 1])
        ctrl[3:] = FINGER_OPEN_M * (1 - a[6]) / 2
        mujoco.mj_step(self.model, self.data, SUBSTEPS)
        self.steps += 1
        self._held = self._held + 1 if self._reached() else 0
        self.success = self.success or self._held >= HOLD_STEPS

    @property
    def done(self) -> bool:
        """The episode has succeeded or run out of steps."""
        return self.success or self.steps >= self.max_steps

    # -- what a policy may see ----------------------------------------------------------------------------------------

    def state(self) -> np.ndarray:
        """float32 [8], see the class."""
        x, y, z, left, right = self.data.qpos[self._hand]
        return np.array([x, y, z, np.pi, 0.0, 0.0, left, -right], dtype=np.float32)

    def observe(self) -> dict[str, object]:
        """{'images': [agentview, wrist], each uint8 [image_size, image_size, 3]; 'state': float32 [8]}."""
        mujoco.mj_forward(self.model, self.data)  # cameras and geoms follow the last step's positions
        images = [
            self._renderer.render(self.data, view, self.image_size, self._look) for view in ("agentview", "wrist")
        ]
        return {"images": images, "state": self.state()}

    def frame(self, size: int = 256, samples: int = 2) -> np.ndarray:
        """uint8 RGB [size, size, 3] of the agent camera for people, `samples` per pixel and axis. About 0.2 s by rays."""
        mujoco.mj_forward(self.model, self.data)
        big = self._renderer.render(self.data, "agentview", samples * size, self._look)
        return big.reshape(size, samples, size, samples, 3).mean((1, 3)).round().astype(np.uint8)

    # -- what only tools and tests may use ----------------------------------------------------------------------------

    def block(self, colour: str) -> np.ndarray:
        """Centre of a block, float64 [3] in metres. Not for policies."""
        at = self._blocks[colour]
        return self.data.qpos[at : at + 3].copy()

    def set_hand(self, position: np.ndarray, fingers_m: float) -> None:
        """Puts the hand at a grip position (m) with both fingers at `fingers_m`, at rest."""
        self.data.qpos[self._hand] = (*position, fingers_m, fingers_m)
        self.data.qvel[:] = 0.0
        self.data.ctrl[:] = (*position, fingers_m, fingers_m)
        mujoco.mj_forward(self.model, self.data)

    def snapshot(self) -> tuple[np.ndarray, int, int, bool]:
        """Everything `restore` needs to continue from here (not the look, not the task)."""
        spec = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(mujoco.mj_stateSize(self.model, spec))
        mujoco.mj_getState(self.model, self.data, physics, spec)
        return physics, self.steps, self._held, self.success

    def restore(self, snapshot: tuple[np.ndarray, int, int, bool]) -> None:
        """Back to a snapshot of the same episode."""
        physics, self.steps, self._held, self.success = snapshot
        mujoco.mj_setState(self.model, self.data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _set_block(self, colour: str, position: tuple[float, float, float], yaw: float) -> None:
        at = self._blocks[colour]
        self.data.qpos[at : at + 7] = (*position, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))

    def _reached(self) -> bool:
        """Whether the task's goal holds in this instant."""
        target = self.block(self.task.colour)
        others = [self.block(c)[2] for c in COLOURS if c != self.task.colour]
        if self.task.family == "pick":
            return bool(target[2] > LIFT_M and max(others) < LIFT_M)
        fingers = self.data.qpos[self._hand[3:]]
        on_zone = np.hypot(*target[:2]) < ZONE_RADIUS_M and target[2] < BLOCK_HALF_M + 0.006
        return bool(on_zone and fingers.min() > 0.026 and self.data.qpos[self._hand[2]] > 0.06)


def _placements(rng: np.random.Generator) -> np.ndarray:
    """Three block centres [3, 2] in metres, apart from each other and from the zone."""
    while True:
        xy = rng.uniform(-AREA_M, AREA_M, (3, 2))
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(3, 1)]
        if gaps.min() > BLOCK_GAP_M and np.linalg.norm(xy, axis=1).min() > ZONE_GAP_M:
            return xy
