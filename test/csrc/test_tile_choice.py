"""The SM90 GEMM's choice of a tile, from its header, against what bench/kernels/gemm_tiles.cu measured on the H200."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.checkers import ROOT

COMPILER = shutil.which("c++") or shutil.which("g++")
MEASURED = json.loads((ROOT / "bench/results/gemm_tiles_h200.json").read_text(encoding="utf-8"))["rows"]
SLOWER = 1.01  # the measurements' own spread
SMS = 132  # of the H200
PROGRAM = r"""
#include <cstdio>
#include "tuning/gemm_tiles.h"
using namespace frt::tuning;
int main() {
  Product p;
  int geglu, e4m3, residual, sms;
  while (scanf("%d %d %ld %d %d %d %d", &p.rows, &p.columns, &p.k_bytes, &geglu, &e4m3, &residual, &sms) == 7) {
    p.geglu = geglu, p.e4m3 = e4m3, p.residual = residual;
    const int best = fastest_tile(p, sms);
    printf("%dx%d", gemm_tiles[best].groups * 64, gemm_tiles[best].columns);
    for (const Tile& t : gemm_tiles)
      if (tile_takes(t, p)) printf(" %dx%d", t.groups * 64, t.columns);
    printf(" library %d\n", p.k_bytes >= library_k);
  }
}
"""


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """For each measured product: the chosen tile, then every tile that takes it."""
    if COMPILER is None:
        pytest.skip("no C++ compiler is installed: the header is not compiled here")
    folder: Path = tmp_path_factory.mktemp("tiles")
    source, program = folder / "choice.cpp", folder / "choice"
    source.write_text(PROGRAM, encoding="utf-8")
    subprocess.run([COMPILER, "-std=c++17", "-Wall", f"-I{ROOT / 'csrc'}", source, "-o", program], check=True, timeout=60)
    lines = []
    for row in MEASURED:
        geglu, e4m3 = row["epilogue"] == "geglu", row["precision"] == "fp8"
        columns, k_bytes = row["N"] * (1 + geglu), row["K"] * (1 if e4m3 else 2)
        lines.append(f"{row['M']} {columns} {k_bytes} {geglu:d} {e4m3:d} {'residual' in row['epilogue']:d} {SMS}")
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True, timeout=60)
    return [line.split() for line in done.stdout.splitlines()]


def test_the_fastest_of_the_measured_tiles_is_chosen(choices: list[list[str]]) -> None:
    assert len(choices) == len(MEASURED) == 17
    for row, (chosen, *others) in zip(MEASURED, choices, strict=True):
        tiles, to_library = others[:-2], others[-1] == "1"
        assert set(tiles) <= set(row["us"]), f"{row['gemm']}, {row['precision']}: not all of {tiles} were measured"
        fastest = min(row["us"][tile] for tile in tiles)
        if to_library:
            assert row["gemm"] == "prefix down"
        else:
            what = f"{row['gemm']}, {row['precision']}: {chosen} takes {row['us'][chosen]} us where {fastest} are enough"
            assert row["us"][chosen] <= SLOWER * fastest, what
