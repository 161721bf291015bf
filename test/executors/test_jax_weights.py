"""The NumPy side: transforms, FP8 codes equal to torch's, sinks into a fake device."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flashrt_core.errors import CheckpointError
from flashrt_core.executors.jax_weights import (
    Astype,
    Contiguous,
    CudaBufferAttr,
    CudaBufferFlat,
    JaxQuant,
    NumpyAttr,
    NumpyList,
    OrbaxDictSource,
    Transpose,
)
from flashrt_core.executors.torch_weights import Quant
from flashrt_core.executors.weight_loader import Item, LayerBlock, LoaderContext, ModelWeightSpec, WeightLoader


class HostMemory:
    """A CudaRuntime whose device is the host."""

    def __init__(self):
        self.blocks = {}

    def malloc(self, nbytes, managed):
        block = np.zeros(nbytes, np.uint8)
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, ptr):
        del self.blocks[ptr]

    def memcpy(self, dst, src, nbytes, kind):
        ctypes.memmove(dst, src, nbytes)

    def memset(self, ptr, value, nbytes):
        ctypes.memset(ptr, value, nbytes)

    def synchronize(self):
        pass


def engine_weights(layers=3):
    rng = np.random.default_rng(0)
    out = {f"layer.{i}.w": rng.normal(size=(4, 6)).astype(np.float32) for i in range(layers)}
    return out | {"embed": rng.normal(size=(5, 4)).astype(np.float32)}


def test_a_spec_from_dict_to_device():
    weights, memory, target = engine_weights(), HostMemory(), SimpleNamespace()
    spec = ModelWeightSpec(
        "jax",
        singletons=[
            Item("embed", "embed", [Astype(np.float16)], NumpyAttr("embed")),
            Item("embed_dev", "embed", [], CudaBufferAttr("embed_dev", cache="embed.0", runtime=memory)),
        ],
        blocks=[
            LayerBlock(
                "layer.{i}",
                3,
                [
                    Item("w", "{prefix}.w", [Transpose(), Contiguous()], NumpyList("w")),
                    Item("w8", "{prefix}.w", [JaxQuant()], CudaBufferFlat("w8", runtime=memory), scale_into="scales"),
                ],
            )
        ],
    )
    WeightLoader(OrbaxDictSource(weights), target=target, spec=spec).run()
    assert target.embed.dtype == np.float16
    assert all(
        np.array_equal(target.w[i], weights[f"layer.{i}.w"].T) and target.w[i].flags.c_contiguous for i in range(3)
    )
    assert np.array_equal(target.embed_dev.download_new((5, 4), np.float32), weights["embed"])
    assert target._cache_blobs["embed.0"] == weights["embed"].tobytes()
    flat = target.w8.download_new(3 * 24, np.uint8)
    assert target._cache_blobs["w8"] == flat.tobytes() and len(target.scales) == 3
    ctx = LoaderContext(None, None)
    want = [Quant().apply(torch.from_numpy(weights[f"layer.{i}.w"]), ctx).view(torch.uint8).numpy() for i in range(3)]
    assert np.array_equal(flat, np.concatenate([w.reshape(-1) for w in want]))


def test_quant_is_bit_equal_to_torch():
    rng = np.random.default_rng(1)
    every_half = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    every_half = every_half[np.isfinite(every_half)]
    cases = [rng.normal(size=(50, 70)) * s for s in (1e-30, 1e-3, 1, 500, 1e30)]
    cases += [
        np.zeros((3, 3)),
        np.full(4, 448.0),
        every_half,
        every_half * 448 / np.abs(every_half).max(),
        np.empty((0, 2)),
    ]
    for case in cases:
        x = case.astype(np.float32)
        ours, theirs = LoaderContext(None, None), LoaderContext(None, None)
        codes = JaxQuant().apply(x, ours)
        want = Quant().apply(torch.from_numpy(x), theirs).view(torch.uint8).numpy()
        assert ours.scratch == theirs.scratch and codes.dtype == np.uint8
        np.testing.assert_array_equal(codes, want)
    with pytest.raises(CheckpointError, match="finite"):
        JaxQuant().apply(np.array([1, np.nan]), LoaderContext(None, None))


def test_missing_array_and_second_store():
    source = OrbaxDictSource(engine_weights())
    with pytest.raises(CheckpointError, match="did you mean 'embed'"):
        source.get("embd")
    assert source.has("embed") and not source.has("embd")
    sink = NumpyAttr("x")
    sink.begin(SimpleNamespace())
    sink.store(np.zeros(1))
    with pytest.raises(RuntimeError):
        sink.store(np.zeros(1))
