"""Graph: work captured once per shape, replayed without checks; on the host it is the recorded list of calls."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import FlashRTError, NotBuilt, nearest
from .exec_buffer import Buffer
from .exec_status import BACKEND, CAPTURE, INVALID, NO_VARIANT, OK, UNBOUND, ExecError

if TYPE_CHECKING:
    from .exec import Ctx

KEY_INHERIT = (1 << 64) - 1  # FRT_KEY_INHERIT: "the key that the plan is executed with"


@dataclass(frozen=True)
class ShapeKey:
    """An exact key of named sizes, e.g. ShapeKey.of(prompt=48, views=2): keys match when all sizes are equal."""

    dims: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, **dims: int) -> ShapeKey:
        return cls(tuple(sorted(dims.items())))


Key = int | ShapeKey


def check_key(what: str, key: object, *, inherit: bool = False) -> Key:
    """`key` if it is a ShapeKey or an int in 0 .. 2^64 - 2 (KEY_INHERIT too, if allowed). Raises ExecError."""
    if isinstance(key, ShapeKey) or (isinstance(key, int) and not isinstance(key, bool) and 0 <= key < KEY_INHERIT):
        return key
    if inherit and key == KEY_INHERIT:
        return KEY_INHERIT
    raise ExecError(what, INVALID, f"a key is a ShapeKey or an int in 0 .. 2^64 - 2, not {key!r}")


class Recorder:
    """The calls of one capture, in order. Calling it runs them."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def append(self, fn: Callable[..., object], *args: object) -> None:
        """Record `fn(*args)`; the arguments are checked already, nothing runs now."""
        self._calls.append((fn, args))

    def __len__(self) -> int:
        return len(self._calls)

    def __call__(self) -> None:
        for fn, args in self._calls:
            fn(*args)


class Graph:
    """Variants of one piece of work by exact key. Made by `Ctx.graph`."""

    def __init__(self, ctx: Ctx, name: str, max_variants: int):
        self.name = name
        self._ctx, self._max = ctx, max_variants
        self._variants: OrderedDict[Key, Callable[[], object]] = OrderedDict()  # least recently used first
        self._ports: dict[Hashable, Buffer | None] = {}
        self._port_bytes: dict[Hashable, int] = {}

    def capture(self, key: Key, record: Callable[[int], object], stream_id: int = 0) -> None:
        """Record the ops that `record(stream)` calls, as the variant `key`; an earlier one is replaced.

        While it runs, ops and copies of this ctx are recorded instead of executed. When it raises, the error goes on
        to the caller and the variants are as before. Over `max_variants` the least recently used one is dropped.
        Raises ExecError on a nested capture.
        """
        key = check_key(f"{self.name}.capture", key)
        stream = self._ctx.stream_handle(stream_id)
        if self._ctx.recorder is not None:
            raise ExecError(f"{self.name}.capture", CAPTURE, "another capture of this ctx is under way")
        recorder = self._ctx.recorder = Recorder()
        try:
            record(stream)
        finally:
            self._ctx.recorder = None
        self._store(key, recorder)

    def adopt(self, key: Key, work: Callable[[], object] | int) -> None:
        """Use a variant that someone else owns: a callable without arguments. Dropping it here does nothing to it.

        An address (a captured device graph) needs a device: NotBuilt on the host.
        """
        key = check_key(f"{self.name}.adopt", key)
        if isinstance(work, int):
            raise NotBuilt(f"{self.name}.adopt({work:#x})", expected="a callable", found="an address", hint="host ctx")
        if not callable(work):
            raise ExecError(f"{self.name}.adopt", INVALID, f"not callable: {work!r}")
        self._store(key, work)

    def _store(self, key: Key, work: Callable[[], object]) -> None:
        self._variants[key] = work
        self._variants.move_to_end(key)
        if self._max and len(self._variants) > self._max:
            self.evict_lru()

    def declare(self, port: Hashable, nbytes: int = 0) -> None:
        """Say that replay needs a buffer of at least `nbytes` bound to `port`."""
        self._ports.setdefault(port, None)
        self._port_bytes[port] = nbytes

    def bind(self, port: Hashable, buffer: Buffer) -> None:
        """Give a port its buffer. Raises ExecError for a port that was not declared or a buffer that is too small.

        A graph without declared ports takes any name. The recorded calls keep the addresses they were recorded with.
        """
        if self._port_bytes and port not in self._port_bytes:
            raise ExecError(f"{self.name}.bind({port!r})", INVALID, nearest(str(port), map(str, self._port_bytes)))
        need = self._port_bytes.get(port, 0)
        if buffer.nbytes() < need:
            raise ExecError(f"{self.name}.bind({port!r})", INVALID, f"needs {need} bytes, got {buffer.nbytes()}")
        self._ports[port] = buffer

    def check(self, key: Key) -> int:
        """What `replay(key)` would return, without running anything or touching the LRU order."""
        if key not in self._variants:
            return NO_VARIANT
        return UNBOUND if None in self._ports.values() else OK

    def replay(self, key: Key, stream_id: int = 0) -> int:
        """Run the variant `key`. Returns OK (0), NO_VARIANT (-2) or UNBOUND (-3: a declared port has no buffer).

        During a capture of the same ctx the variant is recorded as a part of it. Raises ExecError for a bad stream or
        when a call fails.
        """
        handle = self._ctx.stream_handle(stream_id)
        rc = self.check(key)
        if rc != OK:
            return rc
        self._variants.move_to_end(key)
        self._ctx.submit(f"{self.name}.replay", self._variants[key], handle)
        return OK

    def has_variant(self, key: Key) -> bool:
        return key in self._variants

    def variant_count(self) -> int:
        return len(self._variants)

    def evict(self, key: Key) -> bool:
        """Drop a variant; False when there was none."""
        return self._variants.pop(key, None) is not None

    def evict_lru(self) -> Key | None:
        """Drop the least recently captured or replayed variant and return its key; None when there is none."""
        return self._variants.popitem(last=False)[0] if self._variants else None


def run_call(what: str, call: Callable[[], object]) -> None:
    """Run recorded work; a failure inside becomes an ExecError with rc BACKEND."""
    try:
        call()
    except FlashRTError:
        raise  # already names the op and the argument
    except Exception as error:  # the boundary to the backend: recorded calls are not ours
        raise ExecError(what, BACKEND, f"{type(error).__name__}: {error}") from error
