"""PolicyStack: worker, inputs, runner, guard, health and control loop of one configured node; no ROS in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flashrt_core.errors import ConfigError
from flashrt_core.runtime.clock import Clock
from flashrt_core.runtime.rtc import AsyncChunkRunner

from .config.settings import NodeConfig, PolicyConfig, RobotConfig
from .control.guard import Guard
from .control.health import Health
from .control.loop import ControlLoop
from .control.tick_record import Sink
from .evaluation.rollout import checkpoint_folder
from .inputs.observation import ObservationBuilder
from .worker.interface import (
    InProcessWorker,
    PolicyWorker,
    Script,
    SubprocessWorker,
    Supervision,
    WorkerInfo,
    WorkerSpec,
)


@dataclass(frozen=True)
class StackConfig:
    """Everything that configure decides on. script: play this instead of the policy."""

    robot: RobotConfig
    policy: PolicyConfig
    node: NodeConfig
    script: Script | None = None

    def __post_init__(self) -> None:
        self.node.check_robot(self.robot)

    @property
    def policy_name(self) -> str:
        """Folder name of the checkpoint, for the status."""
        return "script" if self.script is not None else checkpoint_folder(self.policy.checkpoint or None).name

    def make_worker(self) -> PolicyWorker:
        """Not started. CheckpointNotFound when there is no such checkpoint."""
        if self.script is not None:
            spec = WorkerSpec(script=self.script)
        else:
            folder = checkpoint_folder(self.policy.checkpoint or None)
            spec = WorkerSpec(
                str(folder), num_views=len(self.robot.cameras), nice=5, **self.policy.load_options()
            )  # nice: the control process goes first where they share a core
        if self.node.worker == "inprocess":
            return InProcessWorker(spec)
        node = self.node
        return SubprocessWorker(
            spec, Supervision(node.period_s, max_respawns=node.max_respawns, timeout_s=node.worker_timeout_s)
        )


class PolicyStack:
    """Made around a worker that is ready. `close` frees everything, the worker too; may be called twice."""

    def __init__(
        self, config: StackConfig, worker: PolicyWorker, info: WorkerInfo, clock: Clock, sinks: Sequence[Sink],
        health: Health,
    ):  # fmt: skip
        """Raises ConfigError when robot and policy do not fit each other (F13)."""
        config.robot.check_policy(info.views, info.state_dim, info.action_dim)
        self.config, self.worker, self.info, self.clock, self.health = config, worker, info, clock, health
        robot, node = config.robot, config.node
        self.observations = ObservationBuilder(
            robot, image_size=info.image_size, clock=clock, views=info.views, prompt=node.prompt
        )
        self.runner = AsyncChunkRunner(worker, node.runner_config(robot), clock=clock)
        guard = Guard(robot, node.period_s)
        self.loop = ControlLoop(robot, self.observations, self.runner, guard, health, sinks, clock, worker)

    def change(self, robot: RobotConfig, node: NodeConfig, *, prompt: bool = False) -> None:
        """Settings that may change at run time: limits, safety, splice, prompt. Raises ConfigError.

        prompt: the prompt was set, be it to what it was: since then another one may have come by topic.
        """
        if robot != self.config.robot:
            self.loop.set_limits(robot)
            wanted = node.runner_config(robot)
            self.runner.reconfigure(v_max=wanted.v_max, a_max=wanted.a_max, max_disagreement=wanted.max_disagreement)
            self.health.auto_resume = robot.safety.auto_resume
        old = self.config.node
        if (node.splice, node.blend_ticks) != (old.splice, old.blend_ticks):
            blends = node.splice in ("linear", "quintic")
            self.loop.set_splice(node.splice, node.blend_ticks if blends else 0)
        if node.prompt and (prompt or node.prompt != old.prompt):
            refused = self.observations.put_prompt(node.prompt)
            if refused is not None:
                raise ConfigError("prompt", found=refused.reason)
        self.config = StackConfig(robot, self.config.policy, node, self.config.script)

    def close(self, timeout_s: float = 5.0) -> None:
        self.runner.close(0.2)
        self.worker.close(timeout_s)


def script_from_json(text: str, parse: Callable[[str], object]) -> Script | None:
    """The parameter `script`: "" for none; ConfigError for what is not a script."""
    if not text:
        return None
    try:
        data = parse(text)
        return Script.from_json(data)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError("script", expected="a script as JSON", found=str(error)[:200]) from None
