"""What an evaluation runs: conditions, tasks and trials, in units that one simulator goes through in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from flashrt_core.errors import ConfigError, nearest
from flashrt_core.runtime.chunk import SPLICES

from ...evaluation.closed_loop import LoopSettings
from .env_client import SimulatorSpec
from .protocol import DEMONSTRATIONS, SUITES

SYNC = "sync"
STRATEGIES = (SYNC, *SPLICES)


@dataclass(frozen=True)
class Condition:
    """How the loop is closed: "sync" or a splice strategy, and the latency added to each policy call."""

    splice: str = SYNC
    latency_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.splice not in STRATEGIES:
            raise ConfigError("splice", found=repr(self.splice), hint=nearest(str(self.splice), STRATEGIES))

    def loop(self, replan_ticks: int, realtime: bool = False) -> LoopSettings:
        """Raises ConfigError for values out of range."""
        sync = self.splice == SYNC
        return LoopSettings(
            splice="none" if sync else self.splice, latency_ms=self.latency_ms, realtime=realtime,
            replan_ticks=replan_ticks, sync=sync,
        )  # fmt: skip

    @property
    def name(self) -> str:
        return f"{self.splice}-{self.latency_ms:g}ms"


@dataclass(frozen=True, order=True)
class Job:
    """One episode."""

    condition: Condition
    task: int
    trial: int

    @property
    def key(self) -> tuple[str, float, int, int]:
        return self.condition.splice, self.condition.latency_ms, self.task, self.trial

    @property
    def file_stem(self) -> str:
        return f"{self.condition.name}_task{self.task}_trial{self.trial}"

    def seed(self, run_seed: int) -> int:
        """Of the policy's noise; the same in every condition."""
        return run_seed * 1_000_000 + self.task * 1_000 + self.trial


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation.

    simulator: suite, protocol and how it runs. policy: name in policies.POLICIES; checkpoint: its folder; worker: more
    fields of a WorkerSpec. tasks: numbers. episodes: trials per task. seed: of the run. replan_ticks: None: the
    protocol's. realtime: pace ticks by the wall clock. workers: simulators at a time. via: how simulator and policy are
    joined, in words.
    """

    simulator: SimulatorSpec
    policy: str
    tasks: tuple[int, ...]
    episodes: int
    seed: int
    checkpoint: str | None = None
    worker: tuple[tuple[str, object], ...] = ()
    conditions: tuple[Condition, ...] = (Condition(),)
    replan_ticks: int | None = None
    realtime: bool = False
    workers: int = 1
    via: str = "inprocess"

    def __post_init__(self) -> None:
        count = SUITES[self.simulator.suite]
        if not self.tasks or len(set(self.tasks)) != len(self.tasks) or not all(0 <= t < count for t in self.tasks):
            raise ConfigError("tasks", expected=f"different numbers in 0..{count - 1}", found=list(self.tasks))
        for name, low, high in (("episodes", 1, 1000), ("seed", 0, 2**20), ("workers", 1, 256)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(name, expected=f"{low}..{high}", found=getattr(self, name))
        if len(set(self.conditions)) != len(self.conditions) or not self.conditions:
            raise ConfigError("conditions", expected="each once", found=[c.name for c in self.conditions])
        if self.realtime and self.workers > 1:
            raise ConfigError("workers", expected="1 with realtime: episodes would disturb each other's ticks", found=self.workers)
        if self.policy == "demo-replay":
            have = DEMONSTRATIONS.get(self.simulator.suite, 0)
            if not have:
                raise ConfigError(
                    "policy demo-replay", expected=f"a suite with demonstrations: {', '.join(DEMONSTRATIONS)}",
                    found=self.simulator.suite,
                )  # fmt: skip
            if self.episodes > have:  # a second replay of the same recording is no second trial
                raise ConfigError("episodes", expected=f"1..{have}: each demonstration is replayed once", found=self.episodes)
        for condition in self.conditions:
            condition.loop(self.replan, self.realtime)  # its own checks

    @property
    def replan(self) -> int:
        return self.simulator.protocol.replan_steps if self.replan_ticks is None else self.replan_ticks

    @cached_property
    def checkpoint_sha256(self) -> str | None:
        """Of all bytes of the checkpoint's weights. Raises ConfigError where there is none."""
        if self.checkpoint is None:
            return None
        from flashrt_core.inspect import inspect_checkpoint

        report = inspect_checkpoint(self.checkpoint)
        if "digest" not in report:
            raise ConfigError("--checkpoint", expected="a checkpoint folder", found=report["problems"][0])
        return str(report["digest"])

    def jobs(self) -> list[Job]:
        """Every episode, trials of a task in a row."""
        return [Job(c, t, k) for c in self.conditions for t in self.tasks for k in range(self.episodes)]

    def identity(self) -> dict[str, object]:
        """What two runs must have in common for their episodes to go into one file: all that success may depend on."""
        protocol = asdict(self.simulator.protocol)
        return {
            "suite": self.simulator.suite, "protocol": protocol, "policy": self.policy,
            "checkpoint": None if self.checkpoint is None else Path(self.checkpoint).name,
            "checkpoint_sha256": self.checkpoint_sha256, "worker": None if self.checkpoint is None else dict(self.worker),
            "seed": self.seed, "replan_ticks": self.replan, "realtime": self.realtime, "gl": self.simulator.gl, "via": self.via,
        }  # fmt: skip


def parse_tasks(text: str | None, suite: str) -> tuple[int, ...]:
    """"0-3,7" -> 0, 1, 2, 3, 7. None: all. Raises ConfigError."""
    if text is None:
        return tuple(range(SUITES[suite]))
    numbers: list[int] = []
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(word) > 9:
            raise ConfigError("tasks", expected="numbers such as 0-3,7", found=ascii(text)[:60])
        numbers += range(int(first), int(last if dash else first) + 1)
    return tuple(numbers)


def units(jobs: Sequence[Job], plan: EvaluationPlan) -> list[list[Job]]:
    """Jobs in groups that go to one simulator each. Trials of a task stay together where a trial is preceded by the
    resets of those before it (openpi's seeding), unless there are fewer tasks than simulators."""
    protocol = plan.simulator.protocol
    if plan.simulator.suite == "robosuite_lift" or protocol.seed_each_episode:
        return [[job] for job in jobs]
    groups: dict[tuple[Condition, int], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.condition, job.task), []).append(job)
    pieces = -(-plan.workers // max(1, len(groups)))
    return [
        group[at : at + -(-len(group) // pieces)]
        for group in groups.values()
        for at in range(0, len(group), -(-len(group) // pieces))
    ]
