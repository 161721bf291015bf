"""Architecture detection and the (config, framework, arch) -> class map."""

from __future__ import annotations

import ctypes
import logging
import subprocess
import sys
import types

import pytest

import flashrt_core.hardware as hardware
from flashrt_core.errors import ConfigError, NotBuilt
from flashrt_core.hardware import ARCHS, detect_arch, resolve_pipeline_class
from flashrt_core.hardware.cuda_probe import compute_capability


class FakeDriver:
    """libcuda with one device; `fail` maps a call name to the status it returns."""

    def __init__(self, capability=(9, 0), count=1, fail=None):
        self.capability, self.count, self.fail = capability, count, fail or {}

    def cuInit(self, flags):
        return self.fail.get("cuInit", 0)

    def cuDeviceGetCount(self, out):
        out._obj.value = self.count
        return self.fail.get("cuDeviceGetCount", 0)

    def cuDeviceGet(self, out, ordinal):
        assert ordinal == 0
        return self.fail.get("cuDeviceGet", 0)

    def cuDeviceGetAttribute(self, out, attribute, device):
        assert isinstance(device, ctypes.c_int)
        out._obj.value = self.capability[attribute - 75]
        return self.fail.get("cuDeviceGetAttribute", 0)


def no_library(name):
    raise OSError(f"{name}: cannot open shared object file")


@pytest.fixture
def torch_without_context(monkeypatch):
    """The driver path is what is under test, whatever PyTorch did earlier in this process."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.parametrize(
    ("capability", "arch"),
    [((11, 0), "thor"), ((12, 0), "rtx_sm120"), ((12, 1), "rtx_sm120"), ((8, 7), "rtx_sm87"), ((8, 9), "rtx_sm89"),
     ((9, 0), "hopper")],
)
def test_detect_arch_of_each_supported_gpu(capability, arch):
    assert detect_arch(lambda: capability) == arch
    assert arch in ARCHS


def test_detect_arch_without_gpu_is_host_and_says_so(caplog):
    with caplog.at_level(logging.INFO, logger="flashrt_core.hardware"):
        assert detect_arch(lambda: None) == "host"
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert "no CUDA GPU" in caplog.text and "host" in caplog.text


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (7, 5), (10, 0), (13, 0)])
def test_detect_arch_refuses_other_gpus_with_the_list(capability):
    with pytest.raises(RuntimeError) as caught:
        detect_arch(lambda: capability)
    assert isinstance(caught.value, NotBuilt)
    text = str(caught.value)
    assert f"SM{capability[0]}{capability[1]}" in text
    assert all(arch in text for arch in ARCHS)  # every alternative, `host` included


def test_probe_reads_the_driver(torch_without_context):
    assert compute_capability(lambda name: FakeDriver((8, 9))) == (8, 9)
    assert compute_capability(no_library) is None
    assert compute_capability(lambda name: FakeDriver(fail={"cuInit": 100})) is None
    assert compute_capability(lambda name: FakeDriver(count=0)) is None


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetAttribute"])
def test_F45_a_broken_driver_is_an_error_not_a_missing_gpu(torch_without_context, call):
    with pytest.raises(ConfigError, match=f"{call}.*803"):
        compute_capability(lambda name: FakeDriver(fail={call: 803}))


def test_probe_prefers_the_device_that_torch_already_holds(monkeypatch):
    cuda = types.SimpleNamespace(is_initialized=lambda: True, get_device_capability=lambda: (12, 0))
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    assert compute_capability(no_library) == (12, 0)


def test_import_and_detection_need_neither_torch_nor_jax():
    code = (
        "import sys; from flashrt_core.hardware import detect_arch; detect_arch(lambda: None)\n"
        "from flashrt_core.hardware.cuda_probe import compute_capability\n"
        "def none(name): raise OSError(name)\n"
        "assert compute_capability(none) is None\n"
        "sys.exit(bool({'torch', 'jax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def rows(monkeypatch):
    """A copy of the map that a test can extend, as a plug-in would."""
    copy = dict(hardware._PIPELINE_MAP)
    monkeypatch.setattr(hardware, "_PIPELINE_MAP", copy)
    return copy


def test_a_plugin_row_resolves_to_its_class(rows, monkeypatch):
    plugin = types.ModuleType("plugin_frontend")
    plugin.MyFrontend = type("MyFrontend", (), {})
    monkeypatch.setitem(sys.modules, "plugin_frontend", plugin)
    rows["mine", "torch", "hopper"] = ("plugin_frontend", "MyFrontend")
    assert resolve_pipeline_class("mine", "torch", "hopper") is plugin.MyFrontend


def test_missing_arch_names_what_was_asked_and_what_exists(rows):
    for arch in ("thor", "rtx_sm87", "rtx_sm89", "rtx_sm120"):
        del rows["pi05", "torch", arch]
    with pytest.raises(RuntimeError) as caught:
        resolve_pipeline_class("pi05", "torch", "thor")
    assert isinstance(caught.value, NotBuilt)
    text = str(caught.value)
    for part in ("config='pi05'", "framework='torch'", "arch='thor'", "['hopper', 'host']", 'hardware="host"', "explicitly"):
        assert part in text


def test_missing_arch_does_not_offer_a_host_that_is_not_there(rows):
    rows["wide", "torch", "rtx_sm120"] = ("nowhere", "Nothing")
    with pytest.raises(NotBuilt, match="rtx_sm120") as caught:
        resolve_pipeline_class("wide", "torch", "rtx_sm89")
    assert "explicitly" not in str(caught.value)


def test_misspelt_arch_gets_the_nearest_name():
    with pytest.raises(NotBuilt, match="did you mean 'hopper'"):
        resolve_pipeline_class("pi05", "torch", "hoper")


def test_missing_framework_and_missing_model():
    with pytest.raises(RuntimeError, match=r"config='pi05' framework='jax' arch='host'.*\['torch'\]"):
        resolve_pipeline_class("pi05", "jax", "host")
    with pytest.raises(RuntimeError, match=r"config='pi5' framework='torch' arch='host'.*did you mean 'pi05'"):
        resolve_pipeline_class("pi5", "torch", "host")


def test_a_row_that_cannot_be_imported_gives_the_cause(rows, tmp_path, monkeypatch):
    (tmp_path / "broken_frontend.py").write_text("import a_library_that_is_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    rows["mine", "torch", "host"] = ("broken_frontend", "Frontend")
    with pytest.raises(NotBuilt, match=r"arch='host'.*broken_frontend.*a_library_that_is_not_installed") as caught:
        resolve_pipeline_class("mine", "torch", "host")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_row_with_a_missing_class_says_so(rows):
    rows["mine", "torch", "host"] = ("flashrt_core.version", "Frontend")
    with pytest.raises(NotBuilt, match=r"class Frontend in flashrt_core\.version"):
        resolve_pipeline_class("mine", "torch", "host")


def test_a_typed_error_of_the_module_itself_passes_through(rows, tmp_path, monkeypatch):
    (tmp_path / "other_sm.py").write_text(
        "from flashrt_core.errors import NotBuilt\nraise NotBuilt('kernels', expected='SM90', found='SM120')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows["mine", "torch", "hopper"] = ("other_sm", "Frontend")
    with pytest.raises(NotBuilt, match=r"^kernels: expected SM90, found SM120$"):
        resolve_pipeline_class("mine", "torch", "hopper")
