"""What each pipeline launches, compared with the list kept beside this file: order, shapes, memory; nothing is read unwritten.

A change that is meant: `python test/models/test_launch_lists.py` writes the lists anew, and the diff shows what changed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
from support.launch_list import Recorded

from flashrt_core.hardware import _PIPELINE_MAP, resolve_pipeline_class

FOLDER = Path(__file__).parent / "launches"


def cases() -> list[tuple[str, object, object]]:
    """(name, pipeline module, plan) of every row of the map and each of its plans."""
    out = []
    for config, framework, arch in _PIPELINE_MAP:
        pipeline = resolve_pipeline_class(config, framework, arch).PIPELINE
        plans = {"wide": pipeline.PLAN_WIDE, "fp8": pipeline.PLAN_FP8}
        out += [(f"{config}_{arch}_{name}", pipeline, plan) for name, plan in plans.items() if plan is not None]
    return out


CASES = {name: (pipeline, plan) for name, pipeline, plan in cases()}


@pytest.mark.parametrize("name", CASES)
def test_launches_are_those_of_the_list(name: str) -> None:
    recorded = Recorded(*CASES[name])
    kept = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    got = recorded.lines()
    for i, (a, b) in enumerate(zip(got, kept, strict=False)):
        assert a == b, f"launch {i} (if it is meant: python test/models/test_launch_lists.py)"
    assert len(got) == len(kept)
    assert recorded.read_before_written() == []


def test_a_read_of_what_nothing_wrote_is_found() -> None:
    recorded = Recorded(*CASES["pi05_host_wide"])
    at = next(i for i, (name, v) in enumerate(recorded.launches) if name == "layer_norm")
    del recorded.launches[at]  # its output is read by the next GEMM
    assert any("vis.act" in line for line in recorded.read_before_written())


def test_no_list_is_left_over() -> None:
    assert {f.stem for f in FOLDER.glob("*.txt")} == set(CASES)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for case, (module, plan) in CASES.items():
        (FOLDER / f"{case}.txt").write_text("\n".join(Recorded(module, plan).lines()) + "\n", encoding="utf-8")
