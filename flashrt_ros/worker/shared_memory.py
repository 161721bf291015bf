"""SharedMemory: the block in which one observation goes to the worker process and one chunk comes back."""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from dataclasses import dataclass

import numpy as np

from flashrt_core.errors import DeviceError, ObservationError

from .policy_worker import Request, WorkerInfo

MAX_PROMPT_BYTES = 4096
MAX_BYTES = 1 << 30
_MAGIC = 0x464C5254_00000001  # "FLRT", version 1
_ALIGN = 64
# Fields of the header, int64 each.
_MAGIC_AT, _REQUEST, _RESULT, _PROMPT_LEN, _HAS_STATE, _HAS_SEED, _SEED, _FIELDS = range(8)
# linux/fcntl.h; the fcntl module has these names only for some builds.
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEALS = 0x1 | 0x2 | 0x4  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW: nobody can cut the block under the other side


@dataclass(frozen=True)
class Layout:
    """Offsets of the parts, all from the sizes of the policy."""

    views: int
    image_size: int
    state_dim: int
    horizon: int
    action_dim: int

    @classmethod
    def of(cls, info: WorkerInfo) -> Layout:
        return cls(len(info.views), info.image_size, info.state_dim, info.horizon, info.action_dim)

    def parts(self) -> dict[str, tuple[int, np.dtype, tuple[int, ...]]]:
        """Name -> (offset in bytes, dtype, shape)."""
        shapes = {
            "header": (np.dtype(np.int64), (_FIELDS,)),
            "prompt": (np.dtype(np.uint8), (MAX_PROMPT_BYTES,)),
            "state": (np.dtype(np.float32), (self.state_dim,)),
            "images": (np.dtype(np.uint8), (self.views, self.image_size, self.image_size, 3)),
            "actions": (np.dtype(np.float32), (self.horizon, self.action_dim)),
        }
        out, at = {}, 0
        for name, (dtype, shape) in shapes.items():
            out[name] = (at, dtype, shape)
            at += -(-dtype.itemsize * int(np.prod(shape)) // _ALIGN) * _ALIGN
        return out

    @property
    def nbytes(self) -> int:
        """Whole pages."""
        offset, dtype, shape = self.parts()["actions"]
        end = offset + dtype.itemsize * int(np.prod(shape))
        return -(-end // mmap.PAGESIZE) * mmap.PAGESIZE


class SharedMemory:
    """An anonymous memory file (memfd): it has no name that could be guessed, planted or left behind (F88).

    Mode 0600, size sealed, inherited by descriptor only; it vanishes with the last of the two processes.
    """

    def __init__(self, fd: int, layout: Layout):
        """Map `fd`, and own it. Raises DeviceError when it is not a sealed file of exactly the layout's size."""
        self._fd, self._map = fd, None
        try:
            self._check(fd, layout)
            self._map = mmap.mmap(fd, layout.nbytes)
        except BaseException:
            os.close(fd)
            raise
        parts = layout.parts()
        views = {
            name: np.frombuffer(self._map, dtype, int(np.prod(shape)), at).reshape(shape)
            for name, (at, dtype, shape) in parts.items()
        }
        self._header, self._prompt, self._state = views["header"], views["prompt"], views["state"]
        self._images, self._actions = views["images"], views["actions"]

    @classmethod
    def create(cls, layout: Layout) -> SharedMemory:
        """A new block of zeros."""
        if layout.nbytes > MAX_BYTES:
            raise DeviceError("shared memory", expected=f"at most {MAX_BYTES} bytes", found=layout.nbytes)
        fd = os.memfd_create("flashrt", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, layout.nbytes)
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
        block = cls(fd, layout)
        block._header[_MAGIC_AT] = _MAGIC
        return block

    @classmethod
    def attach(cls, fd: int, layout: Layout) -> SharedMemory:
        """The block of the other process; `fd` is closed, the map stays."""
        block = cls(fd, layout)
        block.close_fd()
        return block

    @staticmethod
    def _check(fd: int, layout: Layout) -> None:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size != layout.nbytes:
            raise DeviceError("shared memory", expected=f"{layout.nbytes} bytes", found=info.st_size)
        if stat.S_IMODE(info.st_mode) != 0o600 or info.st_uid != os.geteuid():
            raise DeviceError("shared memory", expected="mode 0600, own file", found=oct(stat.S_IMODE(info.st_mode)))
        try:
            seals = fcntl.fcntl(fd, _F_GET_SEALS)
        except OSError:
            seals = 0  # an ordinary file
        if seals & _SEALS != _SEALS:
            raise DeviceError("shared memory", expected="a sealed size", found=f"seals {seals:#x}")

    @property
    def fd(self) -> int:
        return self._fd

    @property
    def nbytes(self) -> int:
        return len(self._map)

    def write_request(self, number: int, request: Request) -> None:
        """Parent: put an observation in. Raises ObservationError for a prompt that is too long."""
        text = request.prompt.encode("utf-8", "surrogatepass")
        if len(text) > MAX_PROMPT_BYTES:
            raise ObservationError("prompt", expected=f"at most {MAX_PROMPT_BYTES} bytes", found=len(text))
        self._prompt[: len(text)] = np.frombuffer(text, np.uint8)
        for slot, image in zip(self._images, request.images, strict=True):
            slot[...] = image
        if request.state is not None:
            self._state[...] = request.state
        header = self._header
        header[_PROMPT_LEN], header[_HAS_STATE] = len(text), request.state is not None
        header[_HAS_SEED], header[_SEED] = request.seed is not None, request.seed or 0
        header[_REQUEST] = number

    def read_request(self, number: int) -> Request:
        """Child: the observation `number`; private copies of state and prompt, views of the images.

        The parent writes again only after the answer. Raises DeviceError when the block holds something else.
        """
        h = self._header
        if h[_MAGIC_AT] != _MAGIC or h[_REQUEST] != number or not 0 <= h[_PROMPT_LEN] <= MAX_PROMPT_BYTES:
            raise DeviceError("shared memory", expected=f"request {number}", found=f"header {h[:4].tolist()}")
        prompt = self._prompt[: int(h[_PROMPT_LEN])].tobytes().decode("utf-8", "replace")
        state = self._state.copy() if h[_HAS_STATE] else None
        return Request(tuple(self._images), state, prompt, int(h[_SEED]) if h[_HAS_SEED] else None)

    def write_result(self, number: int, actions: np.ndarray) -> None:
        """Child: the chunk of request `number`, float32 of the agreed shape."""
        self._actions[...] = actions
        self._header[_RESULT] = number

    def read_result(self, number: int) -> np.ndarray:
        """Parent: a copy of the chunk of request `number`, float32 [H, A]."""
        if self._header[_RESULT] != number:
            raise DeviceError("shared memory", expected=f"result {number}", found=int(self._header[_RESULT]))
        return self._actions.copy()

    def close(self) -> None:
        """Unmap and close; may be called twice."""
        if self._map is None:
            return
        self._header = self._prompt = self._state = self._images = self._actions = None
        try:
            self._map.close()
        except BufferError:
            pass  # a request still looks at it: the map goes with its last view
        self._map = None
        self.close_fd()

    def close_fd(self) -> None:
        """The map needs no descriptor; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
