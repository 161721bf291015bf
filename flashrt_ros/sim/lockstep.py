"""Episodes of a simulated task against a policy node: one command per control step, one activation per episode.

The simulation does what an operator does: it brings the node to `inactive`, puts the scene and the prompt in place,
activates the node and, at the episode's end, deactivates it. Deactivation discards the chunk under way and activation
starts from the measured state, so no action of one episode reaches the next. The scene stands still until the first
command; from there on every control step executes one command, or holds when none has come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np

from .commands import CommandLedger

GRIPPER_DIM = 6
SHOT_PX = 192


class Stage(str, Enum):
    """PREPARE: node to inactive. SHOW: scene and prompt are shown. START: activating, then waiting for a command.
    RUN: the episode. STOP: deactivating and waiting for the node's own count. DONE: no episode is left."""

    PREPARE = "prepare"
    SHOW = "show"
    START = "start"
    RUN = "run"
    STOP = "stop"
    DONE = "done"


class Operator(Protocol):
    """Drives the lifecycle of the policy node. Nothing here waits."""

    def go(self, state: str) -> None:
        """Begin to bring the node to "inactive" or "active"."""
        ...

    @property
    def arrived(self) -> bool:
        """The node is in the state last asked for, and its status says so."""
        ...

    @property
    def problem(self) -> str | None:
        """Why it cannot get there."""
        ...

    @property
    def commands(self) -> int | None:
        """How many commands the node has published since its activation, by its last status."""
        ...

    @property
    def prompt(self) -> str | None:
        """The task that the node says is in force."""
        ...


@dataclass
class SimEpisode:
    """What one episode was. steps: control steps; missing: of these without a command (zero motion, same gripper).

    commands: what each step executed, float32 [7]; indices: of the commands, None for a held step. sent_ns, received_ns:
    wall clock, per command executed. waited_max: most commands that waited at once. audit: see commands.Audit.
    error: why the episode could not be run, counted apart from failures (F83).
    """

    seed: int
    prompt: str = ""
    success: bool = False
    steps: int = 0
    missing: int = 0
    waited_max: int = 0
    commands: list[list[float]] = field(default_factory=list)
    indices: list[int | None] = field(default_factory=list)
    sent_ns: list[int] = field(default_factory=list)
    received_ns: list[int] = field(default_factory=list)
    audit: dict[str, int | None] = field(default_factory=dict)
    started_ns: int = 0
    ended_ns: int = 0
    error: str | None = None

    def to_json(self) -> dict[str, object]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Settings:
    """show_s: how long a new scene is shown before activation. start_timeout_s: from activation asked for to the first
    command. stop_timeout_s: from the end to the node's own count. prepare_timeout_s: until inactive, configure included."""

    show_s: float = 0.15
    start_timeout_s: float = 20.0
    stop_timeout_s: float = 10.0
    prepare_timeout_s: float = 300.0


