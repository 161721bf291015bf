"""Rows F47 to F58 of the fault matrix: bad weight files get one typed error that names the thing."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from support.checkpoints import (
    EMBEDDING,
    EXPERT,
    LANGUAGE,
    TINY,
    tensor_shapes,
    write_checkpoint,
)

from flashrt_core.core.checkpoint import open_checkpoint
from flashrt_core.core.safetensors_file import SafetensorsFile
from flashrt_core.core.tokenizer import load_tokenizer
from flashrt_core.core.utils.norm_stats import load_norm_stats
from flashrt_core.errors import CheckpointError
from flashrt_core.executors.torch_weights import SafetensorsSource
from flashrt_core.executors.weight_loader import Item, ModelWeightSpec, check_complete
from flashrt_core.models.pi05.profile import check_dims, load_profile
from flashrt_core.models.pi05.tensors import expected_tensors

WEIGHTS = "model.safetensors"
Q_PROJ = LANGUAGE + "layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "ckpt")


def whole_spec() -> ModelWeightSpec:
    """Reads every tensor of the tiny model under its own name."""
    return ModelWeightSpec("torch", singletons=[Item(name, name) for name in tensor_shapes(TINY)])


def craft(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def entry(dtype="F32", shape=(2,), begin=0, end=8) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def refused(data: bytes, *words: str) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile.from_bytes(data, "model.safetensors")
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


# ---- F47


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 0.5, -1])
def test_F47_truncated_file(folder, keep):
    path = folder / WEIGHTS
    whole = path.read_bytes()
    size = int(len(whole) * keep) if isinstance(keep, float) else keep % len(whole)
    path.write_bytes(whole[:size])
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    text = str(caught.value)
    assert WEIGHTS in text and "truncated" in text and "expected" in text and "found" in text
    assert any(digit.isdigit() for digit in text)


# ---- F48


def test_F48_bit_flip_is_named_with_both_digests(tmp_path):
    folder = write_checkpoint(tmp_path, manifest=True)
    assert open_checkpoint(folder).verify() == "verified"
    path = folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1000] ^= 0x10
    path.write_bytes(data)
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.verify()
    listed = checkpoint.manifest[WEIGHTS].sha256
    assert WEIGHTS in str(caught.value) and "sha256" in str(caught.value)
    assert listed in str(caught.value.expected) and len(caught.value.found) == 64 and caught.value.found != listed
    answer = checkpoint.verify(allow_unverified=True)
    assert answer.startswith("unverified: ") and WEIGHTS in answer


def test_F48_damaged_statistics_are_found_too(tmp_path):
    folder = write_checkpoint(tmp_path, manifest=True)
    stats = folder / "assets" / "test" / "norm_stats.json"
    stats.write_text(stats.read_text().replace("0", "1", 1))
    with pytest.raises(CheckpointError, match=r"norm_stats\.json"):
        open_checkpoint(folder).verify()


# ---- F49, F50


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32, 2**63, 2**64 - 1])
def test_F49_header_length(length):
    error = refused(struct.pack("<Q", length) + b"{}" + b"\0" * 64, "header length")
    assert error.found == length


def test_F49_header_longer_than_the_file_is_not_allocated():
    refused(struct.pack("<Q", 1 << 23) + b"{}", "truncated")


def test_F50_header_over_16_mib():
    refused(craft(b"{}" + b" " * (16 << 20)), "header length", str(16 << 20))


def test_F50_more_than_65536_tensors():
    header = {f"t{i}": entry("U8", (0,), 0, 0) for i in range(65_537)}
    refused(craft(header), "65536")
    header.pop("t0")
    assert len(SafetensorsFile.from_bytes(craft(header))) == 65_536


def test_F50_a_header_of_brackets_is_refused_before_parsing():
    refused(craft(b'{"a":' + b"[" * (1 << 20) + b"]" * (1 << 20) + b"}"), "more brackets")
    refused(craft(b'{"a":' + b"[" * 60_000 + b"]" * 60_000 + b"}"), "nested")


def test_F50_rank_over_8():
    refused(craft({"a": entry("U8", [1] * 9, 0, 1)}, b"\0"), "shape", "8")
    assert SafetensorsFile.from_bytes(craft({"a": entry("U8", [1] * 8, 0, 1)}, b"\0")).numpy("a").shape == (1,) * 8


# ---- F51, F52, F53


@pytest.mark.parametrize(
    ("second", "word"),
    [
        (entry(begin=4, end=12), "overlap"),
        (entry(begin=0, end=8), "overlap"),
        (entry(begin=12, end=20), "hole"),
        (entry(begin=-8, end=0), "data_offsets"),
        (entry(begin=16, end=8), "data_offsets"),
        (entry(begin=8, end=2**63), "data_offsets"),
        (entry(shape=(2**20,), begin=8, end=8 + 2**22), "past its end"),
    ],
    ids=["overlap", "same-bytes", "hole", "negative", "reversed", "overflow", "past-end"],
)
def test_F51_offsets(second, word):
    refused(craft({"a": entry(), "b": second}, b"\0" * 16), word)


@pytest.mark.parametrize(
    "offsets", [None, 8, [], [0], [0, 4, 8], [0.0, 8.0], [False, 8], ["0", "8"], [-8, 0], [0, 2**64]]
)
def test_F51_offsets_are_two_sizes(offsets):
    refused(craft({"a": {**entry(), "data_offsets": offsets}}, b"\0" * 8), "a: data_offsets", "two integers")


def test_F51_bytes_that_no_tensor_owns():
    refused(craft({"a": entry()}, b"\0" * 12), "after the last tensor")


@pytest.mark.parametrize("dtype", ["F4", "f32", "float32", "", None, 7, ["F32"]])
def test_F52_unknown_dtype(dtype):
    refused(craft({"weight.x": entry(dtype)}, b"\0" * 8), "weight.x", "dtype", "F32")


def test_F52_dtype_that_contradicts_the_bytes():
    refused(craft({"weight.x": entry("F64")}, b"\0" * 8), "weight.x", "16 bytes")


def test_F52_integer_weights_are_refused_by_the_model(tmp_path):
    wrong = torch.zeros(tensor_shapes(TINY)[Q_PROJ], dtype=torch.int32)
    source = open_checkpoint(write_checkpoint(tmp_path, tensors={Q_PROJ: wrong})).source()
    with pytest.raises(CheckpointError) as caught:
        check_complete(source, whole_spec())
    assert Q_PROJ in caught.value.thing and "F32" in caught.value.expected and caught.value.found == "I32"


def test_F53_shape_that_contradicts_the_bytes():
    refused(craft({"weight.x": entry(shape=(3,))}, b"\0" * 8), "weight.x", "[3]")


@pytest.mark.parametrize("shape", [[0, 2**62], [2**40, 2**40, 0], [2**62, 2**62]])
def test_F53_shape_that_no_array_can_have(shape):
    refused(craft({"weight.x": entry(shape=shape, end=0)}), "weight.x", "shape")


@pytest.mark.parametrize("by", ["dims", "spec"])
def test_F53_wrong_shape_is_named_with_both_shapes(tmp_path, by):
    shape = tensor_shapes(TINY)[Q_PROJ]
    folder = write_checkpoint(tmp_path, tensors={Q_PROJ: torch.zeros(shape[0] + 8, shape[1])})
    source = open_checkpoint(folder).source()
    with pytest.raises(CheckpointError) as caught:
        if by == "dims":
            check_dims(load_profile(folder), source)
        else:
            check_complete(source, whole_spec(), shapes=expected_tensors(TINY))
    assert Q_PROJ in caught.value.thing
    assert str(list(shape)) in str(caught.value.expected) and caught.value.found == [shape[0] + 8, shape[1]]


# ---- F54, F55


def test_F54_missing_key_names_the_nearest(tmp_path):
    misnamed = Q_PROJ.replace("q_proj", "query_proj")
    value = torch.zeros(tensor_shapes(TINY)[Q_PROJ])
    source = open_checkpoint(write_checkpoint(tmp_path, tensors={Q_PROJ: None, misnamed: value})).source()
    with pytest.raises(CheckpointError) as caught:
        check_complete(source, whole_spec())
    assert Q_PROJ in caught.value.thing and "did you mean" in caught.value.hint


def test_F54_many_missing_keys_list_ten(tmp_path):
    gone = [name for name in tensor_shapes(TINY) if name.startswith(EXPERT)]
    source = open_checkpoint(write_checkpoint(tmp_path, tensors=dict.fromkeys(gone))).source()
    with pytest.raises(CheckpointError) as caught:
        check_complete(source, whole_spec())
    text = str(caught.value)
    assert f"{len(gone)} tensors" in text and sum(name in text for name in gone) == 10 and "more" in text


def test_F54_extra_key_is_named_unless_ignored(tmp_path):
    source = open_checkpoint(write_checkpoint(tmp_path, tensors={"state_proj.weight": torch.zeros(2, 2)})).source()
    with pytest.raises(CheckpointError, match=r"extra: state_proj\.weight"):
        check_complete(source, whole_spec())
    check_complete(source, whole_spec(), ignore=["state_proj.*"])


def test_F54_more_layers_than_the_profile_counts(tmp_path):
    extra = LANGUAGE + "layers.2.self_attn.q_proj.weight"
    folder = write_checkpoint(tmp_path, tensors={extra: torch.zeros(tensor_shapes(TINY)[Q_PROJ])})
    with pytest.raises(CheckpointError, match="more layers"):
        check_dims(load_profile(folder), open_checkpoint(folder).source())


def test_F55_duplicate_key_in_one_header():
    one = json.dumps(entry())
    refused(craft(f'{{"a": {one}, "a": {one}}}'.encode(), b"\0" * 8), "duplicate", "'a'")
    refused(
        craft(b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', b"\0" * 8), "duplicate"
    )


def test_F55_duplicate_key_across_shards(tmp_path):
    folder = write_checkpoint(tmp_path, sharded=True)
    first, second = sorted(folder.glob("model-*.safetensors"))
    file = SafetensorsFile(first)
    key = file.keys()[0]
    from safetensors.torch import load_file, save_file

    save_file({**load_file(second), key: file.torch(key).clone()}, second)
    with pytest.raises(CheckpointError, match="duplicate") as caught:
        open_checkpoint(folder)
    assert key in str(caught.value) and first.name in str(caught.value) and second.name in str(caught.value)


# ---- F56


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/../../outside.safetensors", "..", "", "a\0b"]
)
def test_F56_shard_path_outside(tmp_path, name):
    write_checkpoint(tmp_path / "outside")
    (tmp_path / "outside" / WEIGHTS).rename(tmp_path / "outside.safetensors")
    folder = write_checkpoint(tmp_path / "ckpt", sharded=True)
    index = folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = dict.fromkeys(content["weight_map"], name)
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"inside the checkpoint folder|relative path"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "victim", [WEIGHTS, "flashrt_profile.json", "assets/test/norm_stats.json", "paligemma_tokenizer.model"]
)
def test_F56_symlink_out(tmp_path, victim):
    folder = write_checkpoint(tmp_path / "ckpt")
    outside = tmp_path / "outside"
    (folder / victim).rename(outside)
    (folder / victim).symlink_to(outside)
    with pytest.raises(CheckpointError, match="symbolic link"):
        open_checkpoint(folder)
        profile = load_profile(folder)
        load_norm_stats(folder, profile)
        load_tokenizer(folder, expected_vocab=TINY.vocab_size)


def test_F56_manifest_path_outside(tmp_path):
    folder = write_checkpoint(tmp_path / "ckpt")
    files = {"../secret": {"sha256": "0" * 64, "bytes": 1}}
    (folder / "manifest.json").write_text(json.dumps({"files": files}))
    with pytest.raises(CheckpointError, match="inside the checkpoint folder"):
        open_checkpoint(folder)


# ---- F57


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.ckpt", "model.pkl", "pytorch_model.bin"])
def test_F57_pickle_by_name_or_content(tmp_path, name, protocol):
    bomb = tmp_path / "exploded"
    folder = tmp_path / "ckpt"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Bomb(bomb), protocol=protocol) + b"\0" * 64)
    for target in (folder, folder / name):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(target)
        assert name in str(caught.value) and "save_file" in caught.value.hint
    with pytest.raises(CheckpointError):
        SafetensorsSource(folder / name, device="cpu")
    assert not bomb.exists()


def test_F57_torch_zip_archive_under_a_safetensors_name(tmp_path):
    with zipfile.ZipFile(tmp_path / WEIGHTS, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match="zip archive"):
        open_checkpoint(tmp_path)


def test_F57_a_header_of_640_bytes_is_not_mistaken_for_a_pickle():
    raw = json.dumps({"a": entry()}).encode().ljust(640)  # its length starts with the bytes 80 02
    data = struct.pack("<Q", 640) + raw + np.array([1, 2], np.float32).tobytes()
    assert data[:2] == b"\x80\x02"
    assert SafetensorsFile.from_bytes(data).numpy("a").tolist() == [1, 2]


# ---- F58


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_F58_non_finite_weights(tmp_path, dtype, bad):
    value = torch.zeros(tensor_shapes(TINY)[Q_PROJ])
    value[3, 5] = bad
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    checkpoint = open_checkpoint(write_checkpoint(tmp_path, dtype=dtype, tensors={Q_PROJ: value.to(kind)}))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.check_finite()
    assert Q_PROJ in caught.value.thing and "(3, 5)" in caught.value.found


def test_F58_finite_weights_pass(folder):
    open_checkpoint(folder).check_finite()


def test_embedding_missing_under_both_names(tmp_path):
    folder = write_checkpoint(tmp_path, tensors={EMBEDDING: None})
    with pytest.raises(CheckpointError, match="neither"):
        check_dims(load_profile(folder), open_checkpoint(folder).source())
