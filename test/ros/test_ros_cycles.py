"""F67: configure and cleanup again and again; the node's memory, threads, files and workers stay what they were."""

from __future__ import annotations

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


def cycle(probe, node: str, count: int) -> None:
    for _ in range(count):
        probe.to("configure", "cleanup", name=node)


def check_cycles(probe, warm_up: int, count: int, growth_kb: int) -> None:
    with NodeProcess(script=script(), name="cycles_node") as node:
        probe.state("cycles_node")
        cycle(probe, "cycles_node", warm_up)
        before = footprint(node.process.pid)
        cycle(probe, "cycles_node", count)
        after = footprint(node.process.pid)
        assert not node.children(), "a worker was left behind"
    assert after["threads"] == before["threads"] and after["files"] <= before["files"], (before, after)
    assert after["kB"] - before["kB"] <= growth_kb, (before, after)


def test_F67_a_few_cycles_leave_nothing(probe):
    check_cycles(probe, warm_up=3, count=6, growth_kb=4096)


@pytest.mark.long
def test_F67_500_cycles_leave_nothing(probe):
    check_cycles(probe, warm_up=20, count=500, growth_kb=4096)
