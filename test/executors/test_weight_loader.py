"""The loader: order, layers, scales, sinks, idempotence, and what it refuses before storing anything."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from flashrt_core.errors import CheckpointError, ConfigError
from flashrt_core.executors.torch_weights import (
    Attr,
    Cat,
    DictSource,
    FlatCat,
    FusedGateUp,
    FusedQKV,
    Mul,
    Quant,
    T,
    TensorList,
    ToFp32,
)
from flashrt_core.executors.weight_loader import (
    BufferSpec,
    Item,
    LayerBlock,
    LoaderContext,
    ModelWeightSpec,
    WeightLoader,
    check_complete,
)


def source(layers=3) -> DictSource:
    gen = torch.Generator().manual_seed(0)
    tensors = {"embed": torch.randn(5, 4, generator=gen), "scale": torch.randn(4, generator=gen)}
    for i in range(layers):
        for name in ("q", "k", "v", "o"):
            tensors[f"blk.{i}.{name}"] = torch.randn(4, 4, generator=gen)
    return DictSource(tensors)


def spec(layers=3) -> ModelWeightSpec:
    return ModelWeightSpec(
        "torch",
        singletons=[Item("embed", "embed", [ToFp32()], Attr("embed"))],
        blocks=[
            LayerBlock(
                "blk.{i}",
                layers,
                [
                    Item(
                        "qkv", Cat(["{prefix}.q", "{prefix}.k", "{prefix}.v"]), [ToFp32(), Quant()], FlatCat("qkv"), "s"
                    ),
                    Item("o", "blk.{i}.o", [T(), Mul(2.0)], TensorList("o")),
                    Item("o8", "{prefix}.o", [Quant()], TensorList("o8"), scale_into="s"),
                ],
            )
        ],
        buffers=[BufferSpec("x", ("S", 4), "fp16")],
        dims={"S": 7},
    )


def test_layers_transforms_and_scales_in_order():
    src, target = source(), SimpleNamespace()
    ctx = WeightLoader(src, target=target, spec=spec()).run()
    assert torch.equal(target.embed, src.get("embed"))
    assert len(target.o) == 3
    for i in range(3):
        assert torch.equal(target.o[i], src.get(f"blk.{i}.o").T * 2)
    assert target.qkv.shape == (3 * 12 * 4,) and target.qkv.dtype == torch.float8_e4m3fn
    want = []
    for i in range(3):
        fused = torch.cat([src.get(f"blk.{i}.{n}") for n in "qkv"]).half().float()
        want += [float(fused.abs().max() / 448), float(src.get(f"blk.{i}.o").abs().max() / 448)]
    assert target.s == want and ctx.scales == {"s": want}


def test_second_run_gives_the_same_and_fresh_lists():
    target, loader_spec = SimpleNamespace(), spec()
    loader = WeightLoader(source(), target=target, spec=loader_spec)
    loader.run()
    first_o, first_s, first_q = target.o, target.s, target.qkv
    loader.run()
    assert len(target.o) == 3 and target.s == first_s and target.o is not first_o and len(first_o) == 3
    assert torch.equal(target.qkv.view(torch.uint8), first_q.view(torch.uint8))


def test_a_scale_does_not_leak_into_the_next_item():
    two = ModelWeightSpec(
        "torch",
        singletons=[
            Item("a", "embed", [Quant()], Attr("a")),  # its scale is discarded
            Item("b", "embed", [], Attr("b"), scale_into="s"),  # leaves no scale
            Item("c", "embed", [Quant()], Attr("c"), scale_into="s"),
        ],
    )
    target = SimpleNamespace()
    WeightLoader(source(), target=target, spec=two).run()
    assert len(target.s) == 1


def test_shared_sink_is_finalised_once_and_attr_takes_one_tensor():
    sink = FlatCat("both")
    both = ModelWeightSpec("torch", singletons=[Item("a", "embed", [], sink), Item("b", "scale", [], sink)])
    target = SimpleNamespace()
    WeightLoader(source(), target=target, spec=both).run()
    assert target.both.shape == (24,)
    once = Attr("x")
    twice = ModelWeightSpec("torch", singletons=[Item("a", "embed", [], once), Item("b", "scale", [], once)])
    with pytest.raises(RuntimeError, match="one tensor per run"):
        WeightLoader(source(), target=SimpleNamespace(), spec=twice).run()


def test_wrong_types():
    with pytest.raises(TypeError, match="get"):
        WeightLoader({"a": 1}.items(), target=None, spec=spec())
    with pytest.raises(TypeError, match="ModelWeightSpec"):
        WeightLoader(source(), target=None, spec={})
    for item in (Item("x", 3, [], Attr("x")), Item("x", "embed")):
        with pytest.raises(TypeError, match="x: "):
            WeightLoader(source(), target=SimpleNamespace(), spec=ModelWeightSpec("torch", singletons=[item])).run()


def test_missing_tensors_are_named_before_anything_is_stored():
    target = SimpleNamespace()
    with pytest.raises(CheckpointError, match=r"8 tensors.*blk\.3\.q.*blk\.4") as caught:
        WeightLoader(source(3), target=target, spec=spec(5)).run()
    assert "did you mean" in caught.value.hint and vars(target) == {}


def test_declared_shapes_are_checked_for_items_and_composites():
    wrong = ModelWeightSpec("torch", singletons=[Item("embed", "embed", [], Attr("e"), shape=(4, 5))])
    with pytest.raises(CheckpointError, match=r"embed: shape: expected \[4, 5\], found \[5, 4\]"):
        WeightLoader(source(), target=SimpleNamespace(), spec=wrong).run()
    key = FusedQKV(q="{prefix}.q", k="{prefix}.k", v="{prefix}.v", norm_fuse="scale")
    shapes = {"{prefix}.q": (4, 4), "{prefix}.v": (4, 8)}
    block = LayerBlock("blk.{i}", 3, [Item("qkv", key, [], TensorList("q"), shape=shapes)])
    with pytest.raises(CheckpointError, match=r"blk\.0\.v: shape"):
        check_complete(source(), ModelWeightSpec("torch", [block]), ignore=["*"])


def test_check_complete_reports_extra_names_and_accepts_a_full_match():
    full = spec()
    with pytest.raises(CheckpointError, match="extra: scale"):
        check_complete(source(), full)
    check_complete(source(), full, ignore=["sc*"])
    with pytest.raises(CheckpointError, match=r"12 tensors.*extra: blk\.3\.q") as caught:
        check_complete(source(6), full, ignore=["scale"])
    assert "and 2 more" in str(caught.value)


def test_templates_and_buffers():
    ctx = LoaderContext(source(), None, prefix="blk.2", layer_idx=2)
    assert ctx.subkey("{prefix}.q.{i}") == "blk.2.q.2" and ctx.subkey("plain") == "plain"
    for bad in ("{nope}", "{0}", "{"):
        with pytest.raises(CheckpointError, match="template"):
            ctx.subkey(bad)
    assert spec().buffers[0].resolved_shape(spec().dims) == (7, 4)
    with pytest.raises(ConfigError, match="buffer x"):
        BufferSpec("x", ("T",), "fp16").resolved_shape({"S": 7})


def test_composites_name_all_their_keys():
    assert FusedQKV(q="a", k="b", v="c").source_keys() == ["a", "b", "c"]
    assert FusedGateUp(gate="a", up="b", norm_fuse="n").source_keys() == ["a", "b", "n"]


@pytest.mark.parametrize("module", ["weight_loader", "jax_weights"])
def test_neither_torch_nor_jax_is_imported(module):
    code = f"import sys, flashrt_core.executors.{module}; print([m for m in ('torch', 'jax') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