class Lockstep:
    """The episodes of `seeds`, one after another. Call `step` once per control step; it never waits.

    env: a TabletopEnv or anything like it. on_scene(episode): a new scene is in place: publish its prompt.
    on_episode(episode): one has ended. on_shot(episode, "first" | "last"): the node is inactive, there is time for a
    picture. now_s: steady seconds.
    """

    def __init__(
        self,
        env,
        ledger: CommandLedger,
        operator: Operator,
        seeds: Sequence[int],
        *,
        settings: Settings = Settings(),
        on_scene: Callable[[SimEpisode], None] = lambda episode: None,
        on_episode: Callable[[SimEpisode], None] = lambda episode: None,
        on_shot: Callable[[SimEpisode, str], None] = lambda episode, when: None,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ):
        self.env, self.ledger, self.operator, self.settings = env, ledger, operator, settings
        self._seeds = list(seeds)
        self._on_scene, self._on_episode, self._on_shot = on_scene, on_episode, on_shot
        self._now_s, self._now_ns = now_s, now_ns
        self.episode: SimEpisode | None = None
        self.fatal: str | None = None
        self._gripper = -1.0
        self._enter(Stage.PREPARE)
        operator.go("inactive")

    @property
    def waiting_for_command(self) -> bool:
        """The next command to come starts the episode."""
        return self.stage is Stage.START

    def step(self) -> None:
        """One control step."""
        getattr(self, f"_{self.stage.value}")()

    # ---- stages

    def _prepare(self) -> None:
        if not self.operator.arrived:
            self._give_up_after(self.settings.prepare_timeout_s, "the node did not become inactive")
            return
        if not self._seeds:
            self._enter(Stage.DONE)
            return
        self.episode = SimEpisode(seed=int(self._seeds.pop(0)))
        try:
            self.env.reset(self.episode.seed)
        except Exception as error:  # the episode's boundary
            self.episode.error = f"{type(error).__name__}: {error}"
            self._on_episode(self.episode)
            return
        self.episode.prompt = self.env.prompt
        self._gripper = -1.0
        self._on_shot(self.episode, "first")
        self._on_scene(self.episode)
        self._enter(Stage.SHOW)

    def _show(self) -> None:
        if self._age_s < self.settings.show_s:
            return
        if not self.operator.arrived:  # it went active by itself (autostart): the operator brings it back
            self._give_up_after(self.settings.prepare_timeout_s, "the node did not stay inactive")
            return
        if self.operator.prompt != self.episode.prompt:
            if self._age_s > self.settings.stop_timeout_s:
                self.fatal = f"the node did not take the prompt {self.episode.prompt!r}"
            return
        self.ledger.begin()
        self.operator.go("active")
        self._enter(Stage.START)

    def _start(self) -> None:
        if self.ledger.waiting:
            self.episode.started_ns = self._now_ns()
            self._enter(Stage.RUN)
            self._run()
        else:
            self._give_up_after(self.settings.start_timeout_s, "no command came after activation")

    def _run(self) -> None:
        episode, env = self.episode, self.env
        episode.waited_max = max(episode.waited_max, self.ledger.waiting)
        command = self.ledger.take()
        if command is None:
            action = np.zeros(7, np.float32)
            action[GRIPPER_DIM] = self._gripper
            episode.missing += 1
        else:
            action = np.clip(np.asarray(command.values, np.float32), -1.0, 1.0)
            self._gripper = float(action[GRIPPER_DIM])
            episode.sent_ns.append(command.sent_ns)
            episode.received_ns.append(command.received_ns)
        episode.indices.append(None if command is None else command.index)
        episode.commands.append([float(x) for x in action])
        try:
            env.step(action)
        except Exception as error:  # the episode's boundary
            self._fail(error)
            return
        episode.steps = int(env.steps)
        if env.success or env.steps >= env.max_steps:
            episode.success = bool(env.success)
            self._end()

    def _stop(self) -> None:
        """The node is inactive and has said how many it published: wait for the last of them, then settle accounts."""
        late = self._age_s > self.settings.stop_timeout_s
        count = self.operator.commands
        if not late and not (self.operator.arrived and count is not None and self.ledger.received >= count):
            if self.operator.problem is not None:
                self.fatal = self.operator.problem
            return
        self.episode.audit = self.ledger.audit(count if self.operator.arrived else None).to_json()
        self._on_shot(self.episode, "last")
        self._on_episode(self.episode)
        self._enter(Stage.PREPARE)

    def _done(self) -> None:
        """Nothing is left to do."""

    # ---- inside

    @property
    def _age_s(self) -> float:
        return self._now_s() - self._since_s

    def _enter(self, stage: Stage) -> None:
        self.stage, self._since_s = stage, self._now_s()

    def _end(self) -> None:
        self.episode.ended_ns = self._now_ns()
        self.ledger.close()
        self.operator.go("inactive")
        self._enter(Stage.STOP)

    def _fail(self, error: Exception) -> None:
        self.episode.error = f"{type(error).__name__}: {error}"
        self._end()

    def _give_up_after(self, seconds: float, reason: str) -> None:
        problem = self.operator.problem
        if problem is not None or self._age_s > seconds:
            self.fatal = problem or f"{reason} within {seconds:g} s"
