"""Status codes of the exec contract and the error that carries one."""

from __future__ import annotations

from ..errors import DeviceError

OK = 0
INVALID = -1
NO_VARIANT = -2
UNBOUND = -3
CAPTURE = -4
BACKEND = -5
OOM = -6
STATUS_NAMES = {
    OK: "OK",
    INVALID: "INVALID",
    NO_VARIANT: "NO_VARIANT",
    UNBOUND: "UNBOUND",
    CAPTURE: "CAPTURE",
    BACKEND: "BACKEND",
    OOM: "OOM",
}


class ExecError(DeviceError):
    """`<what> failed: rc=<code>`. Attributes: what, rc, reason. A RuntimeError, as the exec contract says."""

    def __init__(self, what: str, rc: int, reason: str):
        self.what, self.rc, self.reason = what, rc, reason
        super().__init__(f"{what} failed: rc={rc} ({STATUS_NAMES[rc]})", hint=reason)
