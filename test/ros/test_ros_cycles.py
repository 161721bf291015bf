"""F67: configure and cleanup again and again; the node's memory, threads, files and workers stay what they were."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from rig_ros import NodeProcess, script


def footprint(pid: int) -> dict[str, int]:
    """Resident kB, threads, open files of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "kB": int(status["VmRSS"].split()[0]),
        "threads": int(status["Threads"]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


# CPython keeps its interned strings in one table that doubles when it is full, entries long deleted included: once in some
# hundred cycles, then never again (seen with a preloaded malloc: 961,216 -> 1,922,416 bytes in PyUnicode_InternInPlace).
TABLE_KB = range(900, 1000)


def cycle(probe, node: str, count: int) -> None:
    for _ in range(count):
        probe.to("configure", "cleanup", name=node)


def growth(samples: list[int]) -> int:
    """kB from the first to the last sample, without one doubling of the interpreter's table."""
    steps = [after - before for before, after in itertools.pairwise(samples)]
    return sum(steps) - next((step for step in steps if step in TABLE_KB), 0)


def check_cycles(probe, warm_up: int, count: int, every: int) -> None:
    """At most 1 MiB more resident memory, as many threads, no more files, no worker."""
    with NodeProcess(script=script(), name="cycles_node") as node:
        probe.state("cycles_node")
        cycle(probe, "cycles_node", warm_up)
        seen = [footprint(node.process.pid)]
        for _ in range(count // every):
            cycle(probe, "cycles_node", every)
            seen.append(footprint(node.process.pid))
        assert not node.children(), "a worker was left behind"
    print("kB", [s["kB"] - seen[0]["kB"] for s in seen])
    assert seen[-1]["threads"] == seen[0]["threads"] and seen[-1]["files"] <= seen[0]["files"], seen
    assert growth([s["kB"] for s in seen]) <= 1024, seen


def test_a_growth_of_many_steps_is_not_excused():
    assert growth([0, 10, 950, 960]) == 20
    assert growth([0, 940, 1880]) == 940
    assert growth([0, 500, 1100]) == 1100


def test_F67_a_few_cycles_leave_nothing(probe):
    check_cycles(probe, warm_up=3, count=6, every=2)


@pytest.mark.long
def test_F67_500_cycles_leave_nothing(probe):
    check_cycles(probe, warm_up=20, count=500, every=10)
