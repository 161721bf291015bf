"""Every row of the op table: each machine's implementation against the fp32 reference, and its argument checks, from the row
itself. The host always; a GPU when it and the built kernels are there (`--require-gpu` makes that a must)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.machines import MACHINES, device_of, ops_here, settle

from flashrt_core.errors import NotBuilt, OpError
from flashrt_core.hardware.host.ops import TORCH_DTYPE, HostOps, _f32_weight
from flashrt_core.ops.schema import Code, Dim, Op, Ptr, Real
from flashrt_core.ops.table import OPS
from flashrt_core.runtime.exec import Ctx
from flashrt_core.types import E4M3, F16, F32, I32, U8, DType

COMMON = dict(deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
REALS = {"eps": 1e-6, "scale": 0.25}
EXAMPLES = {"host": 60, "hopper": 200}  # a GPU leaves out F16, draws more shapes in less time
# Hopper's FP8 tensor cores add products with about 13 bits before the fp32 accumulator takes them over.
FP8_ACCUMULATION = {"host": 0.0, "hopper": 1e-3}


@dataclass(repr=False)
class Case:
    """One call: argument values, and the tensors behind its pointers. The repr is what a failure prints."""

    op: Op
    values: dict
    tensors: dict[str, torch.Tensor]

    def __repr__(self) -> str:
        ptrs = {p.name for p in self.op.ptrs}
        return f"{self.op.name}({', '.join(f'{k}={v!r}' for k, v in self.values.items() if k not in ptrs)})"


def _tensor(p: Ptr, d: dict, rng: np.random.Generator) -> torch.Tensor:
    dtype, sizes = p.resolve(d), p.sizes(d)
    if dtype == U8:
        return torch.from_numpy(rng.integers(0, 256, sizes, np.uint8))
    if dtype == I32:
        hi = {"ids": d.get("vocab", 1), "kv_len": d.get("KV", 1), "pos0": d.get("rows", 1) - d.get("M", 0) + 1}[p.name]
        return torch.from_numpy(rng.integers(1 if p.name == "kv_len" else 0, max(hi, 1), sizes).astype(np.int32))
    if p.name.endswith("scale"):
        return torch.tensor([0.002 if p.name == "scale" else 0.02], dtype=torch.float32)
    if p.name in ("x", "a", "w", "q", "k", "v") and dtype == E4M3:
        return torch.from_numpy(rng.normal(0, 40, sizes).astype(np.float32)).clamp(-448, 448).to(TORCH_DTYPE[dtype])
    return torch.from_numpy(rng.normal(0, 1, sizes).astype(np.float32)).to(TORCH_DTYPE[dtype])


@st.composite
def cases(draw, op: Op, device: str = "cpu") -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    d: dict = {}
    for a in op.args:
        if isinstance(a, Dim):
            d[a.name] = draw(st.sampled_from(a.try_))
        elif isinstance(a, Code):
            d[a.name] = draw(st.sampled_from(a.allowed))
        elif isinstance(a, Real):
            d[a.name] = REALS[a.name]
    if "KVH" in d and d["H"] % d["KVH"]:
        d["KVH"] = 1
    tensors, values = {}, dict(d)
    for p in op.ptrs:
        absent = not p.required(d) and not (p.optional and draw(st.booleans()))
        if absent:
            values[p.name] = 0
            continue
        n = math.prod(p.sizes(d))
        nbytes = n * p.resolve(d).nbytes
        base = torch.zeros(nbytes + (16 if device == "cpu" else 0), dtype=torch.uint8, device=device)
        skip = -base.data_ptr() % 16  # the table asks for 16-byte alignment
        t = base[skip : skip + nbytes].view(TORCH_DTYPE[p.resolve(d)]).view(p.sizes(d))
        t.copy_(_tensor(p, d, rng))
        tensors[p.name], values[p.name] = t, t.data_ptr()
    if values.get("res") and d.get("res_dtype") == d.get("out_dtype") and draw(st.booleans()):
        tensors["out"], values["out"] = tensors["res"], values["res"]  # the in-place form
    return Case(op, values, tensors)


def _reference(case: Case) -> dict[str, np.ndarray]:
    arrays = {p.name: None for p in case.op.ptrs if p.role != "out"}
    for name in arrays:
        t = case.tensors.get(name)
        if t is not None:
            whole = t.dtype in (torch.uint8, torch.int32)
            arrays[name] = (t if whole else t.float()).cpu().numpy().copy()
    params = {a.name: case.values[a.name] for a in case.op.args if not isinstance(a, Ptr)}
    got = case.op.ref(**arrays, **params)
    return got if isinstance(got, dict) else {"out": got}


def _written(case: Case, name: str, like: np.ndarray) -> np.ndarray:
    t = case.tensors[name].float()
    if case.tensors[name].dtype == torch.float8_e4m3fn:
        t = t * case.tensors["out_scale"]
    if case.op.name in ("qkv_rope", "gemm_qkv_rope") and name in ("k", "v"):
        start = int(case.tensors["pos0"]) if case.values["pos0"] else 0
        t = t[start : start + case.values["M"]]
    return t.cpu().numpy().reshape(like.shape)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", OPS)
def test_op_against_reference(name: str, machine: str, request: pytest.FixtureRequest) -> None:
    op, ops = OPS[name], ops_here(machine)
    examples = request.config.getoption("--op-examples") or EXAMPLES[machine]

    @settings(max_examples=examples, **COMMON)
    @given(case=cases(op, device_of(machine)))
    def check(case: Case) -> None:
        want = _reference(case)
        try:
            getattr(ops, name)(**case.values)
        except NotBuilt:
            codes = [case.values[a.name] for a in op.args if isinstance(a, Code) and a.name.endswith("dtype")]
            assert machine == "hopper" and F16 in codes, f"{case}: only F16 may be missing"
            return
        settle(machine)
        for out, ref in want.items():
            if case.values[out] == 0:
                continue
            p = next(p for p in op.ptrs if p.name == out)
            dtype = p.resolve(case.values)
            got = _written(case, out, ref)
            if dtype == E4M3:
                ref = np.clip(ref, -448 * 0.02, 448 * 0.02)  # the op saturates
            tol = op.tol[dtype]
            if name == "gemm" and case.values["a_dtype"] == E4M3:
                tol = max(tol, FP8_ACCUMULATION[machine])
            bound = tol * max(np.abs(ref).max(), 1e-2)
            assert np.isfinite(got).all() and np.abs(got - ref).max() <= bound, (
                f"{case}: {np.abs(got - ref).max()} > {bound}"
            )

    check()


def _bad_values(op: Op) -> list[tuple[str, object, str]]:
    """(argument, bad value, words of the error) for each argument of the row."""
    bad: list[tuple[str, object, str]] = []
    for a in op.args:
        if isinstance(a, Ptr):
            bad += [(a.name, -64, "is not an address"), (a.name, 1 << 63, "is not an address"), (a.name, 3.0, "an int")]
            if a.align > 1:
                bad.append((a.name, 0x1003, "aligned"))
            if a.needed is None and not a.optional:
                bad.append((a.name, 0, "null"))
        elif isinstance(a, Dim):
            bad += [
                (a.name, a.lo - 1, "within"),
                (a.name, -(2**31), "within"),
                (a.name, 2**31, "within"),
                (a.name, True, "int"),
            ]
            if a.multiple > 1:
                bad.append((a.name, a.multiple * 2 + 1, "multiple"))
        elif isinstance(a, Code):
            bad += [(a.name, 99, "one of"), (a.name, -1, "one of")]
        elif isinstance(a, Real):
            bad += [(a.name, math.nan, "finite"), (a.name, math.inf, "finite"), (a.name, a.hi * 2 + 1, "within")]
    return [*bad, ("stream", -1, "stream")]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", OPS)
def test_bad_argument_is_named(name: str, machine: str) -> None:
    op, ops = OPS[name], ops_here(machine)

    @settings(max_examples=5, **COMMON)
    @given(case=cases(op, device_of(machine)))
    def check(case: Case) -> None:
        for arg, value, words in _bad_values(op):
            before = {k: t.clone() for k, t in case.tensors.items()}
            with pytest.raises(OpError) as e:
                getattr(ops, name)(**(case.values | {arg: value}))
            assert (e.value.op, e.value.arg) == (name, arg), f"{arg}={value}: blamed {e.value}"
            assert words in e.value.rule and f"{arg}={value}" in str(e.value)
            for k, t in case.tensors.items():
                assert torch.equal(t.view(torch.uint8), before[k].view(torch.uint8)), (
                    f"{k} was written by a refused call"
                )

    check()


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.rules])
def test_each_relation_rule_can_fail(name: str) -> None:
    op = OPS[name]
    breaking = {
        ("patchify", "S"): {"S": 29},
        ("patchify", "K"): {"P": 14, "S": 28, "K": 16},
        ("qkv_rope", "rows"): {"rows": 1, "M": 2},
        ("gemm_qkv_rope", "rows"): {"rows": 1, "M": 2},
        ("gemm_gate_norm", "K"): {"K": 896},
        ("attention", "H"): {"H": 3, "KVH": 2},
        ("attention", "q_stride"): {"q_stride": 8, "H": 4, "HD": 8, "KVH": 1},
        ("attention", "kv_stride"): {"kv_stride": 8, "H": 4, "HD": 8, "KVH": 4},
        ("attention", "kv_extra"): {"kv_extra": 13, "KV": 12},
        ("avg_pool", "F"): {"G": 6, "F": 4},
    }
    for rule in op.rules:
        d = {a.name: a.try_[0] for a in op.args if isinstance(a, Dim)}
        d |= {a.name: int(a.allowed[0]) for a in op.args if isinstance(a, Code)}
        d |= {a.name: REALS[a.name] for a in op.args if isinstance(a, Real)}
        d |= breaking[name, rule.arg]
        d |= {p.name: 0x1000 for p in op.ptrs}
        with pytest.raises(OpError) as e:
            getattr(HostOps(Ctx()), name)(**d)
        assert e.value.arg == rule.arg and e.value.rule == rule.words


def test_error_reads_as_documented() -> None:
    with pytest.raises(OpError, match=r"rms_norm: D=1153 must be a multiple of 8 \(M=512, D=1153, x_dtype=bf16"):
        HostOps(Ctx()).rms_norm(0x1000, 0x1000, 0, 512, 1153, 1e-6, 1, 1)


def test_wrong_call_shapes() -> None:
    ops = HostOps(Ctx())
    with pytest.raises(OpError, match="is not an argument"):
        ops.amax(x=16, out=16, n=1, x_dtype=0, weight=3)
    with pytest.raises(OpError, match="must be given"):
        ops.amax(x=16, out=16, n=1)
    with pytest.raises(OpError, match="given twice"):
        ops.amax(16, 16, 1, 0, x=16)
    with pytest.raises(OpError, match="at most"):
        ops.amax(16, 16, 1, 0, 0, 0)


def test_data_dependent_bounds_are_errors_not_reads_past_the_end() -> None:
    ops, f = HostOps(Ctx()), torch.zeros(256)
    ids = torch.tensor([0, 11], dtype=torch.int32)
    with pytest.raises(OpError, match="embed_tokens: ids=11"):
        ops.embed_tokens(f.data_ptr(), ids.data_ptr(), f.data_ptr(), 2, 8, 11, 1.0, F32, F32)
    n = torch.tensor([9], dtype=torch.int32)
    with pytest.raises(OpError, match="kv_len"):
        ops.attention(
            f.data_ptr(),
            f.data_ptr(),
            f.data_ptr(),
            n.data_ptr(),
            f.data_ptr(),
            0,
            1,
            1,
            8,
            0,
            1,
            1,
            8,
            8,
            8,
            1.0,
            0,
            0,
        )
    with pytest.raises(OpError, match="pos0"):
        ops.qkv_rope(
            f.data_ptr(), f.data_ptr(), n.data_ptr(), f.data_ptr(), f.data_ptr(), f.data_ptr(), 2, 1, 1, 8, 10, F32
        )


def test_recorded_calls_run_only_at_replay() -> None:
    ctx, x, out = Ctx(), torch.tensor([3.0, -7.0]), torch.zeros(1)
    graph = ctx.graph("g")
    graph.capture(0, lambda stream: HostOps(ctx).amax(x.data_ptr(), out.data_ptr(), 2, F32, stream))
    assert out.item() == 0.0
    assert graph.replay(0) == 0
    assert out.item() == 7.0


def test_bytes_moved_counts_each_operand_once() -> None:
    d = dict(M=2, N=8, K=16, epilogue=4, a_dtype=DType.BF16, res_dtype=DType.F32, out_dtype=DType.E4M3)
    assert OPS["gemm"].bytes_moved(d) == 2 * 16 * 2 + 8 * 16 * 2 + 8 * 4 + 2 * 8 * 4 + 2 * 8 + 4
    assert OPS["gemm"].flops(d) == 2 * 2 * 8 * 16
    d = dict(M=3, D=8, vocab=1000, table_dtype=DType.BF16, out_dtype=DType.F32)
    assert OPS["embed_tokens"].bytes_moved(d) == 3 * 8 * 2 + 3 * 4 + 3 * 8 * 4, "three rows of the table"


def test_weight_decoding_equals_the_cast_for_every_finite_code() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    finite = codes[(codes & 0x7F) != 0x7F].view(torch.float8_e4m3fn)
    assert torch.equal(_f32_weight(finite), finite.float())
