"""Start of a policy from a file: seconds by phase, peak device memory, and that nothing is allocated after capture.

    python tools/start_figure.py --write DIR                       # a full-size checkpoint of random weights, 7 GB
    python tools/start_figure.py DIR --precision fp8 --out r.json  # first start: calibrates; again: from the caches

Each start is a process of its own; the file is read once before, so that it is in the page cache. Memory is NVML's, sampled
while the policy loads, less what was in use before; the context of CUDA itself is part of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from flashrt_core.bench.facts import Nvml, commit, gpu_facts, today
from flashrt_core.bench.random_model import prompt_of, size_named, write_random


class Peak:
    """The most device memory in use while it is entered, above what was in use at the start."""

    def __init__(self) -> None:
        try:
            self._nvml: Nvml | None = Nvml()
        except OSError:
            self._nvml = None
        self.before = self.bytes = self._used()
        self._stop = threading.Event()

    def _used(self) -> int:
        return self._nvml.used_bytes() if self._nvml else 0

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.bytes = max(self.bytes, self._used())

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, self._used())


def start(folder: Path, precision: str, hardware: str, caches: Path, calls: int) -> dict[str, Any]:
    """Load, calibrate if needed, capture, first predict; then `calls` more, during which nothing may be allocated."""
    from flashrt_core import load_model
    from flashrt_core.bench.run import tensor_bytes

    phases: list[tuple[str, float]] = []
    rng = np.random.default_rng(0)
    with Peak() as peak:
        begin = time.perf_counter()
        model = load_model(
            folder, hardware=hardware, use_fp8=precision == "fp8", calibration_dir=caches / "calibration",
            autotune_dir=caches / "autotune", progress=lambda text: phases.append((text, time.perf_counter() - begin)),
        )  # fmt: skip
        pipe = model._pipe
        side = pipe.dims.vision.image_size
        looks = [rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8) for _ in range(2)]
        cached = pipe.calibrated
        first = model.predict(list(looks[0]), prompt_of(pipe.dims.prompt_capacity), np.zeros(pipe.profile.state_dim), seed=0)
        seconds = time.perf_counter() - begin
    runtime = getattr(pipe.machine.ctx, "runtime", None)
    free = runtime.free_bytes() if runtime else 0
    for i in range(calls):
        model.predict(list(looks[i % 2]), seed=0)
    grown = free - runtime.free_bytes() if runtime else 0
    weights = tensor_bytes(pipe._program_served.tensors)
    file = (folder / "model.safetensors").stat().st_size
    return {
        "precision": precision, "hardware": model.hardware, "start_s": round(seconds, 2), "calibration_cached": cached,
        "phases": [[text, round(at, 3)] for text, at in phases], "finite": bool(np.isfinite(first).all()),
        "peak_gib": round((peak.bytes - peak.before) / 2**30, 3), "steady_gib": round((peak._used() - peak.before) / 2**30, 3),
        "weights_gib": round(weights / 2**30, 3), "file_gib": round(file / 2**30, 3),
        "allowed_gib": round(1.3 * weights / 2**30 + 1, 3), "grown_bytes": grown, "calls": calls,
        "commit": commit(), "date": today(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write a checkpoint of random weights and stop")
    parser.add_argument("--size", default="full", help="of the written one: full, demo or tiny")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp8"), default="fp8")
    parser.add_argument("--hardware", default="auto")
    parser.add_argument("--caches", type=Path, help="where calibration and autotune are kept (default: DIR/caches)")
    parser.add_argument("--calls", type=int, default=100, help="calls after the first, during which nothing may be allocated")
    parser.add_argument("--out", type=Path, help="append the figures to this result file")
    args = parser.parse_args()
    if args.write:
        sys.stdout.write(f"{write_random(args.write, size_named(args.size)) / 2**30:.2f} GiB in {args.write}\n")
        return 0
    if args.folder is None:
        parser.error("a checkpoint folder, or --write DIR")
    with open(args.folder / "model.safetensors", "rb", buffering=0) as file:
        while file.read(64 << 20):
            pass
    row = start(args.folder, args.precision, args.hardware, args.caches or args.folder / "caches", args.calls)
    sys.stdout.write(json.dumps(row, indent=1) + "\n")
    if args.out:
        data = json.loads(args.out.read_text()) if args.out.exists() else {"gpu": gpu_facts(), "rows": []}
        data["rows"].append(row)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(data, indent=1) + "\n")
    return 0 if row["finite"] and row["grown_bytes"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
