"""torch sources, composites and transforms against the same arithmetic written out."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import write_checkpoint

from flashrt_core.errors import CheckpointError, DeviceError
from flashrt_core.executors.torch_weights import (
    Cat,
    DictSource,
    FlatCat,
    FusedGateUp,
    FusedQKV,
    InterleaveQK,
    MultiSafetensorsSource,
    Quant,
    SafetensorsSource,
    T,
    ToBf16,
    ToFp16,
    tT,
)
from flashrt_core.executors.weight_loader import LoaderContext


def context(**tensors) -> LoaderContext:
    return LoaderContext(DictSource(tensors), None)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rope_halves(x, cos, sin):  # [H, hd]: HF's rotate-half
    half = x.shape[-1] // 2
    rotated = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * torch.cat([cos, cos], -1) + rotated * torch.cat([sin, sin], -1)


def rope_pairs(x, cos, sin):  # adjacent pairs
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


def test_interleave_makes_pair_rope_equal_half_split_rope():
    heads, hd, width = 3, 8, 5
    wq, wk, x, y = randn(heads * hd, width), randn(hd, width, seed=1), randn(width, seed=2), randn(width, seed=3)
    angle = torch.rand(2, hd // 2, generator=torch.Generator().manual_seed(4)) * 6
    cos, sin = angle.cos(), angle.sin()
    q, k = (wq @ x).view(heads, hd), wk @ y
    want = rope_halves(q, cos[0], sin[0]) @ rope_halves(k, cos[1], sin[1])
    iq, ik = InterleaveQK(heads).apply(wq, None), InterleaveQK(1).apply(wk, None)
    got = rope_pairs((iq @ x).view(heads, hd), cos[0], sin[0]) @ rope_pairs(ik @ y, cos[1], sin[1])
    torch.testing.assert_close(got, want)
    assert not torch.equal(iq, wq) and torch.equal(iq[2], wq[1]) and torch.equal(iq[1], wq[hd // 2])
    with pytest.raises(CheckpointError, match="5 heads"):
        InterleaveQK(5).apply(wq, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_fused_qkv_and_gate_up_fold_the_norm_in_fp32(stored, dtype):
    q, k, v, w = (t.to(stored) for t in (randn(16, 12), randn(8, 12, seed=1), randn(8, 12, seed=2), randn(12, seed=3)))
    w[0] = -1 + 2**-9  # 1 + w in BF16 would lose this channel
    ctx = context(q=q, k=k, v=v, w=w)
    got = FusedQKV(q="q", k="k", v="v", norm_fuse="w", interleave_q_heads=2, interleave_k_heads=1, dtype=dtype).resolve(
        ctx
    )
    rows = [InterleaveQK(2).apply(q.double(), None), InterleaveQK(1).apply(k.double(), None), v.double()]
    want = torch.cat(rows) * (1 + w.double())
    tolerance = {torch.float32: 1e-7, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    assert got.dtype == dtype and got.shape == (32, 12)
    torch.testing.assert_close(got.double(), want, rtol=tolerance, atol=1e-7)
    got = FusedGateUp(gate="k", up="v", norm_fuse="w", dtype=dtype).resolve(ctx)
    torch.testing.assert_close(got.double(), torch.cat([k, v]).double() * (1 + w.double()), rtol=tolerance, atol=1e-7)


def test_composites_default_to_fp16_without_norm():
    q, k, v = randn(4, 4), randn(2, 4, seed=1), randn(2, 4, seed=2)
    ctx = context(q=q, k=k, v=v)
    assert torch.equal(FusedQKV(q="q", k="k", v="v").resolve(ctx), torch.cat([q, k, v]).half())
    assert torch.equal(FusedGateUp(gate="k", up="v").resolve(ctx), torch.cat([k, v]).half())
    assert torch.equal(Cat(["q", "k"]).resolve(ctx), torch.cat([q, k]).half())
    assert torch.equal(Cat(["k", "v"], dim=1, dtype=None).resolve(ctx), torch.cat([k, v], 1))
    FusedGateUp(gate="k", up="v", dtype=torch.float32).resolve(ctx).zero_()
    assert k.abs().sum() > 0  # the stored tensors are not views of the result


def test_quant_saturates_and_leaves_its_scale():
    ctx = context()
    x = randn(64, 64) * 3
    x[0, 0] = 1000.0
    codes = Quant().apply(x, ctx)
    scale = ctx.scratch["_pending_scale"]
    assert scale == float(torch.tensor(1000.0) / 448) and codes.dtype == torch.float8_e4m3fn and codes.is_contiguous()
    assert float(codes[0, 0]) == 448 and torch.isfinite(codes.float()).all()
    step = torch.maximum(x.abs() / scale * 2**-4, torch.tensor(2.0**-10)) * scale * 1.001
    assert ((codes.float() * scale - x).abs() <= step).all()
    Quant().apply(torch.zeros(2, 2), ctx)
    assert ctx.scratch["_pending_scale"] == pytest.approx(1e-12)
    Quant().apply(torch.empty(0, 2), ctx)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(CheckpointError, match="finite"):
            Quant().apply(torch.tensor([1.0, bad]), ctx)
    assert torch.isfinite(Quant().apply(torch.full((3,), 3e38), ctx).float()).all()


def test_simple_transforms():
    x = randn(3, 4)
    assert ToFp16().apply(x, None).dtype == torch.float16 and ToBf16().apply(x, None).dtype == torch.bfloat16
    for transform in (T(), tT()):
        y = transform.apply(x, None)
        assert torch.equal(y, x.T) and y.is_contiguous()


def test_flat_cat_of_fp8_and_of_nothing():
    parts = [randn(2, 3).to(torch.float8_e4m3fn), randn(4, seed=1).to(torch.float8_e4m3fn)]
    flat = FlatCat("x").join(parts)
    assert flat.dtype == torch.float8_e4m3fn and torch.equal(
        flat.float(), torch.cat([p.float().flatten() for p in parts])
    )
    assert FlatCat("x").join([]).numel() == 0


def test_sources(tmp_path):
    folder = write_checkpoint(tmp_path / "c", layout="lerobot", sharded=True)
    paths = sorted(folder.glob("model-*.safetensors"))
    want = {k: v for p in paths for k, v in load_file(p).items()}
    source = MultiSafetensorsSource(paths, device="cpu")
    assert len(source.keys()) == len(want) and source.has("action_in_proj.weight")
    assert torch.equal(source.get("action_in_proj.weight"), want["model.action_in_proj.weight"])
    one = SafetensorsSource(str(paths[0]), device="cpu", strip_prefix="")
    assert set(one.keys()) == set(load_file(paths[0]))
    with pytest.raises(CheckpointError, match="missing"):
        one.get("nothing")
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="duplicates"):
        MultiSafetensorsSource([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_default_device_is_cuda_and_says_so_when_there_is_none(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(DeviceError, match='device="cpu"'):
        SafetensorsSource(tmp_path / "a.safetensors")


def test_dict_source_names_the_nearest():
    with pytest.raises(CheckpointError, match=r"did you mean 'layer\.weight'"):
        context(**{"layer.weight": torch.zeros(1)}).source.get("layr.weight")
