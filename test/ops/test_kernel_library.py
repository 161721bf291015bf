"""The kernel library on its own: argument checks of the C ABI, capture of ops, scratch, and shapes that pipelines use."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.machines import hopper_missing, machine

from flashrt_core.errors import NotBuilt, OpError
from flashrt_core.ops import ref
from flashrt_core.ops.table import Epilogue
from flashrt_core.types import BF16, E4M3, F16, F32

pytestmark = pytest.mark.gpu
if not hopper_missing():
    from flashrt_core import _kernels as kernels

TORCH = {F32: torch.float32, BF16: torch.bfloat16, E4M3: torch.float8_e4m3fn}


def gpu(shape, dtype=BF16, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    gen = torch.Generator("cuda").manual_seed(seed)
    x = (torch.randn(shape, generator=gen, device="cuda") * scale).clamp(-448, 448).to(TORCH[dtype])
    torch.cuda.synchronize()  # a kernel may read weights before the one in front of it has finished
    return x


def p(t: torch.Tensor | None) -> int:
    return 0 if t is None else t.data_ptr()


@pytest.mark.parametrize(
    ("arg", "call"),
    [
        ("D", lambda x: kernels.rms_norm(x, x, 0, 4, 12, 1e-6, BF16, BF16, 0)),
        ("M", lambda x: kernels.rms_norm(x, x, 0, 0, 16, 1e-6, BF16, BF16, 0)),
        ("x", lambda x: kernels.rms_norm(x + 2, x, 0, 4, 16, 1e-6, BF16, BF16, 0)),
        ("out", lambda x: kernels.rms_norm(x, 0, 0, 4, 16, 1e-6, BF16, BF16, 0)),
        ("out_scale", lambda x: kernels.rms_norm(x, x, 0, 4, 16, 1e-6, BF16, E4M3, 0)),
        ("x_dtype", lambda x: kernels.rms_norm(x, x, 0, 4, 16, 1e-6, E4M3, BF16, 0)),
        ("eps", lambda x: kernels.rms_norm(x, x, 0, 4, 16, float("nan"), BF16, BF16, 0)),
        ("K", lambda x: kernels.gemm(x, x, 0, 0, 0, x, 0, 0, 0, 4, 16, 24, 0, BF16, F32, BF16, 0)),
        ("bias", lambda x: kernels.gemm(x, x, 0, 0, 0, x, 0, 0, 0, 4, 16, 16, 1, BF16, F32, BF16, 0)),
        ("a_scale", lambda x: kernels.gemm(x, x, 0, 0, 0, x, 0, x, 0, 4, 16, 16, 0, E4M3, F32, BF16, 0)),
        ("H", lambda x: kernels.attention(x, x, x, 0, x, 0, 1, 4, 4, 0, 3, 2, 8, 32, 32, 1.0, BF16, BF16, 0)),
        ("rows", lambda x: kernels.qkv_rope(x, x, 0, x, x, x, 4, 1, 1, 8, 3, BF16, 0)),
        ("F", lambda x: kernels.avg_pool(x, x, 0, 1, 6, 8, 4, BF16, BF16, 0)),
        ("n", lambda x: kernels.amax(x, x, 0, BF16, 0)),
        ("S", lambda x: kernels.patchify(x, x, 1, 29, 14, 592, 5, BF16, 0)),
    ],
)
def test_the_library_checks_its_own_arguments(arg: str, call) -> None:
    x = gpu((4096,))
    before = x.clone()
    with pytest.raises(OpError) as e:
        call(x.data_ptr())
    assert e.value.arg == arg and e.value.op in str(e.value) and e.value.rule
    torch.cuda.synchronize()
    assert torch.equal(x, before)


def test_what_is_not_compiled_says_so() -> None:
    x = gpu((4096,)).data_ptr()
    with pytest.raises(NotBuilt, match="f16 is not compiled"):
        kernels.rms_norm(x, x, 0, 4, 16, 1e-6, F16, BF16, 0)


@pytest.mark.parametrize("out_dtype", [BF16, E4M3])
@pytest.mark.parametrize(
    ("B", "M", "KV", "valid", "extra", "H", "KVH", "HD"),
    [
        (2, 256, 256, None, 0, 16, 16, 72), (3, 64, 64, None, 0, 2, 2, 64), (1, 560, 570, 531, 0, 8, 1, 256),
        (1, 10, 570, 531, 10, 8, 1, 256), (1, 50, 762, 700, 50, 8, 1, 256), (1, 10, 570, 1, 10, 8, 1, 256),
        (1, 10, 138, 90, 10, 4, 1, 64), (1, 6, 70, 33, 6, 2, 1, 16), (1, 1, 65, None, 0, 4, 2, 32),
        (1, 10, 570, 9999, 10, 8, 1, 256), (1, 10, 570, -5, 0, 8, 1, 256),
        (2, 100, 130, None, 0, 16, 16, 72), (2, 256, 256, 90, 0, 16, 16, 72), (1, 128, 256, 129, 0, 16, 16, 72),
        (1, 160, 180, 170, 0, 8, 1, 256), (1, 304, 314, 150, 0, 8, 1, 256), (1, 712, 712, 650, 0, 8, 1, 256),
        (1, 816, 826, None, 0, 8, 1, 256), (1, 130, 1152, 1000, 0, 8, 1, 256), (1, 130, 1160, 1155, 0, 8, 1, 256),
        (1, 50, 610, 560, 50, 8, 1, 256), (1, 50, 610, 9999, 50, 8, 1, 256), (1, 50, 610, 1, 50, 8, 1, 256),
        (1, 50, 610, None, 0, 8, 1, 256), (1, 17, 1024, 333, 17, 8, 1, 256), (1, 64, 640, -70, 64, 8, 1, 256),
    ],
)  # fmt: skip
def test_attention_at_pipeline_shapes(B, M, KV, valid, extra, H, KVH, HD, out_dtype) -> None:
    """Against fp32, no further off than twice PyTorch's own BF16 attention. A bad length is clamped, never read past."""
    q, k, v = gpu((B, M, H * HD), seed=1), gpu((B, KV, KVH * HD), seed=2), gpu((B, KV, KVH * HD), seed=3)
    n = KV if valid is None else min(max(valid + extra, 1), KV)
    k[:, n:], v[:, n:] = float("nan"), float("nan")  # rows that must not be looked at
    length = None if valid is None else torch.tensor([valid], dtype=torch.int32, device="cuda")
    out = torch.zeros((B, M, H * HD), device="cuda").to(TORCH[out_dtype])
    scale = torch.tensor([0.01], device="cuda")
    machine("hopper").ops.attention(
        q=p(q), k=p(k), v=p(v), kv_len=p(length), out=p(out), out_scale=p(scale), B=B, M=M, KV=KV, kv_extra=extra, H=H,
        KVH=KVH, HD=HD, q_stride=H * HD, kv_stride=KVH * HD, scale=HD**-0.5, dtype=BF16, out_dtype=out_dtype,
    )  # fmt: skip

    def heads(t: torch.Tensor, count: int) -> torch.Tensor:
        return t.unflatten(-1, (count, HD)).transpose(1, 2)

    def attend(dtype: torch.dtype) -> torch.Tensor:
        qh, kh, vh = heads(q, H).to(dtype), heads(k[:, :n], KVH).to(dtype), heads(v[:, :n], KVH).to(dtype)
        y = torch.nn.functional.scaled_dot_product_attention(qh, kh, vh, enable_gqa=True)
        return y.transpose(1, 2).reshape(B, M, H * HD).float()

    want, peer = attend(torch.float64), attend(torch.bfloat16)
    got = out.float() * (scale if out_dtype == E4M3 else 1)
    if out_dtype == E4M3:
        peer = (peer / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    assert torch.isfinite(got).all()
    assert (got - want).norm() <= 2 * (peer - want).norm() + 1e-5 * want.norm()
    assert (got - want).abs().max() <= 3 * (peer - want).abs().max() + 1e-5


@pytest.mark.parametrize("a_dtype", [F32, BF16, E4M3])
@pytest.mark.parametrize(
    ("M", "N", "K", "epilogue"),
    [
        (512, 3456, 1152, Epilogue.BIAS), (512, 4304, 1152, Epilogue.BIAS_GELU), (512, 1152, 4304, Epilogue.BIAS_RESIDUAL),
        (560, 2048, 2048, Epilogue.RESIDUAL), (560, 1024, 2048, Epilogue.GEGLU), (10, 2560, 1024, Epilogue.NONE),
        (10, 1024, 4096, Epilogue.GATE_RESIDUAL), (10, 4096, 1024, Epilogue.GEGLU), (10, 32, 1024, Epilogue.BIAS_RESIDUAL),
        (512, 1152, 592, Epilogue.BIAS_RESIDUAL), (7, 40, 48, Epilogue.BIAS_GELU), (50, 4096, 1024, Epilogue.GEGLU),
        (17, 32, 128, Epilogue.GEGLU), (64, 96, 4096, Epilogue.GEGLU),
    ],
)  # fmt: skip
def test_gemm_at_pipeline_shapes(M, N, K, epilogue, a_dtype) -> None:
    wide = F32 if a_dtype == F32 else BF16
    rows = 2 * N if epilogue == Epilogue.GEGLU else N
    a = gpu((M, K), a_dtype, 1, 40 if a_dtype == E4M3 else 1)
    w = gpu((rows, K), a_dtype, 2, 40 if a_dtype == E4M3 else K**-0.5)
    scales = torch.zeros(8, device="cuda")
    scales[0], scales[4] = 1 / 40, 1 / 40 * K**-0.5  # a scale pointer is 16-byte aligned
    bias, gate, res = gpu((N,), F32, 3), gpu((N,), F32, 4), gpu((M, N), wide, 5)
    s = scales.cpu().numpy()
    want = ref.gemm(
        *(t.float().cpu().numpy() for t in (a, w, bias, res, gate)),
        *((s[:1], s[4:5]) if a_dtype == E4M3 else (None, None)), N=N, epilogue=epilogue,
    )  # fmt: skip
    out = res.clone() if epilogue in (Epilogue.RESIDUAL, Epilogue.BIAS_RESIDUAL, Epilogue.GATE_RESIDUAL) else torch.zeros_like(res)
    machine("hopper").ops.gemm(
        a=p(a), w=p(w), bias=p(bias), res=p(out), gate=p(gate), out=p(out), a_scale=p(scales), w_scale=p(scales) + 16,
        out_scale=0, M=M, N=N, K=K, epilogue=int(epilogue), a_dtype=a_dtype, res_dtype=wide, out_dtype=wide,
    )  # fmt: skip
    got = out.float().cpu().numpy()
    bound = {F32: 1e-5, BF16: 1e-2, E4M3: 1e-2}[a_dtype] * np.abs(want).max()
    assert np.isfinite(got).all() and np.abs(got - want).max() <= bound
    assert np.linalg.norm(got - want) <= {F32: 1e-5, BF16: 4e-3, E4M3: 4e-3}[a_dtype] * np.linalg.norm(want)


def test_ops_are_captured_and_replayed() -> None:
    m, x = machine("hopper"), gpu((8, 64))
    out = torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    graph = m.ctx.graph("amax")
    graph.capture(0, lambda stream: m.ops.amax(x.data_ptr(), out.data_ptr(), 512, BF16, stream))
    m.sync()
    assert out.item() == 0.0, "nothing runs while it is captured"
    assert graph.replay(0) == 0 and graph.replay(1) == -2
    m.sync()
    assert out.item() == x.float().abs().max().item()
    assert graph.captured(0).nodes == 1 and graph.captured(0).launches[0][0] == "amax"


def test_a_failed_capture_leaves_the_context_usable() -> None:
    m, x = machine("hopper"), gpu((8, 64))
    out = torch.zeros(1, device="cuda")
    graph = m.ctx.graph("broken")

    def record(stream: int) -> None:
        m.ops.amax(x.data_ptr(), out.data_ptr(), 512, BF16, stream)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        graph.capture(0, record)
    assert not graph.has_variant(0) and m.ctx.recorder is None
    graph.capture(0, lambda stream: m.ops.amax(x.data_ptr(), out.data_ptr(), 512, BF16, stream))
    assert graph.replay(0) == 0
    m.sync()
