"""`inspect_checkpoint`: what it reports, that it never raises for a bad checkpoint, that it holds no weights."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import torch
from support.checkpoints import EMBEDDING, TINY, tensor_shapes, write_checkpoint

from flashrt_core.core.checkpoint import open_checkpoint
from flashrt_core.inspect import inspect_checkpoint

PARAMETERS = sum(int(np.prod(shape)) for shape in tensor_shapes(TINY).values())


@pytest.mark.parametrize(("layout", "prefix"), [("openpi", ""), ("lerobot", "model.")])
def test_report(tmp_path, layout, prefix):
    folder = write_checkpoint(tmp_path, layout=layout, dtype="bf16", sharded=True, manifest=True)
    report = inspect_checkpoint(folder)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["problems"] == []
    weights = report["weights"]
    assert weights["prefix"] == prefix and weights["sharded"] and len(weights["files"]) == 2
    assert weights["parameters"] == PARAMETERS
    assert weights["dtypes"] == {"BF16": {"tensors": len(tensor_shapes(TINY)), "parameters": PARAMETERS}}
    assert weights["bytes"] == sum(p.stat().st_size for p in folder.glob("model-*.safetensors"))
    assert report["digest"] == open_checkpoint(folder).digest() and report["manifest"] == "verified"
    decisions = report["profile"]["decisions"]
    assert decisions["state_in_prompt"] == {"value": True, "source": "flashrt_profile.json"}
    assert decisions["action_horizon"]["value"] == TINY.horizon
    assert report["profile"]["dims"]["vision"]["width"] == TINY.vision.width
    assert report["tensors"] == {"embedding": EMBEDDING, "agree_with_dims": True}
    assert len(report["norm_stats"]["state"]["q01"]) == 8 and report["tokenizer"]["pieces"] == 400


def test_problems_are_listed_not_raised(tmp_path):
    folder = write_checkpoint(
        tmp_path,
        tokenizer=False,
        norm_stats=False,
        tensors={"action_in_proj.bias": None, "extra.weight": torch.zeros(1)},
    )
    report = inspect_checkpoint(folder)
    text = "\n".join(report["problems"])
    assert [line.split(":")[0] for line in report["problems"]] == ["tensors", "norm_stats", "tokenizer"]
    assert "action_in_proj.bias" in text and "extra.weight" in text and report["tokenizer"] is None
    assert inspect_checkpoint(folder, "pi05_libero")["problems"][0].startswith("tensors: ")
    (folder / "model.safetensors").write_bytes(b"\x80\x04")
    (folder / "flashrt_profile.json").write_text("{")
    report = inspect_checkpoint(folder)
    assert [line.split(":")[0] for line in report["problems"]] == ["weights", "profile"]
    assert len(inspect_checkpoint(tmp_path / "absent")["problems"]) == 2


def test_digest_can_be_skipped_and_reports_progress(tmp_path):
    folder = write_checkpoint(tmp_path)
    assert "digest" not in inspect_checkpoint(folder, digest=False)
    seen = []
    inspect_checkpoint(folder, progress=lambda done, total: seen.append(done / total))
    assert seen[-1] == 1.0


def test_weights_are_not_held_in_memory(tmp_path):
    big = torch.zeros(2048, 2048)  # 16 MiB, of a wrong shape on purpose
    folder = write_checkpoint(tmp_path, tensors={"time_mlp_in.weight": big})
    inspect_checkpoint(write_checkpoint(tmp_path / "warm"))
    tracemalloc.start()
    report = inspect_checkpoint(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "time_mlp_in.weight" in report["problems"][0] and peak < 4 << 20
