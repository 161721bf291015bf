"""One closed-loop episode: images and a prompt go to the policy, its chunks go through the runner to the arm."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from flashrt_core.errors import ConfigError, nearest
from flashrt_core.runtime.chunk import SPLICES
from flashrt_core.runtime.clock import FakeClock
from flashrt_core.runtime.executor import SimulatedExecutor
from flashrt_core.runtime.rtc import AsyncChunkRunner, RTCConfig

# The task's action: six deltas of one period (three of them unused) and an open/close choice.
DELTA_DIMS = (0, 1, 2, 3, 4, 5)
GRIPPER_DIM = 6
CALLS_PER_EPISODE = 1_000  # seeds of policy calls: episode seed * this + number of the call
Observation = dict[str, object]


@dataclass(frozen=True)
class LoopSettings:
    """How the loop is closed.

    splice: how a new chunk is joined to the running one; blend_ticks: over how many ticks (linear, quintic).
    latency_ms: delay added to each policy call, in simulated time (realtime=False), so that it is the same on any
    machine. realtime: pace ticks by the wall clock with the policy on a thread; its latency is then what it takes.
    replan_ticks: ask for the next chunk after so many executed actions. sync: as the reference evaluations do it: the
    scene stands still while the policy computes, and rows past replan_ticks are thrown away.
    """

    splice: str = "none"
    blend_ticks: int = 3
    latency_ms: float = 0.0
    realtime: bool = False
    replan_ticks: int = 5
    sync: bool = False

    def __post_init__(self) -> None:
        if self.splice not in SPLICES:
            raise ConfigError("splice", found=repr(self.splice), hint=nearest(str(self.splice), SPLICES))
        if not 0 <= self.latency_ms <= 10_000:
            raise ConfigError("latency_ms", expected="0..10000 ms", found=self.latency_ms)
        if self.realtime and self.latency_ms:
            raise ConfigError(
                "latency_ms", expected="0 with realtime: there the real latency counts", found=self.latency_ms
            )
        if not 1 <= self.replan_ticks <= 1000:
            raise ConfigError("replan_ticks", expected="1..1000", found=self.replan_ticks)
        if self.sync and self.splice != "none":
            raise ConfigError("splice", expected="none with sync: one chunk ends before the next begins", found=self.splice)

    def runner_config(self, control_hz: float) -> RTCConfig:
        """The runner's configuration for six deltas and a gripper."""
        waits = {"action_horizon": self.replan_ticks, "miss_policy": "block"} if self.sync else {}
        return RTCConfig(
            **waits,
            target_hz=control_hz,
            splice=self.splice,
            blend_steps=self.blend_ticks if self.splice in ("linear", "quintic") else 0,
            start_next_at=self.replan_ticks,
            delta_dims=DELTA_DIMS,
            discrete_dims=(GRIPPER_DIM,),
        )


@dataclass
class Episode:
    """What one episode was: outcome, commands and how the runner fared.

    commands: float32 [steps, 7] as sent. switch_ticks: rows at which a new chunk took over. executed, elapsed:
    per switch, the row at which the new chunk started and the ticks since its observation. disagreements: D of CB4 per
    switch, action units. tick_misses: ticks without a planned action. model_ms: wall time of each policy call.
    late_ms: lateness of each tick (realtime only). shots: {'first', 'last'} uint8 images, frames: pictures for a film
    (only when asked for). error: why the episode could not be run to its end, counted apart from failures.
    """

    seed: int
    prompt: str
    success: bool = False
    steps: int = 0
    commands: np.ndarray = field(default_factory=lambda: np.zeros((0, 7), np.float32))
    switch_ticks: list[int] = field(default_factory=list)
    executed: list[int] = field(default_factory=list)
    elapsed: list[int] = field(default_factory=list)
    disagreements: list[float | None] = field(default_factory=list)
    tick_misses: int = 0
    policy_errors: int = 0
    model_ms: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)
    shots: dict[str, np.ndarray] = field(default_factory=dict)
    frames: list[np.ndarray] = field(default_factory=list)
    error: str | None = None

    def row(self) -> dict[str, object]:
        """The episode's entry in result.json: nothing that depends on the machine's speed."""
        return {
            "seed": self.seed, "prompt": self.prompt, "success": self.success, "steps": self.steps,
            "chunks": len(self.switch_ticks) + bool(self.steps), "tick_misses": self.tick_misses, "error": self.error,
        }  # fmt: skip


class _SeededPolicy:
    """Adapter of a VLAModel: every call gets its own seed, made of the episode's seed and the number of the call."""

    def __init__(self, predict: Callable[..., np.ndarray], episode: Episode):
        self._predict, self._episode, self._calls = predict, episode, 0

    def infer_actions(self, obs: Observation) -> np.ndarray:
        seed = self._episode.seed * CALLS_PER_EPISODE + self._calls
        self._calls += 1
        start = time.perf_counter()
        actions = self._predict(obs["images"], prompt=obs["prompt"], state=obs["state"], seed=seed)
        self._episode.model_ms.append((time.perf_counter() - start) * 1e3)
        return actions


