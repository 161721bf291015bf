"""A worker's policy: what is said when FP8 scales are missing leads to a worker that starts."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
from support.checkpoints import write_checkpoint

from flashrt_core.errors import CheckpointError, ConfigError
from flashrt_ros.cli import main
from flashrt_ros.evaluation.rollout import checkpoint_folder
from flashrt_ros.worker.policy_load import WorkerSpec, calibrate_command, load_policy


def test_missing_scales_are_refused_with_the_command_that_makes_them(tmp_path):
    folder, cache = write_checkpoint(tmp_path / "a checkpoint"), tmp_path / "cache"
    spec = WorkerSpec(str(folder), hardware="host", use_fp8=True, calibration_dir=str(cache))
    said: list[str] = []
    with pytest.raises(ConfigError) as caught:
        load_policy(spec, said.append)
    assert caught.value.found == "none cached" and "a checkpoint" in str(caught.value)
    assert len([line for line in said if line.startswith("warming up")]) == 1
    assert not list(cache.rglob("*.json"))  # what was measured on grey pictures is not kept

    rng = np.random.default_rng(0)
    file = tmp_path / "frames.npz"
    np.savez(
        file, images=rng.integers(0, 255, (2, 2, 28, 28, 3), dtype=np.uint8), state=rng.normal(size=(2, 8)) / 9,
        prompt=np.array(["pick it up"] * 2),
    )  # fmt: skip
    command = caught.value.hint.split("`")[1]
    words = [str(file) if word == "FILE.npz" else word for word in shlex.split(command)]
    assert words[0] == "flashrt" and main(words[1:]) == 0
    assert load_policy(spec, said.append).info.hardware == "host"


def test_the_command_for_the_bundled_policy_needs_no_recording():
    folder = checkpoint_folder(None)
    assert calibrate_command(WorkerSpec(str(folder)), folder, "host") == "flashrt calibrate --demo-seeds 8 --hardware host"
    other = WorkerSpec("/x/y", profile="p q")
    line = calibrate_command(other, folder.parent, "hopper")
    assert line.endswith("--observations FILE.npz --hardware hopper --profile 'p q'")


def test_a_folder_that_does_not_say_how_to_read_it_is_one_error(tmp_path):
    (tmp_path / "notes.txt").write_text("no weights here")
    spec = WorkerSpec(checkpoint=str(tmp_path), hardware="host")
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors.*; profile"):
        load_policy(spec, lambda text: None)
