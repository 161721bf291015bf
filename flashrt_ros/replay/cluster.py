"""A folder of bags over a Ray cluster: one task a bag, the same function and the same results as on one machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

from flashrt_core.errors import ConfigError, DeviceError

from .outcome import BagOutcome
from .run import BagJob, Player
from .settings import ReplaySettings

LOCAL = "local"  # a cluster of this machine's cores, started for this replay and ended with it


def play_on_cluster(
    jobs: Sequence[BagJob], settings: ReplaySettings, address: str, progress: Callable[[str], None]
) -> Iterator[BagOutcome]:
    """Outcomes in the order of `jobs`. address: as of `ray_cluster`. Bags, checkpoint and output folder must be at the same
    paths on every node. Raises ConfigError without Ray, DeviceError when the cluster cannot be reached."""
    with ray_cluster(address, progress) as ray:
        task = ray.remote(num_cpus=settings.threads)(play_one)
        shared = ray.put(settings)
        for reference in [task.remote(job, shared) for job in jobs]:
            yield ray.get(reference)


@contextmanager
def ray_cluster(address: str, progress: Callable[[str], None]) -> Iterator[ModuleType]:
    """The module `ray`, connected, and disconnected at the end. address: of a running cluster, "auto" for the one that this
    machine belongs to, or LOCAL. Raises ConfigError without Ray, DeviceError when the cluster cannot be reached."""
    if find_spec("ray") is None:
        raise ConfigError(
            "ray", expected="the package of the ray extra", found="none", hint="In the checkout, run: pip install -e '.[ray]'"
        )
    import ray

    progress(f"connecting to Ray at {address}")
    try:
        ray.init(
            address=None if address == LOCAL else address, include_dashboard=False, log_to_driver=False,
            configure_logging=False,
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DeviceError("Ray", expected=f"a cluster at {address}", found=str(error).splitlines()[0]) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def play_one(job: BagJob, settings: ReplaySettings) -> BagOutcome:
    """Load the policy and play one bag. A task reads in its own process: a cluster has a core for each task."""
    player = Player(settings)
    try:
        return player.play(job, inline=True)
    finally:
        player.close()
