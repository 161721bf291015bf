"""Rules of the kernel sources that no compiler checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\(")


def kernels() -> list[tuple[str, str]]:
    """(file and kernel, body) of every kernel: from its opening brace to the one that closes it in the first column."""
    found = []
    for path in sorted(CSRC.rglob("*.cuh")) + sorted(CSRC.rglob("*.cu")):
        text = path.read_text()
        for match in KERNEL.finditer(text):
            begin = text.index("{\n", match.end())
            found.append((f"{path.relative_to(CSRC)}:{match[1]}", text[begin : text.index("\n}\n", begin)]))
    return found


TOGETHER = set(re.findall(r"launch_together\([^;]*?(\w+_kernel)\b", (CSRC / "ops/denoise_loop.cuh").read_text()))


def test_the_rule_sees_the_kernels() -> None:
    names = {name.split(":")[1] for name, _ in kernels()}
    assert {"rms_norm_kernel", "gemm_tiles_kernel", "attention_wgmma_kernel", "amax_kernel"} <= names


@pytest.mark.parametrize(("name", "body"), kernels(), ids=lambda v: v if ":" in v else "")
def test_every_kernel_waits_for_its_inputs(name: str, body: str) -> None:
    """core/launch.h starts each kernel before the one in front of it has finished; core/launch_together.h does not."""
    if name.split(":")[1] in TOGETHER:
        return
    assert "inputs_ready();" in body, f"{name} must call inputs_ready() before it touches activations"
    wait = body.index("inputs_ready();")
    early = re.search(r"\n {2,4}(?:if \([^\n]*\) )?return;", body)
    assert early is None or wait < early.start(), f"{name} returns before inputs_ready(): the next kernel would not be held back"
