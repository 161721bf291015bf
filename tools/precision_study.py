"""What FP8 costs in precision, GEMM by GEMM, at full size and on a CPU: one forward per case, rounding emulated.

    python tools/precision_study.py --out bench/results/precision_study.json     # 10 GB of memory, an hour on 2 cores
    python tools/precision_study.py --size demo                                  # seconds, to try it out

Weights are random (bench/random_weights.py), kept in BF16 and brought to fp32 one GEMM at a time; what is not said to be rounded is
fp32. Each case is compared with the same forward unrounded: 1 - cosine of the normalised actions, over observations that were not
used for calibration and three noises each. "keeping" rounds weights as the loader does, with means that were measured in a run with
weights rounded to nearest, "nearest" without.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from flashrt_core.bench.facts import commit, cpu_name, today
from flashrt_core.bench.measure import cosine
from flashrt_core.bench.random_model import RandomCheckpoint, prompt_of, size_named
from flashrt_core.blocks.plan import BF16_STAGE, FP32, Plan
from flashrt_core.core.tokenizer import load_tokenizer
from flashrt_core.executors.torch_rounding import round_to_e4m3
from flashrt_core.frontends.program import Program, Variant
from flashrt_core.frontends.torch.loading import load_torch_weights
from flashrt_core.frontends.torch.pi05_host import Pi05TorchFrontendHost
from flashrt_core.hardware.host.machine import HostMachine
from flashrt_core.hardware.host.ops import tensor_at
from flashrt_core.models.pi05 import model, pipeline_host
from flashrt_core.ops.check import bind_args
from flashrt_core.ops.table import OPS
from flashrt_core.types import F32

STORED = Plan(vision=BF16_STAGE, encoder=BF16_STAGE, decoder=BF16_STAGE)
EXACT = Plan(vision=FP32, encoder=FP32, decoder=FP32)
STAGES = {"vis": "vision", "enc": "encoder", "dec": "decoder"}
LAYERED = {
    "vis": ("qkv", "o", "fc1", "fc2"), "enc": ("qkv", "o", "gate_up", "down"), "dec": ("qkv", "o", "gate_up", "down"),
}  # fmt: skip
NOISES = 3


@dataclass(frozen=True)
class Case:
    """gemms: those that are rounded. what: "a" activations, "w" weights, or both. keeping: see above."""

    name: str
    gemms: tuple[str, ...]
    what: str = "aw"
    keeping: bool = False


def all_cases(gemms: Sequence[str]) -> Iterator[Case]:
    stages = {stage: tuple(g for g in gemms if g.startswith(stage)) for stage in STAGES.values()}
    everything = tuple(gemms)
    shipped = tuple(g for g in gemms if g != "vision.o")
    for keeping in (False, True):
        yield Case("all", everything, keeping=keeping)
        yield Case("all but vision.o (shipped)" if keeping else "all but vision.o", shipped, keeping=keeping)
        yield from (Case(stage, of, keeping=keeping) for stage, of in stages.items())
        yield Case("all weights", everything, "w", keeping)
    yield Case("all activations", everything, "a")
    yield from (Case(gemm, (gemm,), keeping=True) for gemm in gemms)


@dataclass
class RoundedOps:
    """Host ops whose GEMMs take fp32 activations and BF16 weights, and round what the case says."""

    ops: Any
    names: dict[int, str]  # weight address -> "vision.o"; "" is never rounded
    weights: dict[int, torch.Tensor]
    case: Case = Case("nothing", ())
    means: dict[int, torch.Tensor] = field(default_factory=dict)
    sums: dict[int, list[Any]] | None = None  # [sum of rows, rows] by weight while means are collected
    _codes: dict[tuple[int, bool], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)

    def gemm(self, **arguments: Any) -> None:
        v = bind_args(OPS["gemm"], (), arguments)
        at = v["w"]
        if at not in self.names:
            self.ops.gemm(**v)
            return
        a, w = tensor_at(v["a"], (v["M"], v["K"]), F32), self.weights[at]
        rounded = self.names[at] in self.case.gemms
        if self.sums is not None:
            entry = self.sums.setdefault(at, [0.0, 0])
            entry[:] = [entry[0] + a.sum(0), entry[1] + v["M"]]
        if rounded and "a" in self.case.what:
            a = decoded(*coded(a, None))
        wide = decoded(*self._coded_weight(at, w)) if rounded and "w" in self.case.what else w.float()
        self.ops.gemm(**{**v, "a": a.data_ptr(), "w": wide.data_ptr(), "a_dtype": F32, "a_scale": 0, "w_scale": 0})

    def _coded_weight(self, at: int, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keeping = self.case.keeping
        if (at, keeping) not in self._codes:
            self._codes.pop((at, not keeping), None)  # one set of codes fits, two do not
            self._codes[at, keeping] = coded(w.float(), self.means[at] if keeping else None)
        return self._codes[at, keeping]


def coded(x: torch.Tensor, mean: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, scale) with the scale that the largest value needs."""
    scale = x.abs().max().clamp(min=1e-12) / 448
    return round_to_e4m3(x / scale, mean), scale


