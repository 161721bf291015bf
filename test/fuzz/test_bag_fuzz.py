"""Mutated bags: every outcome is an exact read, a finding or a typed error, all of them rows F76-F81; no loss is silent."""

from __future__ import annotations

import resource
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.bags import Row, rows, write_db3, write_mcap

from flashrt_ros.bags.bag import BagWriter
from flashrt_ros.bags.reading import BagError, BagReader

COUNT, LONG_COUNT = 2_000, 100_000  # FAULTS.md, fuzz counts
FAULTS = {"F76", "F77", "F78", "F79", "F80", "F81"}
WANT = rows(24)
SLOWEST_S, MEMORY = 5.0, 400 << 20


@dataclass(frozen=True)
class Base:
    """A good bag. checked: a CRC covers every message."""

    name: str
    checked: bool


BASES = [
    Base("zstd.mcap", True), Base("lz4.mcap", True), Base("plain.mcap", True), Base("no_crc.mcap", False),
    Base("loose.mcap", False), Base("data.db3", False), Base("folder", True),
]  # fmt: skip


def make(folder: Path, base: Base) -> Path:
    """The file that will be mutated."""
    path = folder / base.name
    if base.name == "folder":
        with BagWriter(path, compress=False) as bag:
            for topic in ("/a", "/b"):
                bag.add(topic, "std_msgs/msg/String")
            for r in WANT:
                bag.write(r.topic, r.at_ns, r.data)
        return path / "folder.mcap"
    if base.name == "data.db3":
        return write_db3(path, WANT)
    compression = {"zstd.mcap": "zstd", "lz4.mcap": "lz4"}.get(base.name, "")
    return write_mcap(path, WANT, compression=compression, crc=base.checked, chunked=base.name != "loose.mcap")


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """1 to 3 changes: bits, bytes, numbers, holes, cuts, repeats."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not out:
            break
        at, length = int(rng.integers(len(out))), int(rng.integers(1, 64))
        kind = int(rng.integers(8))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            value = [0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, at][int(rng.integers(7))]
            out[at : at + 8] = value.to_bytes(8, "little")[: len(out) - at]
        elif kind == 3:
            out[at : at + length] = bytes(min(length, len(out) - at))
        elif kind == 4:
            del out[at:]
        elif kind == 5:
            del out[at : at + length]
        elif kind == 6:
            out[at:at] = rng.bytes(length)
        else:
            out[at:at] = out[max(0, at - length) : at]
    return bytes(out)


def outcome(path: Path, base: Base) -> str:
    """What became of a mutated bag; anything that is not allowed is an AssertionError."""
    try:
        with BagReader(path) as bag:
            got = [Row(m.topic, m.log_time_ns, m.data) for m in bag]
            findings = bag.findings
    except BagError as error:
        assert error.fault in FAULTS
        return f"refused {error.fault}"
    found = {f.fault for f in findings}
    assert found <= FAULTS and all(f.text and f.count >= 0 for f in findings)
    times = [r.at_ns for r in got]
    assert times == sorted(times) or "F80" in found
    loss = any(f.is_loss for f in findings)
    foreign = [r for r in got if r not in WANT]
    if base.checked and foreign:
        assert "F81" in found or loss, foreign
    if len(set(got)) < len(WANT):
        assert found & {"F76", "F77", "F79", "F81"}, (len(got), findings)
    if base.checked and len(set(got)) < len(WANT):
        assert loss or "F79" in found, (len(got), findings)
    return "exact" if got == WANT and not loss else "+".join(sorted(found)) or "changed"


def run(tmp_path: Path, count: int, seed: int) -> Counter[str]:
    rng = np.random.default_rng(seed)
    originals = []
    for base in BASES:
        file = make(tmp_path, base)
        originals.append((base, file, file.read_bytes(), tmp_path / base.name))
    seen: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        base, file, data, bag = originals[number % len(originals)]
        file.write_bytes(mutate(data, rng))
        started = time.process_time()
        try:
            seen[outcome(bag, base)] += 1
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, mutation {number} of {base}: {type(error).__name__}: {error}"
            ) from error
        assert time.process_time() - started < SLOWEST_S, (base, number)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY, grown
    return seen


def test_mutated_bags(tmp_path):
    seen = run(tmp_path, COUNT, seed=76)
    assert sum(seen.values()) == COUNT
    for fault in ("F76", "F77", "F81"):
        assert any(fault in name for name in seen), (fault, seen)
    assert seen["exact"] > COUNT / 50 and any(name.startswith("refused") for name in seen), seen
    assert not seen["changed"], seen


def test_mutated_metadata(tmp_path):
    """Whatever metadata.yaml says, the messages are those of the file."""
    rng = np.random.default_rng(78)
    make(tmp_path, BASES[-1])
    meta = tmp_path / "folder" / "metadata.yaml"
    data, seen = meta.read_bytes(), Counter()
    for _ in range(300):
        meta.write_bytes(mutate(data, rng))
        with BagReader(tmp_path / "folder") as bag:
            assert [Row(m.topic, m.log_time_ns, m.data) for m in bag] == WANT
            seen["+".join(sorted({f.fault for f in bag.findings}))] += 1
    assert set(seen) <= {"", "F78", "F76", "F76+F78"} and seen["F78"] > 50, seen


@pytest.mark.long
def test_mutated_bags_deep(tmp_path):
    assert sum(run(tmp_path, LONG_COUNT, seed=1).values()) == LONG_COUNT
