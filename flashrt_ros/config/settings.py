"""The configuration of the policy and the node, next to that of the robot: frozen dataclasses that refuse what cannot work.

Every field says its unit, range and whether it may change at run time (`option.py`); YAML files (`config_file.py`) and
ROS parameters are both made from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from flashrt_core.errors import ConfigError, ObservationError
from flashrt_core.inputs import clean_prompt
from flashrt_core.runtime.chunk import SPLICES
from flashrt_core.runtime.rtc import RTCConfig

from .option import check_options, option
from .robot_config import (
    ActionDim,
    CameraConfig,
    RobotConfig,
    SafetyConfig,
    StateDim,
    TopicsConfig,
    check_unique,
)

__all__ = [
    "OUTPUTS", "ActionDim", "CameraConfig", "NodeConfig", "PolicyConfig", "RobotConfig", "SafetyConfig", "StateDim",
    "TopicsConfig",
]  # fmt: skip

OUTPUTS = ("chunk", "trajectory", "forward")


@dataclass(frozen=True)
class PolicyConfig:
    """Which policy is loaded, and how."""

    checkpoint: str = option("", "checkpoint folder; empty: the bundled policy")
    model: str = option("pi05", "model family")
    profile: str = option("", "profile name or file; empty: what the checkpoint says")
    framework: str = option("torch", "which frontend loads the weights", choices=("torch", "jax"))
    hardware: str = option("auto", "auto, host (CPU) or an arch string")
    precision: str = option(
        "auto",
        "auto: the hardware's best; fp8: static FP8 (emulated on host); full: no FP8",
        choices=("auto", "fp8", "full"),
    )
    num_steps: int = option(0, "denoise steps; 0: the profile's", low=0, high=1000)
    allow_unverified: bool = option(False, "load although the manifest does not match; shown in the status")
    seed: int = option(0, "of the model's noise", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check_options(self)

    def load_options(self) -> dict[str, object]:
        """Keyword arguments for `flashrt_core.load_model`, without the checkpoint and the number of views."""
        return {
            "config": self.model, "framework": self.framework, "hardware": self.hardware,
            "use_fp8": {"auto": None, "fp8": True, "full": False}[self.precision],
            "num_steps": self.num_steps or None, "profile": self.profile or None,
            "allow_unverified": self.allow_unverified, "seed": self.seed,
        }  # fmt: skip


@dataclass(frozen=True)
class NodeConfig:
    """How the node runs: rate, splicing, worker, outputs."""

    control_hz: float = option(50.0, "rate of commands", unit="Hz", low=1.0, high=1000.0)
    prompt: str = option("", "the task in words; also settable by topic", read_only=False)
    # None, as `flashrt demo`: blending serves a chunk that was computed from an older observation for longer. Over DDS, on the
    # same seeds in lockstep, the bundled policy solved 6 of 6 in 23-53 steps with none and 5 of 6 in 29-55 with quintic over 5
    # ticks. Guard and max_disagreement bound the step at a switch; quintic is for policies whose chunks disagree.
    splice: str = option("none", "how a new chunk joins the running one", choices=tuple(SPLICES), read_only=False)
    blend_ticks: int = option(5, "periods over which chunks are blended; 0: as far as the old one reaches",
                              low=0, high=1000, read_only=False)  # fmt: skip
    replan_ticks: int = option(0, "executed actions before the next request; 0: half the chunk", low=0, high=10000)
    outputs: tuple[str, ...] = option(("chunk", "forward"), "what is published", choices=OUTPUTS)
    worker: str = option("subprocess", "where the model runs", choices=("subprocess", "inprocess"))
    worker_timeout_s: float = option(
        0.0, "a request longer than this is a hang; 0: 2.5 x P99, at least 0.5 s", unit="s", low=0.0, high=600.0
    )
    max_respawns: int = option(2, "worker restarts within a minute before stopping", low=0, high=100)
    status_hz: float = option(2.0, "rate of status messages besides changes", unit="Hz", low=1.0, high=50.0)
    max_held_s: float = option(0.0, "a hold this long stops; 0: no such rule", unit="s", low=0.0, high=3600.0)
    lockstep: bool = option(
        False, "simulated time only: each tick waits for the inputs of its moment and for the policy, so that a simulation "
        "that waits for commands gets the same actions at any speed",
    )  # fmt: skip
    hold_on_bond_loss: bool = option(False, "hold when the lifecycle manager dies (F73)")

    def __post_init__(self) -> None:
        check_options(self)
        if not self.outputs:
            raise ConfigError("NodeConfig.outputs", expected="at least one", found="none")
        check_unique("NodeConfig.outputs", list(self.outputs))
        if self.prompt:
            try:
                clean_prompt(self.prompt)
            except ObservationError as error:
                raise ConfigError("NodeConfig.prompt", expected=error.expected, found=error.found) from None

    @property
    def period_s(self) -> float:
        return 1.0 / self.control_hz

    def check_robot(self, robot: RobotConfig) -> None:
        """Refuse a rate that is not that of the robot's actions: rows of a chunk are one period each."""
        if self.control_hz != robot.control_hz:
            raise ConfigError(
                "control_hz", expected=f"{robot.control_hz:g}, the rate of robot {robot.name}'s actions",
                found=f"{self.control_hz:g}",
            )  # fmt: skip

    def runner_config(self, robot: RobotConfig) -> RTCConfig:
        """The chunk runner's settings for this robot."""

        def limits(name: str) -> tuple[float, ...] | None:
            values = [getattr(d, name) for d in robot.actions]
            # The runner wants numbers; "no limit" next to limited ones is a limit that no command reaches.
            return None if all(v is None for v in values) else tuple(1e9 if v is None else v for v in values)

        return RTCConfig(
            target_hz=self.control_hz, splice=self.splice,
            blend_steps=self.blend_ticks if self.splice in ("linear", "quintic") else 0,
            start_next_at=self.replan_ticks or None,
            delta_dims=robot.dims("delta"), discrete_dims=robot.dims("discrete"),
            v_max=limits("v_max"), a_max=limits("a_max"),
            max_disagreement=robot.safety.max_disagreement,
            max_held=round(self.max_held_s * self.control_hz) or None,
            max_tick_gap_s=max(0.25, 5 * self.period_s),
        )  # fmt: skip
