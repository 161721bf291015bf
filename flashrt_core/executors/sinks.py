"""Where loaded tensors go: an attribute of the target, a list of it, or one attribute joined from all layers."""

from __future__ import annotations

from typing import Any

from ..errors import FlashRTError


class SinkError(FlashRTError, RuntimeError):
    """A spec sends two tensors to a sink that holds one."""


class AttrSink:
    """Sets `target.<name>` once per run; SinkError (a RuntimeError) at the second store."""

    def __init__(self, name: str):
        self.name = name
        self._target: Any = None
        self._stored = False

    def begin(self, target: Any) -> None:
        self._target, self._stored = target, False

    def store(self, tensor: Any, *, scale: float | None = None) -> None:
        if self._stored:
            raise SinkError(
                f"{type(self).__name__}({self.name!r})", expected="one tensor per run", found="a second one"
            )
        setattr(self._target, self.name, self.convert(tensor))
        self._stored = True

    def convert(self, tensor: Any) -> Any:
        """What is set for a tensor; the tensor itself unless a subclass changes it."""
        return tensor

    def finalize(self) -> None:
        return None


class ListSink:
    """Appends to a fresh list `target.<name>`, in loading order."""

    def __init__(self, name: str):
        self.name = name
        self._list: list[Any] = []

    def begin(self, target: Any) -> None:
        self._list = []
        setattr(target, self.name, self._list)

    def store(self, tensor: Any, *, scale: float | None = None) -> None:
        self._list.append(tensor)

    def finalize(self) -> None:
        return None


class CollectSink:
    """Collects in loading order; `finalize` sets `target.<name>` to what `join` makes of the parts."""

    def __init__(self, name: str):
        self.name = name
        self._target: Any = None
        self._parts: list[Any] = []

    def begin(self, target: Any) -> None:
        self._target, self._parts = target, []

    def store(self, tensor: Any, *, scale: float | None = None) -> None:
        self._parts.append(tensor)

    def join(self, parts: list[Any]) -> Any:
        raise NotImplementedError

    def finalize(self) -> None:
        setattr(self._target, self.name, self.join(self._parts))
        self._parts = []  # the joined copy is the only one kept
