"""Slot: one simulator and a policy that run one episode after another; a broken simulator is replaced (F83)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from flashrt_core.errors import ConfigError, DeviceError

from ...evaluation.closed_loop import Episode, run_episode
from .env_client import SimulatorEnv
from .plan import EvaluationPlan, Job
from .policies import Policy

MAX_FAILED_STARTS = 3


@dataclass
class Outcome:
    """An episode and what it cost. Seconds of the wall: the whole, reset with its wait steps, physics, drawing, policy
    (None: not known)."""

    job: Job
    episode: Episode
    task_name: str = ""
    wall_s: float = 0.0
    reset_s: float = 0.0
    physics_s: float = 0.0
    render_s: float = 0.0
    policy_s: float | None = 0.0
    versions: dict[str, str | None] = field(default_factory=dict)


class Slot:
    """Runs jobs with one simulator at a time. Used by one thread, which must live as long as the slot."""

    def __init__(self, plan: EvaluationPlan, policy: Policy, log: Path, number: int = 0):
        self._plan, self._policy = plan, policy
        self._env = SimulatorEnv(plan.simulator, plan.seed, log / f"simulator{number}.log", policy.px)
        self._failed_starts = 0

    def run(self, job: Job) -> Outcome:
        """One episode. Whatever goes wrong in the simulator ends up in `episode.error`, and the next episode gets a new
        simulator; a policy that raised makes its episode an error, too. Raises ConfigError for what no episode can get past,
        DeviceError when simulator or policy do not start any more."""
        self._policy.check()
        start = time.monotonic()
        try:
            process = self._env.open()
            self._failed_starts = 0
        except ConfigError:
            raise
        except DeviceError as error:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise
            return Outcome(job, self._broken(job, error), wall_s=time.monotonic() - start)
        name, versions = process.tasks[job.task][0], process.versions
        start = time.monotonic()
        try:
            episode = self._episode(job)
        except ConfigError:  # of the init states or the policy: the same for every episode
            self.close()
            raise
        except DeviceError as error:
            episode = self._broken(job, error)
        if episode.error is not None:
            self.close()
        elif episode.policy_errors:  # held while the policy was gone: says nothing about the policy
            episode.error = f"{episode.policy_errors} policy calls failed"
        return Outcome(
            job, episode, name, time.monotonic() - start, self._env.reset_s, sum(self._env.step_ms) / 1e3,
            sum(self._env.render_ms) / 1e3, sum(episode.model_ms) / 1e3, versions,
        )  # fmt: skip

    def close(self) -> None:
        """End the simulator."""
        self._env.close()

    def _episode(self, job: Job) -> Episode:
        env, plan = self._env, self._plan
        seed = job.seed(plan.seed)
        env.plan[seed] = (job.task, job.trial, self._policy.demonstration(job.trial))
        predict = self._policy.predictor(env, job.trial)
        return run_episode(env, predict, seed, job.condition.loop(plan.replan, plan.realtime), watch=keep_seen)

    def _broken(self, job: Job, error: Exception) -> Episode:
        return Episode(job.seed(self._plan.seed), self._env.prompt, error=f"{type(error).__name__}: {error}")


def keep_seen(env: SimulatorEnv, obs: dict[str, object] | None, episode: Episode) -> None:
    """A `watch` that keeps the agent view of each observation the policy got: a film that costs no drawing."""
    if obs is not None:
        episode.frames.append(obs["images"][0][:, ::-1])  # a policy's picture is mirrored
