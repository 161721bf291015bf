"""An SM90 GPU as a machine: its memory, its ops, its attention, its stream. A frontend sees hardware only through this."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.cuda_graph import DEVICE_TO_HOST, HOST_TO_DEVICE
from ...errors import NotBuilt
from ...runtime.exec_cuda import CudaCtx
from ...types import DType
from ..backend import AttentionSpec
from ..staging import place_bytes
from ..tune_cache import TuneCache, TuneKey
from .attn_backend import HopperAttentionBackend
from .ops import HopperOps, kernels

if TYPE_CHECKING:
    import torch

    from ...runtime.exec_cuda import DeviceBuffer

_NUMPY = {DType.F32: np.float32, DType.I32: np.int32, DType.U8: np.uint8, DType.E4M3: np.uint8, DType.BF16: np.uint16}
CANDIDATES_PER_LEVEL = 3  # GEMM algorithms timed per shape, times load_model's `autotune`


class HopperMachine:
    """Current CUDA device. Weights live in PyTorch tensors, everything else in buffers of `ctx`.

    autotune: 0 keeps the library's first choice, n times 3 n algorithms of each GEMM shape before capture, unless a choice
    for this GPU and library is kept in `autotune_dir` (None: the user's cache). Set both before the first capture.
    """

    arch = "hopper"
    gpus: tuple[str, ...] = ("90",)  # compute capabilities that this is for; () is any from `acts_as` on
    acts_as = 0  # compute capability whose kernels are chosen; 0: the GPU's own
    torch_device = "cuda"

    def __init__(self) -> None:
        built = kernels(self.arch).archs.split(",")
        import torch

        self._torch = torch
        if not torch.cuda.is_available():
            raise NotBuilt(f"hardware {self.arch!r}", expected="PyTorch with CUDA and a GPU", found=f"torch {torch.__version__}")
        sm = "".join(map(str, torch.cuda.get_device_capability()))
        if self.gpus and sm not in self.gpus:
            raise NotBuilt(f"hardware {self.arch!r}", expected=f"a GPU of SM{' or SM'.join(self.gpus)}", found=f"SM{sm}")
        if sm not in built:
            raise NotBuilt("kernels", expected=f"code for SM{sm}", found=f"SM{', SM'.join(built)}")
        self._device = f"{torch.cuda.get_device_name()} SM{sm}"
        torch.cuda.synchronize()  # PyTorch makes the context that everything here shares
        self.ctx = CudaCtx()
        self.ops = HopperOps(self.ctx, self.acts_as)
        self.ops.kernels.prepare()
        self.stream = 0
        self.autotune = 0
        self.autotune_dir: str | Path | None = None

    def attention(self, spec: AttentionSpec, slots: dict[str, dict[str, Any]]) -> HopperAttentionBackend:
        return HopperAttentionBackend(spec, self.ops, slots)

    def with_ops(self, attn: HopperAttentionBackend, ops: Any) -> HopperAttentionBackend:
        """The same slots run through other ops (calibration wraps them)."""
        return HopperAttentionBackend(attn.spec, ops, attn.slots)

    def prepare(self, emit: Callable[[], None]) -> None:
        """Run `emit` once eagerly before it is captured: loads kernels, reserves scratch, times GEMM algorithms."""
        self._torch.cuda.synchronize()
        self.ops.candidates = CANDIDATES_PER_LEVEL * self.autotune
        if self.autotune and self.ops.choices is None:
            library = f"cublasLt {self.ops.kernels.blas_version()}"
            self.ops.choices = TuneCache(TuneKey(self._device, library, self.ops.candidates), self.autotune_dir)
        try:
            emit()
        finally:
            self.ops.candidates = 0
        self.sync()
        if self.ops.choices:
            self.ops.choices.save()

    def upload(self, buffer: DeviceBuffer, data: np.ndarray | Sequence[np.ndarray]) -> None:
        """Copy an array, or several one after the other, to the start of a buffer, through pinned memory, in the stream's order."""
        stage = buffer.staging()
        nbytes = place_bytes(stage, data)
        self._copy(buffer, buffer.dptr(), stage.ctypes.data, nbytes, HOST_TO_DEVICE)

    def download(self, buffer: DeviceBuffer, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        """A copy of a buffer's content after everything submitted; BF16 and E4M3 come as their bits."""
        out = np.empty(shape, _NUMPY[dtype])
        stage = buffer.staging()
        self._copy(buffer, stage.ctypes.data, buffer.dptr(), out.nbytes, DEVICE_TO_HOST)
        self.sync()
        out.reshape(-1).view(np.uint8)[:] = stage[: out.nbytes]
        return out

    def _copy(self, buffer: DeviceBuffer, to: int, source: int, nbytes: int, kind: int) -> None:
        stream = self.ctx.stream_handle(self.stream)
        self.ctx.runtime.call("cudaMemcpyAsync", to, source, nbytes, kind, stream)
        buffer.staged_at = self.ctx.syncs

    def ptr(self, tensor: torch.Tensor) -> int:
        """Address of a contiguous tensor on the GPU."""
        assert tensor.is_contiguous() and tensor.device.type == "cuda"
        return tensor.data_ptr()

    def numpy(self, tensor: torch.Tensor) -> np.ndarray:
        return tensor.float().cpu().numpy()

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """The array on the GPU. Waits: what PyTorch has put there is complete for every stream after this."""
        out = self._torch.from_numpy(np.ascontiguousarray(array)).to("cuda")
        self._torch.cuda.synchronize()
        return out

    def free_bytes(self) -> int:
        """Memory that can be had now."""
        return self.ctx.runtime.free_bytes()

    def trim(self) -> None:
        """Give memory that PyTorch holds but does not use back to the device. Not on the path of a replay."""
        gc.collect()  # a program is freed with the last cycle that knows it
        self._torch.cuda.empty_cache()

    def sync(self) -> None:
        """Wait for the stream."""
        self.ctx.sync(self.stream)
