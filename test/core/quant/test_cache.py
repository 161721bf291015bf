"""Calibration cache: round trip, keys, clearing."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import stat
from pathlib import Path

import numpy as np
import pytest

from flashrt_core.core.quant import cache
from flashrt_core.core.quant.cache import clear_calibration, load_calibration, save_calibration
from flashrt_core.core.utils.sealed_json import checksum
from flashrt_core.errors import ConfigError
from flashrt_core.version import __version__

A, B = ("a" * 64, "b" * 64)
ENC, ALPHA, AE, WEIGHT = [0.1, 0.2, 0.3, 0.4], [0.01, 0.02], [0.5] * 3, [0.7]


def save(tmp_path: Path, digest: str = A, Se: int = 712, **kwargs) -> Path | None:
    return save_calibration("ckpt", Se, ENC, ALPHA, AE, WEIGHT, digest=digest, cache_dir=tmp_path / "c", **kwargs)


def load(tmp_path: Path, digest: str = A, Se: int = 712, **kwargs) -> dict | None:
    return load_calibration("ckpt", Se, digest=digest, cache_dir=tmp_path / "c", **kwargs)


def test_round_trip_of_the_documented_arguments(tmp_path):
    path = save(tmp_path, metadata={"samples": 8})
    assert path is not None and path.is_file() and stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = load(tmp_path)
    assert (loaded["enc_scales"], loaded["enc_alpha"], loaded["ae_scales"], loaded["enc_w_scales"]) == (
        ENC, ALPHA, AE, WEIGHT,
    )
    assert (loaded["num_enc_scales"], loaded["num_ae_scales"]) == (4, 3)
    assert (loaded["ckpt_hash"], loaded["Se"], loaded["metadata"]) == (A, 712, {"samples": 8})
    assert loaded["flashrt_version"] == __version__


def test_named_scales_survive_bit_for_bit(tmp_path):
    values = np.random.default_rng(0).uniform(1e-12, 10, 50).astype(np.float32)
    sites = {f"decoder.step{i}.layer2.o": value for i, value in enumerate(values)}
    where = {"digest": A, "cache_dir": tmp_path}
    save_calibration("ckpt", 5, activation_scales=sites, weight_scales={"w": np.float32(1e-12)}, **where)
    loaded = load_calibration("ckpt", 5, digest=A, cache_dir=tmp_path)
    assert list(loaded["activation_scales"]) == list(sites)
    np.testing.assert_array_equal(np.array(list(loaded["activation_scales"].values()), np.float32), values)
    assert loaded["weight_scales"] == {"w": float(np.float32(1e-12))}


def test_means_survive_bit_for_bit_and_broken_ones_are_refused(tmp_path, caplog):
    means = {"encoder.3.down": np.random.default_rng(0).standard_normal(17).astype(np.float32), "vision.proj": np.zeros(8)}
    path = save(tmp_path, input_means=means)
    loaded = load(tmp_path)["input_means"]
    assert list(loaded) == list(means) and loaded["vision.proj"].dtype == np.float32
    assert all(np.array_equal(loaded[name], mean) for name, mean in means.items())
    for bad in ([1.0, np.nan], [[1.0]], [1e39]):
        with pytest.raises(ConfigError, match="mean input of w"), np.errstate(over="ignore"):
            save(tmp_path, input_means={"w": np.array(bad)})
    for broken, words in (("!", "base64"), (base64.b64encode(b"abc").decode(), "base64"), (3, "base64"),
                          (base64.b64encode(np.float32("nan").tobytes()).decode(), "finite")):  # fmt: skip
        body = json.loads(path.read_text())
        body["input_means"]["vision.proj"] = broken
        body.pop("sha256")
        path.write_text(json.dumps({**body, "sha256": checksum(body)}))
        caplog.clear()
        assert load(tmp_path) is None and "mean input of vision.proj" in caplog.text and words in caplog.text


def test_arrays_are_accepted_and_keep_their_shape(tmp_path):
    one = np.ones(1)
    save_calibration("ckpt", 3, np.ones((2, 4), np.float32), one, one, one, digest=A, cache_dir=tmp_path)
    loaded = load_calibration("ckpt", 3, digest=A, cache_dir=tmp_path)
    assert np.shape(loaded["enc_scales"]) == (2, 4) and loaded["num_enc_scales"] == 8


@pytest.mark.parametrize(
    "other", [{"Se": 711}, {"digest": B}, {"hardware": "hopper"}, {"shape": "views=3"}, {"plan": "fp8"}]
)
def test_every_part_of_the_key_separates(tmp_path, other):
    save(tmp_path)
    assert load(tmp_path) is not None
    assert load(tmp_path, **other) is None
    save(tmp_path, **other)
    assert load(tmp_path, **other) is not None and load(tmp_path) is not None  # both are kept


def test_an_absent_cache_is_a_silent_miss(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        assert load(tmp_path) is None
    assert not caplog.records and not (tmp_path / "c").exists()


def test_clear_removes_only_that_checkpoint(tmp_path):
    save(tmp_path, Se=1)
    save(tmp_path, Se=2, hardware="hopper")
    save(tmp_path, digest=B)
    (tmp_path / "c" / "notes.txt").write_text("mine")
    assert clear_calibration(digest=A, cache_dir=tmp_path / "c") == 2
    assert load(tmp_path, Se=1) is None and load(tmp_path, digest=B) is not None
    (tmp_path / "c" / ".tmp-0123").write_text("left by a crash")
    assert clear_calibration(cache_dir=tmp_path / "c") == 1
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["notes.txt"]
    assert clear_calibration(cache_dir=tmp_path / "nowhere") == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 1e39, 1e-40])
def test_bad_scales_are_refused_by_name_and_nothing_is_written(tmp_path, bad):
    with pytest.raises(ConfigError, match=r"scale vision\.0\.qkv"):
        save(tmp_path, activation_scales={"vision.0.qkv": bad})
    with pytest.raises(ConfigError, match=r"scale enc_scales\[1\]"):
        save_calibration("ckpt", 1, [1.0, bad], [], [], [], digest=A, cache_dir=tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [({"Se": 0}, "Se"), ({"Se": True}, "Se"), ({"digest": "xyz"}, "digest"), ({"digest": "A" * 64}, "digest")],
)
def test_bad_keys_are_refused(tmp_path, kwargs, match):
    with pytest.raises(ConfigError, match=match):
        save(tmp_path, **kwargs)


@pytest.mark.parametrize("metadata", [{"x": object()}, {"x": float("nan")}, {"x": np.ones(2)}])
def test_metadata_must_be_json(tmp_path, metadata):
    with pytest.raises(ConfigError, match="metadata"):
        save(tmp_path, metadata=metadata)


def test_the_default_directory_is_below_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    path = save_calibration("ckpt", 1, digest=A)
    assert path.parent == tmp_path / ".cache" / "flashrt" / "calibration"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_calibration("ckpt", 1, digest=A) is not None


def test_a_user_without_home_goes_on_without_a_cache(monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert save_calibration("ckpt", 1, digest=A) is None
    assert load_calibration("ckpt", 1, digest=A) is None
    assert "home directory" in caplog.text


def test_without_a_digest_the_whole_checkpoint_is_hashed(tmp_path, monkeypatch):
    checkpoint = tmp_path / "weights"
    monkeypatch.setattr(cache, "checkpoint_digest", lambda p: hashlib.sha256(Path(p).read_bytes()).hexdigest())
    checkpoint.write_bytes(b"header" * 20000 + b"base")
    save_calibration(checkpoint, 9, ENC, ALPHA, AE, WEIGHT, cache_dir=tmp_path / "c")
    assert load_calibration(checkpoint, 9, cache_dir=tmp_path / "c")["enc_scales"] == ENC
    checkpoint.write_bytes(b"header" * 20000 + b"tune")  # same first 64 KB, same size
    assert load_calibration(checkpoint, 9, cache_dir=tmp_path / "c") is None
    assert clear_calibration(checkpoint, cache_dir=tmp_path / "c") == 0


def test_the_file_is_plain_json_with_a_checksum(tmp_path):
    body = json.loads(save(tmp_path).read_text())
    stored = body.pop("sha256")
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert stored == hashlib.sha256(canonical.encode()).hexdigest()
