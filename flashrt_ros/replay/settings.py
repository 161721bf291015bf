"""ReplaySettings: which policy is run over a bag, and how its requests are timed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import to_ns

from ..config.settings import NodeConfig, PolicyConfig, RobotConfig
from ..stack import StackConfig
from ..worker.interface import Script

MAX_SEED = 2**31 - 1
MAX_GAP_S = 3600.0  # inputs of a gap are kept in memory
TICKS_PER_SEED = 1_000_000  # noise of the request at tick k: seed * this + k, so that two replays share it
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\.\.(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Latency:
    """How long a policy call takes in the replay's time, milliseconds.

    "measured": as long as it took here. A number: always that. "40..120": drawn anew for each request between the two,
    from the seed.
    """

    text: str = "0"

    def __post_init__(self) -> None:
        low, high = self.bounds_ms or (0.0, 0.0)
        if not 0 <= low <= high <= 60_000:
            raise ConfigError("latency", expected="0..60000 ms, the smaller one first", found=self.text)

    @property
    def measured(self) -> bool:
        return self.text == "measured"

    @property
    def bounds_ms(self) -> tuple[float, float] | None:
        """Smallest and largest; None when measured."""
        if self.measured:
            return None
        found = _RANGE.fullmatch(self.text)
        if found:
            return float(found[1]), float(found[2])
        try:
            return float(self.text), float(self.text)
        except ValueError:
            raise ConfigError(
                "latency", expected="measured, a number of ms or a range as 40..120", found=ascii(self.text)[:80]
            ) from None

    def seconds(self, seed: int) -> Callable[[int], float]:
        """Latency of request 0, 1, ... of one bag; the numbers depend on `seed` alone. Not for "measured"."""
        low, high = (ms / 1e3 for ms in self.bounds_ms)
        if low == high:
            return lambda number: low
        rng, drawn = np.random.default_rng(seed), []

        def draw(number: int) -> float:
            while len(drawn) <= number:
                drawn.append(float(rng.uniform(low, high)))
            return drawn[number]

        return draw


@dataclass(frozen=True)
class ReplaySettings:
    """Everything that decides what a replay says about a bag.

    node: name of the policy node, for topics that begin with ~. command_topic: where the recorded commands are, empty: the
    robot's forward topic. gap_s: a pause this long between two recorded commands ends an episode. threads: of PyTorch.
    first_frames: requests whose images go into the report. script: play this instead of a policy.
    """

    robot: RobotConfig
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    node: NodeConfig = field(default_factory=NodeConfig)
    latency: Latency = Latency()
    seed: int = 0
    node_name: str = "policy_node"
    command_topic: str = ""
    gap_s: float = 0.5
    threads: int = 1
    first_frames: int = 4
    allow_loss: bool = False
    script: Script | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError("seed", expected=f"0..{MAX_SEED}", found=self.seed)
        if not 1 <= self.threads <= 256:
            raise ConfigError("threads", expected="1..256", found=self.threads)
        if not 2 * self.node.period_s <= self.gap_s <= MAX_GAP_S:
            expected = f"{2 * self.node.period_s:g} s (two periods) to {MAX_GAP_S:g} s"
            raise ConfigError("gap", expected=expected, found=self.gap_s)
        self.node.check_robot(self.robot)

    @property
    def period_ns(self) -> int:
        return to_ns(self.node.period_s)

    def stack(self) -> StackConfig:
        """The configuration that the node would have, the model in this process."""
        return StackConfig(self.robot, self.policy, self.node, self.script)

    def noise_seed(self, tick: int) -> int:
        """Seed of the policy's noise for a request at tick `tick` of the bag."""
        return self.seed * TICKS_PER_SEED + tick
