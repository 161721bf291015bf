"""The op table as a page: `python -m flashrt_core.ops.catalogue > docs/ops.md`. A test keeps the page and the table equal."""

from __future__ import annotations

import sys

from ..types import DType
from .schema import Code, Dim, Op, Ptr, Real, Size
from .table import OPS, Epilogue

HEAD = """# Ops

Every computation of a pipeline is one of these calls. Each row of `flashrt_core/ops/table.py` gives the argument check,
the host implementation's contract, the fp32 reference, the tolerance, the property and fuzz tests (`test/ops`) and this
page, which `python -m flashrt_core.ops.catalogue` prints. An op takes ints (pointers, sizes, codes, a stream) and floats.

Dtype codes: {dtypes}. GEMM epilogues: {epilogues}.
"""


def _shape(p: Ptr) -> str:
    names = [a.text if isinstance(a, Size) else a for a in p.shape]
    return f"[{', '.join(map(str, names))}]"


def _argument(a: Ptr | Dim | Code | Real) -> tuple[str, str]:
    if isinstance(a, Ptr):
        dtype = a.dtype.name.lower() if isinstance(a.dtype, DType) else f"by `{a.dtype}`"
        when = ", may be 0" if a.optional else ", when used" if a.needed else ""
        return f"{a.role} pointer", f"{_shape(a)} {dtype}, {a.align}-byte aligned{when}"
    if isinstance(a, Dim):
        return "int", f"{a.lo}..{a.hi}" + (f", multiple of {a.multiple}" if a.multiple > 1 else "")
    if isinstance(a, Code):
        return "code", ", ".join(c.name.lower() for c in a.allowed)
    return "float", f"{a.lo:g}..{a.hi:g}"


def _section(op: Op) -> str:
    rows = [f"| `{a.name}` | {kind} | {rule} |" for a in op.args for kind, rule in [_argument(a)]]
    rules = [f"- `{r.arg}` {r.words}" for r in op.rules]
    tolerance = ", ".join(f"{d.name.lower()} {t:g}" for d, t in op.tol.items())
    parts = [
        f"## {op.name}",
        op.doc,
        "\n".join(["| argument | kind | rule |", "|---|---|---|", *rows]),
        *(["\n".join(rules)] if rules else []),
        f"Tolerance (largest error / largest value, by output dtype): {tolerance}.",
    ]
    return "\n\n".join(parts)


def catalogue() -> str:
    """The whole page, Markdown."""
    head = HEAD.format(
        dtypes=", ".join(f"{d.name.lower()} {int(d)}" for d in DType),
        epilogues=", ".join(f"{e.name.lower()} {int(e)}" for e in Epilogue),
    )
    return "\n".join([head, "\n\n".join(_section(op) for op in OPS.values())]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(catalogue())
