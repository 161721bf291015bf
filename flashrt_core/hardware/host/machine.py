"""The host as a machine: its memory, its ops, its attention, its streams. A frontend sees hardware only through this."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.exec import Ctx
from ...types import DType
from ..backend import AttentionSpec
from ..staging import place_bytes
from .attn_backend import HostAttentionBackend
from .ops import HostOps, tensor_of

if TYPE_CHECKING:
    import torch


class HostMachine:
    """CPU memory and PyTorch ops. `arch` names it in caches and reports; `torch_device` is where weights are loaded."""

    arch = "host"
    torch_device = "cpu"

    def __init__(self) -> None:
        self.ctx = Ctx()
        self.ops = HostOps(self.ctx)
        self.stream = 0
        self.autotune = 0  # one variant of each op: nothing to tune
        self.autotune_dir = None

    def attention(self, spec: AttentionSpec, slots: dict[str, dict[str, Any]]) -> HostAttentionBackend:
        return HostAttentionBackend(spec, self.ops, slots)

    def with_ops(self, attn: HostAttentionBackend, ops: Any) -> HostAttentionBackend:
        """The same slots run through other ops (calibration wraps them)."""
        return HostAttentionBackend(attn.spec, ops, attn.slots)

    def prepare(self, emit: Callable[[], None]) -> None:
        """Nothing has to be run before a capture on the host."""

    def upload(self, buffer: Any, data: np.ndarray | Sequence[np.ndarray]) -> None:
        """Copy an array, or several one after the other, to the start of a buffer."""
        place_bytes(buffer.array(np.uint8, (buffer.nbytes(),)), data)

    def download(self, buffer: Any, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        """A copy of a buffer's content; fp32 and int32 only."""
        return buffer.array({DType.F32: np.float32, DType.I32: np.int32}[dtype], shape).copy()

    def ptr(self, tensor: torch.Tensor) -> int:
        """Address of a contiguous CPU tensor."""
        assert tensor.is_contiguous() and tensor.device.type == "cpu"
        return tensor.data_ptr()

    def numpy(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.float().numpy()

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """The array as a tensor in this machine's memory."""
        return tensor_of(np.ascontiguousarray(array))

    def free_bytes(self) -> int:
        """Memory that can be had now."""
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")

    def trim(self) -> None:
        """Freed memory is the allocator's business on the host."""

    def sync(self) -> None:
        """Host streams run in order at the call."""
