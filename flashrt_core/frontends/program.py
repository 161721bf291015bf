"""A pipeline with its buffers: what is needed to run one forward, eagerly or as a captured graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import numpy as np

from ..blocks.plan import Plan
from ..errors import DeviceError
from ..ops.measure import MeasuringOps, Output
from ..ops.resample import fit_into
from ..ops.table import SCALE_BYTES
from ..types import E4M3, F32, I32, U8, DType
from .camera_images import CameraImages, Size


class Variant(IntEnum):
    """Keys of the captured graph: a whole forward per image dtype, and the denoise loop alone on a cached prefix."""

    FULL_U8 = 0
    FULL_F32 = 1
    CACHED = 2


class Program:
    """Buffers of one (model, plan) on a machine, and the calls over them. Allocates in the constructor and never again."""

    def __init__(self, name: str, machine: Any, model: Any, pipeline: Any, dims: Any, plan: Plan):
        self.name, self._ids = name, None
        self.machine, self.model, self.pipeline, self.dims, self.plan = machine, model, pipeline, dims, plan
        self.rows = model.buffer_plan(dims, plan)
        self.buffers = self.rows.allocate(machine.ctx, f"{name}.")
        at = {n: b.dptr() for n, b in self.buffers.items()}
        self.bufs = {dtype: model.buffers_at(dims, at, dtype) for dtype in (U8, F32)}
        self.attn = machine.attention(model.attention_spec(dims), model.attention_slots(dims, at, plan))
        self.site_names = model.site_names(dims)
        self.scales = machine.ctx.buffer(f"{name}.scales", SCALE_BYTES * len(self.site_names))
        self.sites = model.sites_at(dims, self.scales.dptr())
        self.denoise = pipeline.plan_denoise(machine, dims, plan)
        self.graph = machine.ctx.graph(name)
        machine.upload(self.buffers["rope"], model.rope_table(dims))
        self.weights: Any = None  # set by the frontend; tensors are kept alive there
        self.cameras: CameraImages | None = None

    def set_scales(self, scales: dict[str, float]) -> None:
        """Activation scales by site name; every site must be there."""
        self.put_scales([scales[name] for name in self.site_names])

    def put_scales(self, scales: Sequence[float] | np.ndarray) -> None:
        """Activation scales in the order of the sites."""
        values = np.zeros((len(self.site_names), SCALE_BYTES // 4), dtype=np.float32)
        values[:, 0] = scales
        self.machine.upload(self.scales, values)

    def site_at(self, slot: int) -> int:
        """Number of the site whose scale is at this address."""
        return (slot - self.scales.dptr()) // SCALE_BYTES

    def fit_cameras(self, sizes: Sequence[Size]) -> None:
        """Make room for uint8 pictures of these (height, width) per view; `write` takes them from then on. Allocates."""
        side = self.dims.vision.image_size
        if any(size != (side, side) for size in sizes):
            target = self.buffers[self.model.IMAGES[U8]].dptr()
            self.cameras = CameraImages(self.name, self.machine, sizes, side, target)

    def write(self, images: Sequence[np.ndarray] | None, ids: list[int], noise: np.ndarray) -> None:
        """Inputs of the next run. images: [S,S,3] per view, all uint8 or all float32, or all uint8 of the cameras' sizes
        (see `fit_cameras`; a square beside them is resized on the host); None before a CACHED run. noise: [H, action_dim]
        float32."""
        if images is not None:
            self._write_images(images)
        self._write_prompt(ids)
        self.machine.upload(self.buffers["actions"], noise)

    def _write_images(self, images: Sequence[np.ndarray]) -> None:
        side = self.dims.vision.image_size
        if all(image.shape[:2] == (side, side) for image in images):
            self.machine.upload(self.buffers[self.model.IMAGES[image_code(images)]], images)
        elif self.cameras is not None and tuple(image.shape[:2] for image in images) == self.cameras.sizes:
            self.cameras.write(images)
        else:  # some square, some not: the rare case needs no slots of its own
            self.machine.upload(self.buffers[self.model.IMAGES[U8]], [fit_into(image, side) for image in images])

    def _write_prompt(self, ids: list[int]) -> None:
        """Token ids and their number; nothing is sent when they are those of the last call."""
        if ids == self._ids:
            return
        self._ids = None  # not known while it is under way
        padded = np.zeros(self.dims.prompt_capacity, dtype=np.int32)
        padded[: len(ids)] = ids
        self.machine.upload(self.buffers["ids"], padded)
        length = self.dims.image_tokens + len(ids)
        self.machine.upload(self.buffers["prefix_len"], np.array([length], dtype=np.int32))
        self._ids = list(ids)

    def emit(
        self, variant: Variant, ops: Any, attn: Any, stream: int, denoise: Callable[..., None] | None = None
    ) -> None:
        """Issue the calls of a variant: recorded while a graph is captured, executed otherwise. denoise: the plan's own."""
        b = self.bufs[F32 if variant == Variant.FULL_F32 else U8]
        args = (b, self.weights, self.dims, self.sites, self.plan)
        if variant != Variant.CACHED:
            self.pipeline.encode(ops, *args, attn=attn, stream=stream)
        (denoise or self.denoise)(ops, *args, attn=attn, stream=stream)

    def capture(self) -> None:
        """Record every variant. The machine may run it once before (kernels are loaded, room is made, GEMMs are tuned)."""
        ops, stream = self.machine.ops, self.machine.ctx.stream_handle(self.machine.stream)
        for variant in Variant:
            self.machine.prepare(lambda v=variant: self.emit(v, ops, self.attn, stream))
            self.graph.capture(variant, lambda s, v=variant: self.emit(v, ops, self.attn, s), self.machine.stream)

    def replay(self, variant: Variant) -> np.ndarray:
        """Run a captured variant; the normalised actions, float32 [H, action_dim]."""
        rc = self.graph.replay(variant, self.machine.stream)
        if rc:
            raise DeviceError(f"replay of {variant.name}", expected="a captured variant (rc 0)", found=f"rc {rc}")
        return self.output()  # waits for the replay

    def run_measured(self, variant: Variant, measure: Callable[[Output], None]) -> None:
        """Run eagerly; `measure` sees what each site's producer wrote, before it is rounded (ops/measure.py)."""
        wide = self.plan.vision.wide
        rounded = [math.prod(row.shape) for row in self.rows.rows.values() if row.dtype == E4M3]
        scratch = self.machine.ctx.buffer(f"{self.name}.unrounded", wide.nbytes * max(rounded, default=1))
        ops = MeasuringOps(self.machine.ops, measure, wide, scratch.dptr())
        stream = self.machine.ctx.stream_handle(self.machine.stream)
        self.emit(variant, ops, self.machine.with_ops(self.attn, ops), stream, self.pipeline.denoise)
        self.machine.sync()

    def output(self) -> np.ndarray:
        return self.machine.download(self.buffers["actions"], F32, (self.dims.horizon, self.dims.action_dim))

    def valid_prefix(self) -> int:
        return int(self.machine.download(self.buffers["prefix_len"], I32, (1,))[0])


def image_code(images: Sequence[np.ndarray]) -> DType:
    return U8 if images[0].dtype == np.uint8 else F32


def full_variant(images: Sequence[np.ndarray]) -> Variant:
    return Variant.FULL_U8 if images[0].dtype == np.uint8 else Variant.FULL_F32
