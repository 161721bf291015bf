"""Typed errors: each names the thing, what was expected, what was found and what to do.

Every class also derives from the built-in that the documented API promises (`ValueError`, `RuntimeError`,
`FileNotFoundError`), so callers of either vocabulary catch it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FlashRTError(Exception):
    """Base of all errors raised on purpose.

    thing: the name of what is wrong (a key, an option, a file). expected / found: short descriptions.
    hint: what to do about it. All four are kept as attributes; the message is made from them.
    """

    def __init__(self, thing: str, *, expected: object = None, found: object = None, hint: str | None = None):
        self.thing, self.expected, self.found, self.hint = thing, expected, found, hint
        text = str(thing)
        if expected is not None:
            text += f": expected {expected}"
        if found is not None:
            text += f"{',' if expected is not None else ':'} found {found}"
        if hint:
            text += f". {hint}"
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        """Crosses to another process as it is: what was said, and the fields."""
        return _again, (type(self), self.args), self.__dict__


def _again(cls: type[FlashRTError], args: tuple[object, ...]) -> FlashRTError:
    """The class without its `__init__`, whose arguments the message no longer tells apart."""
    error = (OSError if issubclass(cls, OSError) else Exception).__new__(cls, *args)
    error.args = args
    return error


class OpError(FlashRTError, ValueError):
    """An op was called with an argument that breaks its rule."""

    def __init__(self, op: str, arg: str, value: object, rule: str, shape: str = ""):
        self.op, self.arg, self.value, self.rule, self.shape = op, arg, value, rule, shape
        super().__init__(f"{op}: {arg}={value} {rule}" + (f" ({shape})" if shape else ""))


class NotBuilt(FlashRTError, RuntimeError):
    """What was asked for exists, but not in this build or not for this hardware."""


class CheckpointError(FlashRTError, ValueError):
    """A checkpoint file is damaged, incomplete, hostile or not what the model needs."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """A file that a checkpoint needs is not there."""


class ConfigError(FlashRTError, ValueError):
    """An option or a configuration key is unknown, out of range or contradicts another."""


class ObservationError(FlashRTError, ValueError):
    """An image, a state or a prompt is not what the policy was built for."""


class DeviceError(FlashRTError, RuntimeError):
    """The device failed or is missing."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest known name, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
