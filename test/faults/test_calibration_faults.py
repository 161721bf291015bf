"""Faults of calibration: F43 saturation, F60 foreign or damaged cache, F63 full disk, F89 planted links."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import random
import resource
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from flashrt_core.core.quant.calibrator import check_saturation, load_calibration, save_calibration
from flashrt_core.errors import ConfigError

DIGEST = "c" * 64
SITES = {"vision.0.qkv": 0.25, "encoder.3.down": 0.5}


def save(folder: Path, **kwargs) -> Path | None:
    return save_calibration("ckpt", 10, activation_scales=SITES, digest=DIGEST, cache_dir=folder, **kwargs)


def load(folder: Path, **kwargs) -> dict | None:
    return load_calibration("ckpt", 10, digest=DIGEST, cache_dir=folder, **kwargs)


def seal(body: dict) -> str:
    """A file whose checksum is right, so that only the rule under test can refuse it."""
    body = {k: v for k, v in body.items() if k != "sha256"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return json.dumps({**body, "sha256": hashlib.sha256(canonical.encode()).hexdigest()})


# --- F43 ------------------------------------------------------------


def test_F43_saturation_above_one_percent_names_the_site():
    check_saturation({"vision.0.qkv": 0.0, "encoder.3.down": 0.01})
    with pytest.raises(ConfigError, match=r"encoder\.3\.down.*1\.00%.*2\.00%") as caught:
        check_saturation({"vision.0.qkv": 0.011, "encoder.3.down": 0.02})
    assert "2 sites" in str(caught.value)
    with pytest.raises(ConfigError, match="a: expected a number"):
        check_saturation({"a": float("nan")})


# --- F60 ------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ckpt_hash", "d" * 64),
        ("Se", 11),
        ("Se", 10.0),
        ("hardware", "hopper"),
        ("shape", "views=3"),
        ("plan", "fp8"),
        ("flashrt_version", "0.0.1"),
        ("version", 1),
        ("version", None),
        ("activation_scales", {"vision.0.qkv": 0.0}),
        ("activation_scales", {"vision.0.qkv": -0.25}),
        ("activation_scales", {"vision.0.qkv": 1e39}),
        ("activation_scales", {"vision.0.qkv": True}),
        ("activation_scales", {"vision.0.qkv": "0.25"}),
        ("activation_scales", {"vision.0.qkv": None}),
        ("activation_scales", [0.25]),
        ("enc_scales", [1.0, [0.0]]),
        ("enc_scales", 1.0),
    ],
)
def test_F60_a_file_of_something_else_is_never_used(tmp_path, caplog, field, value):
    path = save(tmp_path)
    body = json.loads(path.read_text())
    path.write_text(seal(body))
    assert load(tmp_path) is not None  # the seal itself is accepted
    path.write_text(seal({**body, field: value}))
    assert load(tmp_path) is None
    assert len(caplog.records) == 1 and caplog.records[0].levelno == logging.WARNING
    assert field in caplog.text or "vision.0.qkv" in caplog.text


@pytest.mark.parametrize("field", ["ckpt_hash", "Se", "flashrt_version", "activation_scales", "enc_scales", "sha256"])
def test_F60_a_missing_field_is_a_miss(tmp_path, field):
    path = save(tmp_path)
    body = json.loads(path.read_text())
    del body[field]
    path.write_text(json.dumps(body) if field == "sha256" else seal(body))
    assert load(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"version": 2, "version": 2}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a": ' * 900 + b"1" + b"}" * 900,
        b" " * (17 << 20),
    ],
    ids=["empty", "cut", "list", "null", "utf16", "twice", "nan", "digits", "deep", "nested", "huge"],
)
def test_F60_broken_json_is_a_miss_with_one_line(tmp_path, caplog, content):
    save(tmp_path).write_bytes(content)
    assert load(tmp_path) is None
    assert len(caplog.records) == 1
    assert len(caplog.text) < 1000


def test_F60_mutated_bytes_give_the_exact_scales_or_nothing(tmp_path):
    path = save(tmp_path, metadata={"samples": 8})
    original, expected = path.read_bytes(), load(tmp_path)
    rng = random.Random(0)
    misses = 0
    logging.disable(logging.WARNING)
    try:
        for _ in range(1500):
            data = bytearray(original)
            for _ in range(rng.randint(1, 3)):
                position = rng.randrange(len(data))
                choice = rng.random()
                if choice < 0.5:
                    data[position] ^= 1 << rng.randrange(8)
                elif choice < 0.75:
                    del data[position : position + rng.randint(1, 20)]
                else:
                    data[position:position] = rng.randbytes(rng.randint(1, 4))
            path.write_bytes(data)
            loaded = load(tmp_path)
            misses += loaded is None
            assert loaded is None or loaded == expected
    finally:
        logging.disable(logging.NOTSET)
    assert misses > 1300


def test_F60_a_fine_tune_with_the_same_header_does_not_share_scales(tmp_path):
    """The upstream cache hashes the first 64 KB and the size: a Pi0.5 header is longer, so two fine-tunes were one."""
    names = [f"paligemma_with_expert.paligemma.model.language_model.layers.{i}.weight" for i in range(800)]
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    for folder, last in ((base, 0.0), (tuned, 1e-3)):
        folder.mkdir()
        tensors = {name: np.zeros(2, np.float32) for name in names}
        tensors[names[-1]] = np.array([0.0, last], np.float32)
        save_file(tensors, folder / "model.safetensors")
    a, b = ((folder / "model.safetensors").read_bytes() for folder in (base, tuned))
    assert len(a) == len(b) and a[: 1 << 16] == b[: 1 << 16] and a != b
    save_calibration(base, 10, activation_scales=SITES, cache_dir=tmp_path / "c")
    assert load_calibration(base, 10, cache_dir=tmp_path / "c")["activation_scales"] == SITES
    assert load_calibration(tuned, 10, cache_dir=tmp_path / "c") is None


# --- F63 ------------------------------------------------------------

_LIMITED = """
import logging, os, resource, sys
from flashrt_core.core.quant.cache import load_calibration, save_calibration
logging.basicConfig(level=logging.WARNING)
folder, digest = sys.argv[1], "c" * 64
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
path = save_calibration("ckpt", 10, activation_scales={"vision.0.qkv": 0.75}, digest=digest, cache_dir=folder)
assert path is None, path
scales = load_calibration("ckpt", 10, digest=digest, cache_dir=folder)["activation_scales"]
assert scales == {"vision.0.qkv": 0.25, "encoder.3.down": 0.5}, scales
assert not [name for name in os.listdir(folder) if name.startswith(".tmp")], os.listdir(folder)
"""


def test_F63_the_kernel_refuses_the_write_half_way(tmp_path):
    """RLIMIT_FSIZE makes write() stop after 200 bytes and then fail, as a disk that fills up does."""
    assert resource.RLIMIT_FSIZE is not None
    save(tmp_path)
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("WARNING") == 1 and "continuing without it" in done.stderr


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open", "mkdir"])
def test_F63_disk_full_at_any_step_goes_on_without_the_cache(tmp_path, monkeypatch, caplog, call):
    folder = tmp_path / "new" if call == "mkdir" else tmp_path

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    assert save(folder) is None
    monkeypatch.undo()
    assert len(caplog.records) == 1 and "No space left" in caplog.text
    assert os.listdir(tmp_path) == [] and load(folder) is None


def test_F63_a_place_where_no_file_can_be_made_goes_on_without_the_cache(caplog):
    assert save(Path("/proc/no-such-place/cache")) is None
    assert len(caplog.records) == 1 and "continuing without it" in caplog.text


# --- F89 ------------------------------------------------------------


def test_F89_a_linked_cache_directory_is_neither_read_nor_written(tmp_path, caplog):
    real, link = tmp_path / "real", tmp_path / "link"
    save(real)
    link.symlink_to(real)
    assert load(link) is None
    assert save(link, hardware="hopper") is None
    assert len(os.listdir(real)) == 1 and len(caplog.records) == 2


def test_F89_a_linked_cache_file_is_not_read_and_its_target_not_written(tmp_path):
    folder, victim = tmp_path / "c", tmp_path / "victim"
    path = save(folder)
    path.rename(victim)
    path.symlink_to(victim)
    assert load(folder) is None
    before = victim.read_bytes()
    path_again = save_calibration("ckpt", 10, activation_scales={"x": 1.0}, digest=DIGEST, cache_dir=folder)
    assert path_again == path and not path.is_symlink()
    assert victim.read_bytes() == before
    assert load(folder)["activation_scales"] == {"x": 1.0}


def test_F89_directory_0700_and_files_0600_under_any_umask(tmp_path):
    old = os.umask(0)
    try:
        path = save(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]


def test_F89_what_others_can_write_is_not_trusted(tmp_path, caplog):
    path = save(tmp_path / "c")
    path.chmod(0o666)
    assert load(tmp_path / "c") is None
    path.chmod(0o600)
    assert load(tmp_path / "c") is not None
    path.parent.chmod(0o777)
    assert load(tmp_path / "c") is None and save(tmp_path / "c") is None
    assert "chmod" in caplog.text


def test_F89_a_fifo_in_place_of_the_file_does_not_block(tmp_path):
    path = save(tmp_path / "c")
    path.unlink()
    os.mkfifo(path, 0o600)
    assert load(tmp_path / "c") is None
