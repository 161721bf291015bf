"""GPUs that run the portable kernels (mma.sync, no clusters, no copy engine): SM 87, 89, 110, 120.

The library chooses those kernels by compute capability, so the same code runs on a newer GPU when it is told to act as an
older one: that is how an SM90 tests them. On the GPUs themselves this was compiled, not run.
"""

from __future__ import annotations

from ..hopper.machine import HopperMachine


class Sm89Machine(HopperMachine):
    """RTX 4090 class; also any newer GPU that is asked for `rtx_sm89` by name."""

    arch, gpus = "rtx_sm89", ()
    acts_as = 89


class Sm120Machine(HopperMachine):
    """RTX 5090 class."""

    arch, gpus = "rtx_sm120", ("120", "121")


class OrinMachine(HopperMachine):
    """Jetson AGX Orin; also any newer GPU that is asked for `rtx_sm87` by name. No FP8 units."""

    arch, gpus = "rtx_sm87", ()
    acts_as = 87


class ThorMachine(HopperMachine):
    """Jetson AGX Thor."""

    arch, gpus = "thor", ("110",)
