"""Hardware dispatch: which architecture this machine has, and which frontend class serves a model on it.

`_PIPELINE_MAP` is one-to-one: a (config, framework, arch) is one file and one class. Plug-ins add rows at import time.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

from ..errors import FlashRTError, NotBuilt, nearest
from .cuda_probe import compute_capability

logger = logging.getLogger(__name__)

_PIPELINE_MAP: dict[tuple[str, str, str], tuple[str, str]] = {
    ("pi05", "torch", "host"): ("flashrt_core.frontends.torch.pi05_host", "Pi05TorchFrontendHost"),
    ("pi05", "torch", "hopper"): ("flashrt_core.frontends.torch.pi05_hopper", "Pi05TorchFrontendHopper"),
    # the portable kernels: run on SM90 under the names rtx_sm89 and rtx_sm87, on the GPUs themselves compiled, not run
    ("pi05", "torch", "rtx_sm89"): ("flashrt_core.frontends.torch.pi05_rtx_sm89", "Pi05TorchFrontendRtxSm89"),
    ("pi05", "torch", "rtx_sm120"): ("flashrt_core.frontends.torch.pi05_rtx_sm120", "Pi05TorchFrontendRtxSm120"),
    ("pi05", "torch", "rtx_sm87"): ("flashrt_core.frontends.torch.pi05_rtx_sm87", "Pi05TorchFrontendRtxSm87"),
    ("pi05", "torch", "thor"): ("flashrt_core.frontends.torch.pi05_thor", "Pi05TorchFrontendThor"),
}

# Compute capability -> arch string. NVIDIA CUDA C++ Programming Guide, "Compute Capabilities".
_ARCH_OF_SM: dict[tuple[int, int], str] = {
    (8, 7): "rtx_sm87",  # Jetson AGX Orin
    (8, 9): "rtx_sm89",  # RTX 4090 class
    (9, 0): "hopper",  # H100, H200
    (11, 0): "thor",  # Jetson AGX Thor
    (12, 0): "rtx_sm120",  # RTX 5090 class
    (12, 1): "rtx_sm120",  # GB10
}
ARCHS: tuple[str, ...] = ("host", *dict.fromkeys(_ARCH_OF_SM.values()))


def detect_arch(probe: Callable[[], tuple[int, int] | None] | None = None) -> str:
    """Arch string of the current CUDA device, or "host" when there is no CUDA GPU (logged at INFO).

    probe: returns (major, minor), or None for no GPU; the default asks the CUDA driver.
    Raises NotBuilt (a RuntimeError) for a GPU of an unsupported compute capability and ConfigError when a driver is
    there but does not work: a GPU that cannot be used is not the same as no GPU.
    """
    capability = (probe or compute_capability)()
    if capability is None:
        logger.info('no CUDA GPU found: using hardware="host" (CPU)')
        return "host"
    arch = _ARCH_OF_SM.get(tuple(capability))
    if arch is None:
        supported = ", ".join(f"SM{major}{minor} ({name})" for (major, minor), name in _ARCH_OF_SM.items())
        raise NotBuilt(
            "GPU compute capability",
            expected=f"one of {supported}",
            found=f"SM{capability[0]}{capability[1]}",
            hint='hardware="host" runs on the CPU and can be chosen explicitly',
        )
    return arch


def resolve_pipeline_class(config: str, framework: str, arch: str) -> type:
    """The frontend class of a (config, framework, arch) row, imported on demand.

    Raises NotBuilt (a RuntimeError) when there is no such row, saying what the model is built for, and when the row's
    module cannot be imported, with the cause.
    """
    row = _PIPELINE_MAP.get((config, framework, arch))
    if row is None:
        raise _no_row(config, framework, arch)
    module_path, class_name = row
    asked = _describe(config, framework, arch)
    try:
        module = importlib.import_module(module_path)
    except FlashRTError:
        raise  # the module says itself what is missing (another SM, an extension)
    except Exception as error:  # a plug-in's import can fail with anything; the row that led there must be named
        raise NotBuilt(
            f"pipeline for {asked}",
            expected=f"an importable module {module_path}",
            found=f"{type(error).__name__}: {error}",
        ) from error
    try:
        return getattr(module, class_name)
    except AttributeError as error:
        expected = f"class {class_name} in {module_path}"
        raise NotBuilt(f"pipeline for {asked}", expected=expected, found="none") from error


def _describe(config: str, framework: str, arch: str) -> str:
    return f"config={config!r} framework={framework!r} arch={arch!r}"


def _no_row(config: str, framework: str, arch: str) -> NotBuilt:
    asked = f"pipeline for {_describe(config, framework, arch)}"
    archs = sorted(a for c, f, a in _PIPELINE_MAP if (c, f) == (config, framework))
    if archs:
        hint = 'hardware="host" runs it on the CPU and can be chosen explicitly' if "host" in archs else None
        if arch not in ARCHS and arch not in archs:
            hint = nearest(arch, {*ARCHS, *archs})
        return NotBuilt(asked, expected=f"an arch that this model and framework are built for: {archs}", hint=hint)
    frameworks = sorted({f for c, f, _ in _PIPELINE_MAP if c == config})
    if frameworks:
        return NotBuilt(asked, expected=f"a framework that {config!r} is built for: {frameworks}")
    known = {c for c, _, _ in _PIPELINE_MAP}
    return NotBuilt(asked, expected="a model with a backend for any arch", found="none", hint=nearest(config, known))
