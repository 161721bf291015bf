"""One episode, driven by the expert, by a policy or by both: the samples it teaches and whether it succeeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from expert import expert_action, label_chunk, wide_start

from flashrt_ros.sim.tabletop import TabletopEnv

Chunk = Callable[[dict, str, int], np.ndarray]  # (observation, prompt, seed) -> actions [H, 7] in the robot's units


@dataclass(frozen=True)
class Drive:
    """How an episode is driven.

    replan: steps between observations. delay: age of a chunk's observation, in steps, when it takes over; its first
    `delay` actions are skipped. wide: hand starts anywhere. burst: chance per step that random actions take over for a
    few steps. lead: steps driven by the expert before the policy. stride: the expert's states are recorded every so many.
    """

    replan: int = 5
    delay: int = 0
    wide: bool = False
    burst: float = 0.0
    lead: int = 0
    stride: int = 2
    extra: int = 0  # steps after success, so that the end of a task is in the data too


@dataclass
class Episode:
    """What came out. Samples are lists of equal length: images [2, S, S, 3], state [8], chunk [H, 7]."""

    success: bool = False
    steps: int = 0
    prompt: str = ""
    images: list[np.ndarray] = field(default_factory=list)
    states: list[np.ndarray] = field(default_factory=list)
    chunks: list[np.ndarray] = field(default_factory=list)

    def record(self, env: TabletopEnv, observation: dict, horizon: int) -> None:
        self.images.append(np.stack(observation["images"]))
        self.states.append(observation["state"])
        self.chunks.append(label_chunk(env, horizon))


class _Bursts:
    """Random actions that take over now and then for 1 to 6 steps."""

    def __init__(self, rng: np.random.Generator, chance: float):
        self.rng, self.chance, self.left, self.action = rng, chance, 0, np.zeros(7)

    def __call__(self, action: np.ndarray) -> np.ndarray:
        if self.left == 0 and self.chance > 0 and self.rng.random() < self.chance:
            self.left = int(self.rng.integers(1, 7))
            self.action = np.zeros(7)
            self.action[:3] = self.rng.uniform(-1, 1, 3)
            self.action[6] = self.rng.choice([-1.0, 1.0]) if self.rng.random() < 0.4 else 0.0
        if self.left == 0:
            return action
        self.left -= 1
        out = self.action.copy()
        if out[6] == 0.0:
            out[6] = action[6]
        return out


def run_expert(env: TabletopEnv, seed: int, drive: Drive, horizon: int = 10) -> Episode:
    """The noisy expert; every `stride`-th visited state becomes a sample labelled by the clean expert."""
    rng = np.random.default_rng([7, seed])
    env.reset(seed)
    if drive.wide:
        wide_start(env, rng)
    out, bursts, after = Episode(prompt=env.prompt), _Bursts(rng, drive.burst), 0
    offset = int(rng.integers(drive.stride))
    while env.steps < env.max_steps and after <= drive.extra:
        if env.steps % drive.stride == offset:
            out.record(env, env.observe(), horizon)
        env.step(bursts(expert_action(env)))
        after += env.success
    out.success, out.steps = env.success, env.steps
    return out


def run_policy(env: TabletopEnv, policy: Chunk, seed: int, drive: Drive, *, label: bool = False, prompt: str | None = None,
               blind: Callable[[dict], dict] | None = None, horizon: int = 10) -> Episode:  # fmt: skip
    """Closed loop. The chunk asked for at step s rules from step s + delay on, from its action `delay`.

    label: record what the policy saw with the expert's chunk (DAgger). prompt: what the policy is told instead of the
    truth. blind: changes the observation before the policy sees it.
    """
    rng = np.random.default_rng([11, seed])
    env.reset(seed)
    if drive.wide:
        wide_start(env, rng)
    bursts = _Bursts(rng, drive.burst)
    out = Episode(prompt=env.prompt)
    for _ in range(drive.lead):
        if not env.done:
            env.step(bursts(expert_action(env)))
    chunk, start, pending = None, 0, None  # `start`: the step at which chunk[0] was meant to run
    begin, after = env.steps, 0
    rest = np.array([0, 0, 0, 0, 0, 0, -1.0])
    while env.steps < env.max_steps and after <= drive.extra:
        now = env.steps
        if (now - begin) % drive.replan == 0:
            observation = env.observe()
            if label:
                out.record(env, observation, horizon)
            seen = observation if blind is None else blind(observation)
            pending = (policy(seen, env.prompt if prompt is None else prompt, seed * 1000 + now), now)
        if pending is not None and now >= pending[1] + drive.delay:
            (chunk, start), pending = pending, None
        if chunk is None:
            action = rest
        elif now - start < len(chunk):
            action = chunk[now - start]
        else:  # ran out: stay, keep the fingers as they are
            action = np.array([0, 0, 0, 0, 0, 0, chunk[-1][6]])
        env.step(bursts(action))
        after += env.success
    out.success, out.steps = env.success, env.steps
    return out
