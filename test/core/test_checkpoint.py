"""Opening a folder, its digest and its manifest."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.checkpoints import TINY, random_tensors, write_checkpoint, write_manifest

from flashrt_core.core import content_digest
from flashrt_core.core.checkpoint import open_checkpoint
from flashrt_core.core.manifest import read_manifest
from flashrt_core.core.manifest import write_manifest as export_manifest
from flashrt_core.core.weight_source import FileSource, detect_prefix
from flashrt_core.errors import CheckpointError, CheckpointNotFound

WEIGHTS = "model.safetensors"


@pytest.mark.parametrize("layout", ["openpi", "lerobot"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_every_layout_gives_the_same_tensors(tmp_path, layout, shards, dtype):
    checkpoint = open_checkpoint(write_checkpoint(tmp_path, seed=3, layout=layout, sharded=shards, dtype=dtype))
    source = checkpoint.source()
    want = random_tensors(TINY, 3, dtype)
    assert set(source.keys()) == set(want) and len(checkpoint.files) == shards
    for key, value in want.items():
        assert torch.equal(source.get(key), value) and source.has(key)
        assert torch.equal(torch.from_numpy(source.numpy(key).copy()), value.float())


def test_tensors_do_not_depend_on_the_file_after_get(tmp_path):
    folder = write_checkpoint(tmp_path)
    source = open_checkpoint(folder).source()
    key = source.keys()[0]
    got = source.get(key)
    got.zero_()
    assert source.get(key).abs().sum() > 0


def test_a_weight_file_can_be_named_itself(tmp_path):
    folder = write_checkpoint(tmp_path)
    assert open_checkpoint(folder / WEIGHTS).dir == folder
    assert open_checkpoint(str(folder / WEIGHTS)).digest() == open_checkpoint(folder).digest()


def test_digest_depends_on_every_byte_and_on_nothing_else(tmp_path):
    folder = write_checkpoint(tmp_path / "a", sharded=True)
    digest = open_checkpoint(folder).digest()
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "README.md").write_text("x")
    assert open_checkpoint(tmp_path / "b").digest() == digest
    seen = {digest}
    for name, at in (("model-00001-of-00002.safetensors", -1), ("model-00002-of-00002.safetensors", -70_000)):
        shutil.copytree(folder, tmp_path / name)
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 1
        (tmp_path / name / name).write_bytes(data)
        seen.add(open_checkpoint(tmp_path / name).digest())
    assert len(seen) == 3  # upstream hashed the first 64 KiB and could not tell fine-tunes apart


def test_digest_is_computed_once_and_reports_progress(tmp_path):
    checkpoint = open_checkpoint(write_checkpoint(tmp_path, sharded=True))
    calls = []
    digest = checkpoint.digest(lambda done, total: calls.append((done, total)))
    total = sum(f.size for f in checkpoint.files.values())
    assert calls[-1] == (total, total) and [c[0] for c in calls] == sorted(c[0] for c in calls)
    for name in checkpoint.files:
        (checkpoint.dir / name).unlink()
    assert checkpoint.digest() == digest


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 2000, 4242])
def test_content_digest_is_that_of_the_blocks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(content_digest, "BLOCK", 1000)
    monkeypatch.setattr(content_digest, "_CHUNK", 64)
    data = random.Random(size).randbytes(size)
    (tmp_path / "f").write_bytes(data)
    blocks = [hashlib.sha256(data[at : at + 1000]).digest() for at in range(0, max(size, 1), 1000)]
    want = blocks[0] if len(blocks) == 1 else hashlib.sha256(b"".join(blocks)).digest()
    seen = []
    with ThreadPoolExecutor(3) as pool, open(tmp_path / "f", "rb") as file:
        assert content_digest.content_digest(pool, "f", file.fileno(), size, seen.append)() == want.hex()
        assert sum(seen) == size
        with pytest.raises(CheckpointError, match=f"f: .*its end at {size:,}"):
            content_digest.content_digest(pool, "f", file.fileno(), size + 1)()


def test_a_file_replaced_after_opening_is_noticed(tmp_path):
    folder = write_checkpoint(tmp_path)
    checkpoint = open_checkpoint(folder)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(CheckpointError, match="changed since"):
        checkpoint.digest()


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointNotFound, match="Nothing is downloaded"):
        open_checkpoint("lerobot/pi05_base")
    with pytest.raises(CheckpointNotFound, match="empty folder"):
        open_checkpoint(tmp_path)
    (tmp_path / "params").mkdir()
    with pytest.raises(CheckpointNotFound, match="Orbax"):
        open_checkpoint(tmp_path)


def test_single_file_and_index_together_are_ambiguous(tmp_path):
    folder = write_checkpoint(write_checkpoint(tmp_path, sharded=True))
    with pytest.raises(CheckpointError, match="both"):
        open_checkpoint(folder)
    assert len(open_checkpoint(folder / "model.safetensors.index.json").files) == 2


@pytest.mark.parametrize("what", ["absent shard", "absent key", "other shard", "unlisted key", "no map", "not strings"])
def test_index_that_disagrees_with_the_shards(tmp_path, what):
    folder = write_checkpoint(tmp_path, sharded=True)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    names, files = list(index["weight_map"]), sorted(set(index["weight_map"].values()))
    if what == "absent shard":
        (folder / files[1]).unlink()
    elif what == "absent key":
        index["weight_map"]["no.such.weight"] = files[0]
    elif what == "other shard":
        index["weight_map"][names[0]] = files[1]
    elif what == "unlisted key":
        del index["weight_map"][names[0]]
    elif what == "no map":
        del index["weight_map"]
    else:
        index["weight_map"][names[0]] = 3
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index|model-0000") as caught:
        open_checkpoint(folder)
    if what == "absent shard":
        assert isinstance(caught.value, CheckpointNotFound) and "index" in caught.value.thing


def test_hub_cache_layout_is_read_but_its_blobs_folder_must_be_real(tmp_path):
    real = write_checkpoint(tmp_path / "real")
    repo = tmp_path / "models--a--b"
    snapshot = repo / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    (real / WEIGHTS).rename(repo / "blobs" / "deadbeef")
    (snapshot / WEIGHTS).symlink_to("../../blobs/deadbeef")
    assert len(open_checkpoint(snapshot).files) == 1
    (repo / "blobs").rename(tmp_path / "elsewhere")
    (repo / "blobs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="symbolic link"):
        open_checkpoint(snapshot)


def test_manifest_round_trip(tmp_path):
    folder = write_checkpoint(tmp_path)
    assert open_checkpoint(folder).verify() == "no manifest"
    export_manifest(folder, model="pi05")
    ours = read_manifest(folder)
    write_manifest(folder)  # the test's own
    assert read_manifest(folder) == ours and WEIGHTS in ours and "assets/test/norm_stats.json" in ours
    assert open_checkpoint(folder).verify() == "verified"


def test_unlisted_weight_file_is_refused(tmp_path):
    folder = write_checkpoint(tmp_path)
    export_manifest(folder, ["flashrt_profile.json"])
    with pytest.raises(CheckpointError, match="not listed"):
        open_checkpoint(folder).verify()


def test_listed_file_that_is_gone_or_shorter(tmp_path):
    folder = write_checkpoint(tmp_path, manifest=True)
    profile = folder / "flashrt_profile.json"
    profile.write_text(profile.read_text()[:-5])
    with pytest.raises(CheckpointError, match="truncated"):
        open_checkpoint(folder).verify()
    profile.unlink()
    with pytest.raises(CheckpointNotFound, match="flashrt_profile"):
        open_checkpoint(folder).verify()


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"files": []}', '{"files": {}}', '{"files": {"a": 1}}', '{"files": {"a": {"sha256": "x", "bytes": 1}}}',
     '{"files": {"a": {"sha256": "' + "0" * 64 + '", "bytes": -1}}}', "{"],
)  # fmt: skip
def test_broken_manifest(tmp_path, content):
    folder = write_checkpoint(tmp_path)
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        open_checkpoint(folder)


# ---- prefix


def test_prefix_is_detected_only_when_all_known_keys_carry_it():
    bare, wrapped = "paligemma_with_expert.a", "model.paligemma_with_expert.a"
    assert detect_prefix([wrapped, "model.action_in_proj.weight"]) == "model."
    assert detect_prefix([wrapped, bare]) == ""
    assert detect_prefix([wrapped, "model.paligemma.model.x", "paligemma.model.y"]) == ""
    assert detect_prefix([bare, "model.action_in_proj.weight"]) == ""
    assert detect_prefix(["model.layers.0.weight"]) == ""
    assert detect_prefix([]) == ""


def test_strip_prefix_argument(tmp_path):
    checkpoint = open_checkpoint(write_checkpoint(tmp_path, layout="lerobot"))
    assert checkpoint.source().has("action_in_proj.weight")
    kept = checkpoint.source(strip_prefix="")
    assert kept.has("model.action_in_proj.weight") and not kept.has("action_in_proj.weight")


def test_stripping_must_not_join_two_tensors(tmp_path):
    from safetensors.torch import save_file

    from flashrt_core.core.safetensors_file import SafetensorsFile

    save_file({"model.a": torch.zeros(1), "a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="duplicates"):
        FileSource([SafetensorsFile(tmp_path / "x.safetensors")], strip_prefix="model.")
