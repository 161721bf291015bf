"""CUDA capture over a made-up runtime: one retry when something outside spoils it (F37), and nothing left behind."""

from __future__ import annotations

import logging

import pytest

from flashrt_core.core.cuda_graph import CudaCallError
from flashrt_core.errors import DeviceError
from flashrt_core.runtime.exec_cuda import CudaCtx
from flashrt_core.runtime.exec_status import CAPTURE, ExecError

INVALIDATED, UNSUPPORTED, OTHER = 901, 900, 700


class Runtime:
    """Counts what is begun and ended; `fail` holds the error code of each end_capture, 0 for none."""

    def __init__(self, *fail: int):
        self.fail, self.begun, self.ended, self.calls = list(fail), 0, 0, []

    def stream(self, priority: int = 0) -> int:
        return 77

    def begin_capture(self, stream: int) -> None:
        self.begun += 1

    def end_capture(self, stream: int) -> tuple[int, int]:
        code = self.fail.pop(0) if self.fail else 0
        if code:
            raise CudaCallError("cudaStreamEndCapture", code, "made up")
        self.ended += 1
        return 5, 3

    def abort_capture(self, stream: int) -> None:
        self.ended += 1

    def call(self, name: str, *args: object) -> None:
        self.calls.append(name)

    def release(self, name: str, handle: int) -> None:
        self.calls.append(name)


@pytest.mark.parametrize("code", [INVALIDATED, UNSUPPORTED])
def test_F37_a_spoilt_capture_is_made_once_more(code: int, caplog) -> None:
    runtime, seen = Runtime(code), []
    graph = CudaCtx(runtime).graph("g")
    with caplog.at_level(logging.WARNING):
        graph.capture(0, seen.append)
    assert seen == [77, 77] and graph.captured(0).nodes == 3 and runtime.begun == runtime.ended == 2
    assert "once more" in caplog.text


def test_F37_twice_spoilt_is_a_device_error_and_nothing_is_kept() -> None:
    ctx = CudaCtx(Runtime(INVALIDATED, INVALIDATED))
    graph = ctx.graph("g")
    with pytest.raises(ExecError) as e:
        graph.capture(0, lambda stream: None)
    assert e.value.rc == CAPTURE and isinstance(e.value, DeviceError) and "901" in str(e.value)
    assert not graph.has_variant(0) and ctx.recorder is None and ctx.runtime.begun == ctx.runtime.ended


def test_another_error_is_not_tried_again() -> None:
    seen: list[int] = []
    graph = CudaCtx(Runtime(OTHER)).graph("g")
    with pytest.raises(ExecError):
        graph.capture(0, seen.append)
    assert len(seen) == 1


@pytest.mark.parametrize(("first", "attempts"), [("cudaErrorStreamCaptureInvalidated", 2), ("cudaErrorLaunchFailure", 1)])
def test_an_op_s_own_error_comes_out_as_it_is(first: str, attempts: int) -> None:
    seen: list[int] = []

    def record(stream: int) -> None:
        seen.append(stream)
        raise DeviceError("gemm launch", found=first if len(seen) == 1 else "cudaErrorLaunchFailure")

    with pytest.raises(DeviceError, match="LaunchFailure") as e:
        CudaCtx(Runtime()).graph("g").capture(0, record)
    assert len(seen) == attempts and not isinstance(e.value, ExecError)