def decoded(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return codes.float().mul_(scale)


class Study:
    """A model of random weights, its calibration means, and the forward of a case."""

    def __init__(self, size: str, place: Path):
        self.dims = size_named(size)
        checkpoint, machine = RandomCheckpoint(place, self.dims), HostMachine()
        frontend = SimpleNamespace(
            MODEL=model, SPEC=Pi05TorchFrontendHost.SPEC, dims=self.dims, machine=machine, checkpoint=checkpoint,
            profile=model.load_profile(place, None),
        )  # fmt: skip
        self.program = p = Program("study", machine, model, pipeline_host, self.dims, EXACT)
        p.tensors, _ = load_torch_weights(frontend, STORED)
        p.tensors.positions = p.tensors.positions.float()  # a residual, read as the stream is kept
        p.weights = model.weights_at(p.tensors, self.dims, STORED, machine.ptr, machine.ptr(p.tensors.styles))
        tokenizer = load_tokenizer(place, expected_vocab=self.dims.vocab_size, path=None)
        self.ids = model.tokenize(prompt_of(self.dims.prompt_capacity), None, tokenizer, self.dims.prompt_capacity)
        names, weights = {}, {}
        for name, tensor in self._weights():
            names[tensor.data_ptr()], weights[tensor.data_ptr()] = name, tensor
        self.gemms = tuple(dict.fromkeys(name for name in names.values() if name))
        self.ops = RoundedOps(machine.ops, names, weights)
        self.attn = machine.with_ops(p.attn, self.ops)

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        t = self.program.tensors
        for stage, gemms in LAYERED.items():
            for gemm in gemms:
                yield from ((f"{STAGES[stage]}.{gemm}", tensor) for tensor in getattr(t, f"{stage}_{gemm}_w"))
        yield "vision.proj", t.proj_w
        yield "encoder.qkv", t.enc_last_kv_w
        yield "", t.patch_w

    def actions(self, seed: int, case: Case) -> np.ndarray:
        """Normalised actions [NOISES, horizon, action_dim] of one observation."""
        rng, side = np.random.default_rng(seed), self.dims.vision.image_size
        images = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(self.dims.num_views)]
        self.ops.case, out = case, []
        for variant in (Variant.FULL_U8, *[Variant.CACHED] * (NOISES - 1)):
            noise = rng.standard_normal((self.dims.horizon, self.dims.action_dim), dtype=np.float32)
            self.program.write(images if variant == Variant.FULL_U8 else None, self.ids, noise)
            self.program.emit(variant, self.ops, self.attn, 0, pipeline_host.denoise)
            out.append(self.program.output().copy())
        return np.stack(out)

    def collect_means(self, seeds: Sequence[int]) -> None:
        self.ops.sums = {}
        for seed in seeds:
            self.actions(seed, Case("nearest", self.gemms))
        self.ops.means = {at: total / rows for at, (total, rows) in self.ops.sums.items()}
        self.ops.sums = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="full", help="full, demo or tiny")
    parser.add_argument("--observations", type=int, default=2, help="compared, with three noises each")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name starts so")
    parser.add_argument("--out", type=Path, help="write the figures to this result file")
    args = parser.parse_args()
    with TemporaryDirectory() as place:
        study = Study(args.size, Path(place))
        seeds = range(100, 100 + args.observations)
        exact = {seed: study.actions(seed, Case("nothing", ())) for seed in seeds}
        study.collect_means([0, 1])
        rows = []
        for case in all_cases(study.gemms):
            if args.only and not case.name.startswith(tuple(args.only)):
                continue
            start = time.monotonic()
            errors = [
                1 - cosine(got, want) for seed in seeds for got, want in zip(study.actions(seed, case), exact[seed], strict=True)
            ]
            row = {"case": case.name, "rounding": "keeping" if case.keeping else "nearest",
                   "error": float(np.mean(errors)), "largest": float(max(errors))}  # fmt: skip
            rows.append(row)
            sys.stdout.write(f"{case.name:28} {row['rounding']:8} 1 - cosine {row['error']:.2e}  largest {row['largest']:.2e}"
                             f"  {time.monotonic() - start:.0f} s\n")  # fmt: skip
            sys.stdout.flush()
    if args.out:
        head = {"command": shlex.join(["python", "tools/precision_study.py", *sys.argv[1:]]),
                "cpu": cpu_name(), "size": args.size, "noises": NOISES, "commit": commit(), "date": today()}  # fmt: skip
        args.out.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
