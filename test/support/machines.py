"""Which machines the tests can run on here: the host always, a GPU when it and the built kernels are there."""

from __future__ import annotations

import functools

import torch

from flashrt_core.errors import FlashRTError
from flashrt_core.hardware.host.machine import HostMachine


@functools.cache
def hopper_missing() -> str:
    """Why there is no Hopper machine here; "" when there is one."""
    try:
        machine("hopper")
    except FlashRTError as error:
        return str(error)
    return ""


@functools.cache
def machine(name: str):
    """The machine of this name, made once."""
    if name == "host":
        return HostMachine()
    from flashrt_core.hardware.hopper.machine import HopperMachine

    return HopperMachine()


MACHINES = ["host"] if hopper_missing() else ["host", "hopper"]


def device_of(name: str) -> str:
    return "cpu" if name == "host" else "cuda"


def ops_here(name: str):
    """Ops that run on stream 0 of the process, in order with PyTorch's."""
    return machine(name).ops


def settle(name: str) -> None:
    """Wait for what was launched."""
    if name != "host":
        torch.cuda.synchronize()