class _Pace:
    """Time of the control loop: a fake clock that each tick moves by one period, or the wall clock."""

    def __init__(self, settings: LoopSettings, period_s: float):
        self.period_s, self.realtime = period_s, settings.realtime
        self.clock = None if settings.realtime else FakeClock()
        self.executor = None if settings.realtime else SimulatedExecutor(settings.latency_ms / 1e3, self.clock)
        self._next_s: float | None = None

    def tick_done(self, late_ms: list[float]) -> None:
        """Wait for the next tick. A tick that overran its period skips the missed ones: never a burst."""
        if not self.realtime:
            self.clock.advance(self.period_s)
            return
        now = time.monotonic()
        if self._next_s is None or now > self._next_s + self.period_s:
            self._next_s = now
        self._next_s += self.period_s
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        late_ms.append(max(0.0, time.monotonic() - self._next_s) * 1e3)


def run_episode(
    env,
    predict: Callable[..., np.ndarray],
    seed: int,
    settings: LoopSettings = LoopSettings(),
    *,
    change: Callable[[Observation], Observation] | None = None,
    watch: Callable[[object, Observation | None, Episode], None] | None = None,
    shots: bool = False,
) -> Episode:
    """Run episode `seed` of a TabletopEnv to success or to its step limit.

    predict: `VLAModel.predict` or anything with its arguments. change: edits each observation before the policy sees
    it (ablations). watch: called before each step with env, the observation of this tick or None, and the episode.
    shots: keep a picture of the first and the last moment. An error of the environment ends the episode as an error
    (F83); an error of the policy is the runner's to handle and counted.
    """
    env.reset(seed)
    episode = Episode(seed=int(seed), prompt=env.prompt)
    pace = _Pace(settings, 1.0 / env.control_hz)
    config = settings.runner_config(env.control_hz)
    commands: list[np.ndarray] = []
    with AsyncChunkRunner(_SeededPolicy(predict, episode), config, executor=pace.executor, clock=pace.clock) as runner:
        try:
            while not (env.success or env.steps >= env.max_steps):
                obs = _observe(env, change) if runner.wants_observation else None
                if shots and not episode.shots:
                    episode.shots["first"] = env.frame(size=192)
                if watch is not None:
                    watch(env, obs, episode)
                action = runner.next_action(obs)
                if action is None:  # the very first call failed: nothing is known to command
                    raise runner.last_error or RuntimeError("the policy gave no first chunk")
                action = np.clip(np.asarray(action, dtype=np.float32), -1.0, 1.0)  # the action's range: never send more
                commands.append(action)
                env.step(action)
                pace.tick_done(episode.late_ms)
        except Exception as error:  # the episode's boundary: one broken episode does not end a run of 200
            episode.error = f"{type(error).__name__}: {error}"
        _read_runner(runner, episode)
    episode.success, episode.steps = bool(env.success), int(env.steps)
    if commands:
        episode.commands = np.stack(commands)
    if shots:
        episode.shots["last"] = env.frame(size=192)
    return episode


def _observe(env, change: Callable[[Observation], Observation] | None) -> Observation:
    obs = {**env.observe(), "prompt": env.prompt}
    return obs if change is None else change(obs)


def _read_runner(runner: AsyncChunkRunner, episode: Episode) -> None:
    """Take over what the runner counted. A tick without a planned action is a miss, also before the first chunk."""
    stats = runner.stats
    episode.tick_misses = stats.held_actions + stats.empty_ticks
    episode.policy_errors = stats.policy_errors
    for event in runner.events:
        if event.kind == "switch":
            episode.switch_ticks.append(event.tick)
            episode.executed.append(event.executed)
            episode.elapsed.append(event.elapsed_ticks)
            episode.disagreements.append(event.disagreement)


def zero_state(obs: Observation) -> Observation:
    """The observation with a state of zeros."""
    return {**obs, "state": np.zeros_like(obs["state"])}


def black_images(obs: Observation, views: tuple[int, ...] = (0, 1)) -> Observation:
    """The observation with some camera views black."""
    images = [np.zeros_like(im) if i in views else im for i, im in enumerate(obs["images"])]
    return {**obs, "images": images}


def wrong_prompt(obs: Observation) -> Observation:
    """The observation with another colour named in the prompt."""
    swap = {"red": "green", "green": "blue", "blue": "red"}
    words = [swap.get(word, word) for word in str(obs["prompt"]).split()]
    return {**obs, "prompt": " ".join(words)}


# What an evaluation may take away from the policy, by name.
ABLATIONS: dict[str, Callable[[Observation], Observation]] = {
    "wrong prompt": wrong_prompt,
    "black images": black_images,
    "black agentview": lambda obs: black_images(obs, (0,)),
    "black wrist": lambda obs: black_images(obs, (1,)),
    "zero state": zero_state,
}
