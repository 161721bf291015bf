"""Argument checks of an op call, made from its table row: one error names op, argument, value, rule and shape."""

from __future__ import annotations

import math
from typing import Any

from ..errors import OpError
from ..types import DType
from .schema import Code, Dim, Op, Ptr, Real

MAX_BYTES = 1 << 40


def bind_args(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Positional and keyword arguments of a call as one dict in table order; `stream` may be left out (0)."""
    names = op.arg_names
    if len(args) > len(names):
        raise OpError(op.name, "arguments", len(args), f"must be at most {len(names)}")
    values = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            raise OpError(op.name, name, value, f"is not an argument; arguments: {', '.join(names)}")
        if name in values:
            raise OpError(op.name, name, value, "is given twice")
        values[name] = value
    values.setdefault("stream", 0)
    missing = [n for n in names if n not in values]
    if missing:
        raise OpError(op.name, missing[0], "nothing", "must be given")
    return {n: values[n] for n in names}


def check_args(op: Op, values: dict[str, Any]) -> None:
    """Raise `OpError` for the first argument that breaks its rule."""

    def fail(arg: str, rule: str) -> None:
        raise OpError(op.name, arg, values[arg], rule, _shape(op, values))

    for a in op.args:  # sizes and codes first: pointers are judged by them
        v = values[a.name]
        if isinstance(a, Dim | Code):
            if isinstance(v, bool) or not isinstance(v, int):
                fail(a.name, "must be an int")
            if isinstance(a, Code):
                if v not in a.allowed:
                    fail(a.name, f"must be one of {', '.join(str(int(c)) + '=' + c.name for c in a.allowed)}")
            elif not a.lo <= v <= a.hi:
                fail(a.name, f"must be within {a.lo}..{a.hi}")
            elif v % a.multiple:
                fail(a.name, f"must be a multiple of {a.multiple}")
        elif isinstance(a, Real):
            if isinstance(v, bool) or not isinstance(v, int | float) or not math.isfinite(v):
                fail(a.name, "must be a finite number")
            if not a.lo <= v <= a.hi:
                fail(a.name, f"must be within {a.lo}..{a.hi}")
    for rule in op.rules:
        if not rule.ok(values):
            fail(rule.arg, rule.words)
    for p in op.ptrs:
        _check_ptr(p, values, fail)
    if isinstance(values["stream"], bool) or not isinstance(values["stream"], int) or values["stream"] < 0:
        fail("stream", "must be a stream id or handle >= 0")


def nbytes(p: Ptr, values: dict[str, Any]) -> int:
    return math.prod(p.sizes(values)) * p.resolve(values).nbytes


def _check_ptr(p: Ptr, values: dict[str, Any], fail: Any) -> None:
    v = values[p.name]
    if isinstance(v, bool) or not isinstance(v, int):
        fail(p.name, "must be an int (a pointer), never a tensor")
    if v == 0:
        if p.required(values):
            fail(p.name, "must not be null")
        return
    if v < 0 or v >= 1 << 63:
        fail(p.name, "is not an address")
    if v % p.align:
        fail(p.name, f"must be {p.align}-byte aligned")
    if nbytes(p, values) > MAX_BYTES:
        fail(p.name, f"would span {nbytes(p, values)} bytes, more than {MAX_BYTES}")


def _shape(op: Op, values: dict[str, Any]) -> str:
    dims = [f"{a.name}={values[a.name]}" for a in op.args if isinstance(a, Dim)]
    codes = [
        f"{a.name}={DType(values[a.name]).name.lower()}"
        for a in op.args
        if isinstance(a, Code) and a.name.endswith("dtype") and values[a.name] in tuple(DType)
    ]
    return ", ".join(dims + codes)
