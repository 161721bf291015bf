"""What a pipeline launches, as text: every op with its shape and the buffers it works on, over addresses that hold nothing."""

from __future__ import annotations

import bisect
from types import SimpleNamespace
from typing import Any

import torch

from flashrt_core.executors.torch_weights import DictSource
from flashrt_core.frontends.program import Program, Variant
from flashrt_core.frontends.torch._pi05_spec import build_spec
from flashrt_core.frontends.torch.loading import load_tensors
from flashrt_core.hardware.host.machine import HostMachine
from flashrt_core.hardware.slot_attention import SlotAttentionBackend
from flashrt_core.models.pi05 import model
from flashrt_core.ops.check import bind_args, check_args, nbytes
from flashrt_core.ops.schema import Code, Dim, Ptr
from flashrt_core.ops.table import OPS, Epilogue
from flashrt_core.types import DType
from support.checkpoints import TINY, random_tensors, replace_dims

DIMS = replace_dims(TINY, num_steps=2)
INPUTS = ("images.u8", "images.f32", "ids", "prefix_len", "actions", "rope", "scales")  # written before a replay


class Recorder:
    """Ops that check their arguments and note them: launches is [(op name, values)]."""

    # the sizes here are no published ones
    kernels = SimpleNamespace(denoise_loop_fits=lambda *sizes: False, expert_rows_fit=lambda *sizes: False)

    def __init__(self) -> None:
        self.launches: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str):
        op = OPS[name]

        def call(*args: Any, **kwargs: Any) -> None:
            values = bind_args(op, args, kwargs)
            check_args(op, values)
            self.launches.append((name, values))

        return call


class RecordingMachine(HostMachine):
    """Real host memory for weights and buffers, ops that only note what they are asked."""

    arch = "recorded"

    def __init__(self) -> None:
        super().__init__()
        self.ops = Recorder()

    def attention(self, spec: Any, slots: dict[str, dict[str, Any]]) -> SlotAttentionBackend:
        return SlotAttentionBackend(spec, self.ops, slots)


class Recorded:
    """One pipeline with one plan: its launches, and which named memory each address belongs to."""

    def __init__(self, pipeline: Any, plan: Any):
        self.machine = RecordingMachine()
        self.program = Program("golden", self.machine, model, pipeline, DIMS, plan)
        source = DictSource(random_tensors(DIMS, 0))
        spec = build_spec(DIMS, plan, model.embedding_key(source))
        p = self.program
        p.tensors, _ = load_tensors(source, spec, model, DIMS, self.machine)
        p.weights = model.weights_at(p.tensors, DIMS, plan, self.machine.ptr, self.machine.ptr(p.tensors.styles))
        areas = [(b.dptr(), b.nbytes(), name) for name, b in p.buffers.items()]
        areas.append((p.scales.dptr(), p.scales.nbytes(), "scales"))
        for name, value in vars(p.tensors).items():
            for i, t in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(t, torch.Tensor):
                    label = f"w.{name}.{i}" if isinstance(value, list) else f"w.{name}"
                    areas.append((t.data_ptr(), t.numel() * t.element_size(), label))
        self._areas = sorted(areas)
        p.emit(Variant.FULL_U8, self.machine.ops, p.attn, 0)
        self.launches = self.machine.ops.launches

    def area(self, address: int) -> tuple[str, int, int]:
        """(name, offset in it, its size) of the memory that holds an address. AssertionError for a stray one."""
        at = bisect.bisect_right(self._areas, (address, 1 << 62, "")) - 1
        start, size, name = self._areas[at]
        assert 0 <= address - start < size, f"address {address:#x} belongs to nothing (nearest below: {name})"
        return name, address - start, size

    def lines(self) -> list[str]:
        """One line a launch: op, memory by argument, sizes, codes."""
        return [self._line(name, values) for name, values in self.launches]

    def _line(self, name: str, values: dict[str, Any]) -> str:
        words = [name]
        for a in OPS[name].args:
            v = values[a.name]
            if isinstance(a, Ptr):
                if v and (a.optional or a.required(values)):
                    memory, offset, _ = self.area(v)
                    words.append(f"{a.name}={memory}" + (f"+{offset}" if offset else ""))
            elif isinstance(a, Dim):
                words.append(f"{a.name}={v}")
            elif isinstance(a, Code):
                words.append(f"{a.name}={(Epilogue(v) if a.name == 'epilogue' else DType(v)).name.lower()}")
        return " ".join(words)

    def read_before_written(self) -> list[str]:
        """Launches that read memory which is neither an input nor a weight nor an earlier launch's output."""
        written: dict[str, list[tuple[int, int]]] = {}
        bad = []
        for i, (name, values) in enumerate(self.launches):
            for p in OPS[name].ptrs:
                if not values[p.name] or not (p.optional or p.required(values)):
                    continue
                memory, offset, size = self.area(values[p.name])
                end = min(offset + nbytes(p, values), size)  # a strided operand's last row ends before its stride
                if p.role != "out" and not memory.startswith("w.") and memory not in INPUTS:
                    if not any(start <= offset < stop for start, stop in written.get(memory, [])):
                        bad.append(f"launch {i}, {name}: {p.name} reads {memory}+{offset}, which nothing has written")
                if p.role != "in":
                    written.setdefault(memory, []).append((offset, end))
        return bad
