"""The portable GPUs: every row resolves, says what is missing before anything is loaded, and runs what the host pipeline runs."""

from __future__ import annotations

import inspect

import pytest
from support.checkpoints import write_checkpoint
from support.machines import hopper_missing

from flashrt_core import load_model
from flashrt_core.errors import ConfigError, NotBuilt
from flashrt_core.hardware import _PIPELINE_MAP, resolve_pipeline_class
from flashrt_core.models.pi05 import pipeline_host

PORTABLE = ("rtx_sm89", "rtx_sm120", "rtx_sm87", "thor")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("rtx") / "ckpt")


@pytest.mark.parametrize("arch", PORTABLE)
def test_the_row_is_there_and_its_machine_has_its_name(arch: str) -> None:
    assert ("pi05", "torch", arch) in _PIPELINE_MAP
    frontend = resolve_pipeline_class("pi05", "torch", arch)
    assert frontend.MACHINE.arch == arch and frontend.MACHINE.torch_device == "cuda"


@pytest.mark.parametrize("arch", [a for _, _, a in _PIPELINE_MAP if a != "host"])
def test_every_pipeline_has_what_the_host_s_has(arch: str) -> None:
    """What `frontends/program.py` calls on one it may call on each."""
    pipeline = resolve_pipeline_class("pi05", "torch", arch).PIPELINE
    own = [n for n, f in inspect.getmembers(pipeline_host, inspect.isfunction) if f.__module__ == pipeline_host.__name__]
    missing = [name for name in [*own, "PLAN_WIDE", "PLAN_FP8", "FP8_BY_DEFAULT"] if not hasattr(pipeline, name)]
    assert own and not missing, f"{pipeline.__name__} lacks {missing}"


@pytest.mark.parametrize("arch", ["rtx_sm89", "rtx_sm120", "rtx_sm87", "thor"])
def test_the_portable_ones_run_the_host_s_composition(arch: str) -> None:
    pipeline = resolve_pipeline_class("pi05", "torch", arch).PIPELINE
    assert pipeline.encode is pipeline_host.encode and pipeline.denoise is pipeline_host.denoise
    assert pipeline.PLAN_WIDE.name == "bf16"


def test_orin_has_no_fp8_and_says_so(checkpoint) -> None:
    with pytest.raises(NotBuilt, match=r"FP8 on rtx_sm87.*use_fp8=False"):
        load_model(checkpoint, hardware="rtx_sm87", use_fp8=True)


@pytest.mark.parametrize("arch", PORTABLE)
def test_nvfp4_is_refused_not_ignored(checkpoint, arch: str) -> None:
    with pytest.raises(ConfigError, match=f"use_fp4.*{arch}"):
        load_model(checkpoint, hardware=arch, use_fp4=True)


@pytest.mark.skipif(not hopper_missing(), reason="the kernels are built here")
@pytest.mark.parametrize("arch", PORTABLE)
def test_without_kernels_the_error_says_how_to_build_them(checkpoint, arch: str) -> None:
    with pytest.raises(NotBuilt, match="cmake -S csrc"):
        load_model(checkpoint, hardware=arch, use_fp8=False)
