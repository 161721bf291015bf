"""Pictures of the scene: a ray caster on MuJoCo's own ray queries (no system library), or OpenGL where it is installed."""

from __future__ import annotations

import functools

import mujoco
import numpy as np

from flashrt_core.errors import ConfigError

from .jitter import Look

CHECKER = 0.84  # brightness of the darker squares, as the texture in scene.xml
SQUARE_M = 0.05
_SHADOW_GAP_M = 1.5e-3  # a shadow ray that ends this close to its surface hit that surface
_NEW_API = "normal:" in (mujoco.mj_multiRay.__doc__ or "")  # MuJoCo 3.5+ takes an output for normals; ours are analytic


def _rays(model: mujoco.MjModel, data: mujoco.MjData, origin: np.ndarray, vec: np.ndarray):
    """First hit of each ray: geom id int32 [N] (-1: none) and distance float64 [N] in units of |vec|."""
    n = len(vec)
    geom, dist = np.full(n, -1, np.int32), np.empty(n)
    flat = np.ascontiguousarray(vec, dtype=np.float64).reshape(-1)
    extra = (None,) if _NEW_API else ()
    mujoco.mj_multiRay(model, data, origin, flat, None, 1, -1, geom, dist, *extra, n, mujoco.mjMAXVAL)
    return geom, dist


@functools.lru_cache(maxsize=16)
def _pixel_dirs(size: int, fovy_deg: float) -> np.ndarray:
    """Unit ray directions in the camera frame, float64 [size*size, 3], row 0 at the top of the image."""
    half = np.tan(np.deg2rad(fovy_deg) / 2)
    grid = ((np.arange(size) + 0.5) / size * 2 - 1) * half
    x, y = np.meshgrid(grid, -grid)
    dirs = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3)
    return dirs / np.linalg.norm(dirs, axis=1, keepdims=True)


class RayRenderer:
    """Shades the first hit of every pixel: colour, checker, lamp with cast shadows. Same picture on every machine."""

    def __init__(self, model: mujoco.MjModel):
        self.model = model
        self._table = model.geom("table").id
        self._box = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX

    def render(self, data: mujoco.MjData, camera: str, size: int, look: Look) -> np.ndarray:
        """uint8 RGB [size, size, 3] of one camera. `data` must be forwarded (mj_forward)."""
        cam = self.model.camera(camera).id
        origin = data.cam_xpos[cam].copy()
        vec = _pixel_dirs(size, float(self.model.cam_fovy[cam])) @ data.cam_xmat[cam].reshape(3, 3).T
        geom, dist = _rays(self.model, data, origin, vec)
        # sky: brighter towards the top
        image = look.sky[None, :] * (1.0 + 0.25 * vec[:, 2:3])  # [N, 3]
        hit = np.flatnonzero(geom >= 0)
        if hit.size:
            image[hit] = self._shade(data, geom[hit], origin + vec[hit] * dist[hit, None], vec[hit], look)
        return (np.clip(image * look.exposure, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8).reshape(size, size, 3)

    def _shade(self, data, geom: np.ndarray, point: np.ndarray, vec: np.ndarray, look: Look) -> np.ndarray:
        """Colours [M, 3] of surface points [M, 3] on geoms [M] seen along unit vectors [M, 3]."""
        colour = self.model.geom_rgba[geom, :3].astype(np.float64)
        table = geom == self._table
        cells = np.floor(point[:, :2] / SQUARE_M).astype(np.int64).sum(1)
        colour[table & (cells % 2 == 1)] *= CHECKER
        normal = self._normals(data, geom, point)
        lamp = self.model.light_pos[0].copy()
        to_point = point - lamp  # [M, 3]
        reach = np.linalg.norm(to_point, axis=1)
        to_point /= reach[:, None]
        facing = np.clip(-(normal * to_point).sum(1), 0.0, 1.0)
        lit = np.flatnonzero(facing > 0)
        _, first = _rays(self.model, data, lamp, to_point[lit])  # all shadow rays start at the lamp
        shadowed = lit[(first >= 0) & (first < reach[lit] - _SHADOW_GAP_M)]
        facing[shadowed] *= 0.25
        mirror = to_point + 2 * (normal * -to_point).sum(1, keepdims=True) * normal
        shine = np.clip(-(mirror * vec).sum(1), 0.0, 1.0) ** 24 * (facing > 0) * 0.10
        shine[table] *= 0.3
        shine[shadowed] = 0.0
        return colour * (look.ambient + self.model.light_diffuse[0, 0] * facing)[:, None] + shine[:, None]

    def _normals(self, data, geom: np.ndarray, point: np.ndarray) -> np.ndarray:
        """Outward unit normals [M, 3]; the scene holds boxes and upright cylinders only."""
        normal = np.zeros_like(point)
        normal[:, 2] = 1.0  # the table and the zone: their tops (their thin sides are not worth a test)
        for g in np.unique(geom):
            if g == self._table:
                continue
            at = np.flatnonzero(geom == g)
            frame = data.geom_xmat[g].reshape(3, 3)
            local = (point[at] - data.geom_xpos[g]) @ frame
            size = self.model.geom_size[g]
            out = np.zeros_like(local)
            if self._box[g]:
                axis = np.abs(local / size).argmax(1)
                rows = np.arange(len(at))
                out[rows, axis] = np.sign(local[rows, axis])
            else:  # cylinder: radius size[0], half height size[1]
                cap = np.abs(local[:, 2]) > size[1] - 1e-6
                out[cap, 2] = np.sign(local[cap, 2])
                side = ~cap
                out[side, :2] = local[side, :2] / size[0]
            normal[at] = out @ frame.T
        return normal


class GLRenderer:
    """`mujoco.Renderer` behind the same call. Needs an OpenGL platform (MUJOCO_GL=egl or osmesa when headless)."""

    def __init__(self, model: mujoco.MjModel):
        self.model = model
        self._by_size: dict[int, mujoco.Renderer] = {}
        self._get(64)  # fail here, not at the first frame

    def _get(self, size: int):
        if size not in self._by_size:
            try:
                self._by_size[size] = mujoco.Renderer(self.model, size, size)
            except (
                Exception
            ) as error:  # mujoco raises FatalError, ImportError, AttributeError or RuntimeError by platform
                raise ConfigError(
                    "renderer",
                    expected="an OpenGL platform for 'gl' (the full mujoco package, and MUJOCO_GL=egl or osmesa if headless)",
                    found=f"{type(error).__name__}: {error}",
                    hint="renderer='ray' needs no system library",
                ) from error
        return self._by_size[size]

    def render(self, data: mujoco.MjData, camera: str, size: int, look: Look) -> np.ndarray:
        """uint8 RGB [size, size, 3]; `look` only sets the exposure, the rest is in the model."""
        renderer = self._get(size)
        renderer.update_scene(data, camera=camera)
        image = renderer.render()
        return np.clip(image.astype(np.float32) * look.exposure + 0.5, 0, 255).astype(np.uint8)

    def close(self) -> None:
        for renderer in self._by_size.values():
            renderer.close()
        self._by_size.clear()


RENDERERS = {"ray": RayRenderer, "gl": GLRenderer}
