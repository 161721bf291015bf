"""Broken arguments, 200 per op (FAULTS.md): each gives an OpError that names op and argument, none reaches a kernel.

On the host through the table's check; on a GPU also straight into the kernel library, whose own checks are the last line.
"""

from __future__ import annotations

import math
import random

import pytest
from support.machines import MACHINES, ops_here

from flashrt_core.errors import NotBuilt, OpError
from flashrt_core.ops.schema import Code, Dim, Op, Ptr, Real
from flashrt_core.ops.table import OPS

COUNT, LONG_COUNT = 200, 10_000
INT_MAX = 2**31 - 1
REALS = {"eps": 1e-6, "scale": 0.25}
ADDRESS = 0x7F00_0000_0000  # never looked at: a refused call reads nothing


def sound(op: Op, rng: random.Random) -> dict:
    """Arguments that keep every rule of the row."""
    for _ in range(200):
        d = {a.name: rng.choice(a.try_) for a in op.args if isinstance(a, Dim)}
        d |= {a.name: int(rng.choice(a.allowed)) for a in op.args if isinstance(a, Code)}
        d |= {a.name: REALS[a.name] for a in op.args if isinstance(a, Real)}
        if all(rule.ok(d) for rule in op.rules):
            return d | {p.name: ADDRESS + 4096 * i for i, p in enumerate(op.ptrs)} | {"stream": 0}
    raise AssertionError(f"{op.name}: no sound arguments found")


def broken(op: Op, values: dict, rng: random.Random, *, library: bool) -> tuple[str, object]:
    """(argument, a value that breaks its rule). library: only what a C function can be given."""
    while True:
        a = rng.choice(op.args)
        if isinstance(a, Ptr):
            choices: list[object] = [values[a.name] + rng.randrange(1, a.align)] if a.align > 1 and a.required(values) else []
            choices += [0] if a.required(values) else []
            choices += [] if library else [-64, 1 << 63, 3.5, True]
        elif isinstance(a, Dim):
            choices = [a.lo - 1, a.hi + 1, -rng.randrange(1, INT_MAX), -INT_MAX - 1, INT_MAX]
            choices += [a.multiple * rng.randrange(1, 9) + rng.randrange(1, a.multiple)] if a.multiple > 1 else []
            choices += [] if library else [2**31, 2**70, 2.0, True]
        elif isinstance(a, Code):
            choices = [99, -1, 31, 32, 1 << 20, -INT_MAX]
        else:
            choices = [math.nan, math.inf, -math.inf, a.lo - 1e-3 * (1 + abs(a.lo)), a.hi * 2 + 1]
        choices = [c for c in choices if c != values[a.name]]
        if choices:
            return a.name, rng.choice(choices)


def fuzz(op: Op, call, count: int, seed: int, *, library: bool) -> None:
    rng = random.Random(seed)
    for n in range(count):
        values = sound(op, rng)
        arg, bad = broken(op, values, rng, library=library)
        line = f"{op.name}({arg}={bad!r}), case {n} of seed {seed}"
        try:
            call(values | {arg: bad})
        except OpError as e:
            # another argument may be judged by this one's value: a code that gives a pointer's type, a size of a relation
            assert e.op == op.name and e.arg in op.arg_names and e.rule, line
            kind = next(a for a in op.args if a.name == arg)
            assert e.arg == arg or not isinstance(kind, Ptr), f"{line}: blamed {e}"
        except NotBuilt:
            raise AssertionError(f"{line}: taken for a valid call") from None
        else:
            raise AssertionError(f"{line}: accepted")


def refuses(machine: str):
    return lambda values, name: getattr(ops_here(machine), name)(**values)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", OPS)
def test_broken_arguments_are_named(name: str, machine: str) -> None:
    fuzz(OPS[name], lambda v: refuses(machine)(v, name), COUNT, 1, library=False)


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPS)
def test_the_library_refuses_them_itself(name: str) -> None:
    from flashrt_core import _kernels as kernels

    fuzz(OPS[name], lambda v: getattr(kernels, name)(*(v[n] for n in OPS[name].arg_names)), COUNT, 2, library=True)


@pytest.mark.long
@pytest.mark.parametrize("name", OPS)
def test_ten_thousand_a_row(name: str) -> None:
    fuzz(OPS[name], lambda v: refuses("host")(v, name), LONG_COUNT, 3, library=False)


def test_the_fuzzer_finds_a_hole() -> None:
    """An op without its check must fail the test."""
    with pytest.raises(AssertionError, match="accepted"):
        fuzz(OPS["rms_norm"], lambda values: None, COUNT, 1, library=False)
