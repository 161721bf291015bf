"""A scripted expert that reads block poses and answers with one action; it keeps no memory, so it can take over anywhere."""

from __future__ import annotations

import numpy as np

from flashrt_ros.sim.tabletop.prompts import COLOURS
from flashrt_ros.sim.tabletop.task import BLOCK_HALF_M, FINGER_OPEN_M, STEP_M, TabletopEnv

OPEN, CLOSE = -1.0, 1.0
GAIN = 0.6  # fraction of the remaining way asked for in one step
SPEED = 0.7  # largest translation asked for; slow enough that a late chunk is still nearly right
CRUISE_M = 0.075  # height of the grip point over a block's centre while travelling
PICK_Z_M, RETREAT_Z_M = 0.14, 0.12


def expert_action(env: TabletopEnv) -> np.ndarray:
    """float64 [7] in [-1, 1]: what to do now for `env.task`, from the physics state alone."""
    state = env.state().astype(np.float64)
    grip, fingers = state[:3], (state[6] - state[7]) / 2
    block = env.block(env.task.colour)
    if env.task.family == "place":
        settled = np.hypot(*block[:2]) < 0.022 and block[2] < BLOCK_HALF_M + 0.005
        if settled:  # let go first, then straight up
            goal = grip.copy()
            if fingers > 0.024:
                goal[2] = RETREAT_Z_M
            return _towards(grip, goal, OPEN)
    if _held(env, grip, fingers, block):
        if env.task.family == "pick":
            return _towards(grip, np.array([*grip[:2], PICK_Z_M]), CLOSE)
        away = np.hypot(*(block[:2]))
        carry = np.array([*(grip[:2] - block[:2]), BLOCK_HALF_M + 0.001 + _funnel(away, 0.012)])
        return _travel(grip, carry, CLOSE)
    return _approach(env, grip, fingers, block)


def _approach(env: TabletopEnv, grip: np.ndarray, fingers: float, block: np.ndarray) -> np.ndarray:
    """Over the block with open fingers, down a funnel, then close."""
    away = np.hypot(*(block[:2] - grip[:2]))
    low = grip[2] - max(block[2], BLOCK_HALF_M)
    if away < 0.010 and low < 0.008:
        return _towards(grip, np.array([*block[:2], max(block[2], BLOCK_HALF_M)]), CLOSE)
    goal = np.array([*block[:2], max(block[2], BLOCK_HALF_M) + _funnel(away, 0.008)])
    if fingers < 0.030:  # never come down on a block with fingers half closed
        goal[2] = max(goal[2], min(grip[2], block[2] + CRUISE_M))
    if low > 0.03 and away < 0.05:
        goal[2] = max(goal[2], block[2] + 0.012 if away > 0.006 else 0.0)
    return _travel(grip, goal, OPEN)


def _funnel(away: float, radius: float) -> float:
    """Height over the goal allowed at a horizontal distance: 0 within `radius`, cruising height from 5 cm on."""
    return float(np.clip((away - radius) / (0.05 - radius), 0.0, 1.0)) * CRUISE_M


def _travel(grip: np.ndarray, goal: np.ndarray, gripper: float) -> np.ndarray:
    """Towards a goal, slowing sideways while still too low for it (so that nothing is swept off the table)."""
    action = _towards(grip, goal, gripper)
    short = goal[2] - grip[2]
    if short > 0.02:
        action[:2] *= np.clip(1 - (short - 0.02) / 0.03, 0.0, 1.0)
    return action


def _held(env: TabletopEnv, grip: np.ndarray, fingers: float, block: np.ndarray) -> bool:
    """The named block is between closed fingers."""
    near = np.abs(block - grip)
    stopped = np.abs(env.data.joint("left").qvel[0]) + np.abs(env.data.joint("right").qvel[0]) < 0.02
    snug = BLOCK_HALF_M + (0.009 if stopped else 0.0045)  # stopped and wide: gripped across its diagonal
    return bool(near[0] < 0.016 and near[1] < 0.008 and near[2] < 0.020 and fingers < snug)


def _towards(grip: np.ndarray, goal: np.ndarray, gripper: float) -> np.ndarray:
    action = np.zeros(7)
    action[:3] = GAIN * (goal - grip) / STEP_M
    biggest = np.abs(action[:3]).max()
    if biggest > SPEED:  # keep the direction
        action[:3] *= SPEED / biggest
    action[6] = gripper
    return action


def label_chunk(env: TabletopEnv, horizon: int = 10) -> np.ndarray:
    """float32 [horizon, 7]: the clean expert rolled out from here in branched physics; `env` is left as it was."""
    here = env.snapshot()
    chunk = np.empty((horizon, 7), np.float32)
    for i in range(horizon):
        chunk[i] = expert_action(env)
        env.step(chunk[i])
    env.restore(here)
    return chunk


def wide_start(env: TabletopEnv, rng: np.random.Generator) -> None:
    """Moves the hand of a freshly reset episode to anywhere in its workspace, fingers anywhere."""
    for _ in range(50):
        spot = rng.uniform([-0.235, -0.235, 0.014], [0.235, 0.235, 0.265])
        clear = min(np.abs(env.block(c)[:2] - spot[:2]).max() for c in COLOURS)
        if spot[2] > 0.06 or clear > 0.075:  # not inside a block
            break
    env.set_hand(spot, rng.choice([FINGER_OPEN_M, 0.002, rng.uniform(0.002, FINGER_OPEN_M)]))
