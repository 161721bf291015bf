"""Our reader against the `safetensors` package: every dtype, alignment and form of access."""

from __future__ import annotations

import gc
import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from flashrt_core.core.safetensors_file import SafetensorsFile, check_finite
from flashrt_core.core.strict_json import read_json
from flashrt_core.errors import CheckpointError, CheckpointNotFound

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def every_dtype() -> dict[str, torch.Tensor]:
    gen = torch.Generator().manual_seed(0)
    out = {}
    for name, dtype in DTYPES.items():
        value = torch.randn(3, 5, 7, generator=gen) * 50
        out[f"t.{name}"] = (value > 0) if dtype == torch.bool else value.to(dtype)
    out["scalar"] = torch.tensor(1.5)
    out["empty"] = torch.empty(0, 4)
    return out


@pytest.fixture
def path(tmp_path):
    save_file(every_dtype(), tmp_path / "a.safetensors", metadata={"format": "pt"})
    return tmp_path / "a.safetensors"


def test_equals_the_safetensors_package(path):
    ours, theirs = SafetensorsFile(path), load_file(path)
    assert set(ours.keys()) == set(theirs) and ours.metadata == {"format": "pt"}
    for key, want in theirs.items():
        got = ours.torch(key)
        assert got.dtype == want.dtype and got.shape == want.shape
        raw = [t.reshape(-1).view(torch.uint8).tolist() for t in (got, want)]
        assert raw[0] == raw[1], key
        info = ours.info(key)
        assert info.shape == tuple(want.shape) and info.numel == want.numel()
        assert DTYPES.get(key.removeprefix("t."), torch.float32) == want.dtype and bytes(ours.raw(key)) == bytes(raw[1])


def test_numpy_widens_exactly_and_is_read_only(path):
    ours, theirs = SafetensorsFile(path), load_file(path)
    for key, want in theirs.items():
        got = ours.numpy(key)
        wide = want.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
        want = want.float() if wide else want
        assert np.array_equal(got, want.numpy()) and got.dtype == want.numpy().dtype, key
        assert wide or not got.flags.writeable


def test_all_fp8_and_all_bf16_codes_are_widened_like_torch(tmp_path):
    codes = torch.arange(256, dtype=torch.uint8)
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    tensors = {"e4m3": codes.view(torch.float8_e4m3fn), "e5m2": codes.clone().view(torch.float8_e5m2), "bf16": halves}
    save_file(tensors, tmp_path / "c.safetensors")
    file = SafetensorsFile(tmp_path / "c.safetensors")
    for key, value in tensors.items():
        np.testing.assert_array_equal(file.numpy(key), value.float().numpy(), strict=True)  # NaN equals NaN here


def test_unaligned_tensors_are_copied_not_misread():
    values = np.arange(4, dtype=np.float64)
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F64", "shape": [4], "data_offsets": [3, 35]},
    }
    raw = json.dumps(header).encode()
    file = SafetensorsFile.from_bytes(struct.pack("<Q", len(raw)) + raw + b"\1\2\3" + values.tobytes())
    assert np.array_equal(file.numpy("b"), values) and file.numpy("b").flags.aligned
    assert torch.equal(file.torch("b"), torch.from_numpy(values))


def test_writing_to_a_tensor_does_not_touch_the_file(path):
    before = path.read_bytes()
    SafetensorsFile(path).torch("t.F32").zero_()
    assert path.read_bytes() == before


def test_nothing_is_read_but_the_header(tmp_path):
    path = tmp_path / "sparse.safetensors"
    size = 1 << 34  # 16 GiB that are not on the disk
    raw = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + size)
    opened = SafetensorsFile(path)
    assert opened.numpy("a")[-1] == 0 and opened.info("a").nbytes == size


def test_tensors_outlive_the_file_object(path):
    file = SafetensorsFile(path)
    tensor = file.torch("t.F32")
    del file
    gc.collect()
    assert torch.equal(tensor, load_file(path)["t.F32"])


def test_bool_bytes_other_than_0_and_1_are_refused():
    raw = json.dumps({"a": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}).encode()
    file = SafetensorsFile.from_bytes(struct.pack("<Q", len(raw)) + raw + b"\1\2")
    for read in (file.numpy, file.torch):
        with pytest.raises(CheckpointError, match="BOOL"):
            read("a")


def test_unknown_key_names_the_nearest(path):
    with pytest.raises(CheckpointError, match="did you mean 'scalar'"):
        SafetensorsFile(path).info("scaler")


def test_not_a_file(tmp_path):
    with pytest.raises(CheckpointNotFound, match=r"none\.safetensors"):
        SafetensorsFile(tmp_path / "none.safetensors")
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    with pytest.raises(CheckpointError, match="readable"):
        SafetensorsFile(tmp_path / "loop.safetensors")
    with pytest.raises(CheckpointError, match="readable"):
        read_json(tmp_path / "loop.safetensors", max_bytes=10)
    os.mkfifo(tmp_path / "fifo.safetensors")
    for path in (tmp_path, tmp_path / "fifo.safetensors"):
        with pytest.raises(CheckpointError, match="regular file"):
            SafetensorsFile(path)
    with pytest.raises(CheckpointError, match="regular file"):
        read_json(tmp_path / "fifo.safetensors", max_bytes=10)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 513, "\ud800"])
def test_tensor_names_are_printable(name):
    raw = json.dumps({name: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
    with pytest.raises(CheckpointError, match="printable"):
        SafetensorsFile.from_bytes(struct.pack("<Q", len(raw)) + raw)


@pytest.mark.parametrize(
    "header", [b"[]", b" {}", b"{", b'{"a": 1}', b'{"a": {}}', b'{"__metadata__": {"a": 1}}', b'{"a":\xff}']
)
def test_headers_that_are_not_tables(header):
    with pytest.raises(CheckpointError, match="f: "):
        SafetensorsFile.from_bytes(struct.pack("<Q", len(header)) + header, "f")


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_check_finite_finds_one_bad_value_in_many(tmp_path, dtype):
    value = torch.ones(3, 700_001, dtype=torch.float32).to(DTYPES[dtype])
    save_file({"ok": torch.ones(2), "w": value}, tmp_path / "f.safetensors")
    check_finite(SafetensorsFile(tmp_path / "f.safetensors"))
    value[2, 5] = float("nan")
    save_file({"ok": torch.ones(2), "w": value}, tmp_path / "f.safetensors")
    file = SafetensorsFile(tmp_path / "f.safetensors")
    with pytest.raises(CheckpointError, match=r"w: .*\(2, 5\)"):
        check_finite(file)
    check_finite(file, ["ok"])
