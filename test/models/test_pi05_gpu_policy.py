"""The bundled policy on a Hopper GPU, unchanged: actions against the CPU, and closed-loop success over equal seeds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from support.programs import cosine

from flashrt_core import load_model
from flashrt_ros.evaluation.closed_loop import LoopSettings, run_episode
from flashrt_ros.evaluation.rollout import (
    CALIBRATION_SEEDS,
    Rollout,
    checkpoint_folder,
    load_policy,
    run_seeds,
    simulated_observations,
)

pytestmark = pytest.mark.gpu
SEEDS = range(510_000, 510_020)


@pytest.fixture(scope="module")
def on_the_cpu():
    """Success of each seed with the CPU's fp32, computed beside the GPU's runs."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(lambda: [e.success for e in run_seeds(Rollout(), SEEDS, jobs=12)])


def policy(use_fp8: bool, cache: str):
    model = load_model(str(checkpoint_folder(None)), hardware="hopper", use_fp8=use_fp8, calibration_dir=cache)
    if use_fp8:
        model.calibrate(simulated_observations(CALIBRATION_SEEDS))
    return model


@pytest.mark.parametrize(("use_fp8", "floor"), [(False, 0.9999), (True, 0.999)], ids=["bf16", "fp8"])
def test_actions_are_those_of_the_cpu(use_fp8: bool, floor: float) -> None:
    host = load_policy()
    with TemporaryDirectory() as cache:
        gpu = policy(use_fp8, cache)
        assert gpu.hardware == "hopper"
        got = []
        for obs in simulated_observations(range(510_000, 510_006)):
            chunks = [m.predict(obs["images"], obs["prompt"], obs["state"], seed=3) for m in (host, gpu)]
            got.append(cosine(*chunks))
    print(f"\n{'fp8' if use_fp8 else 'bf16'}: cosine of robot actions, min {min(got):.6f} median {np.median(got):.6f}")
    assert np.median(got) >= floor


@pytest.mark.parametrize("use_fp8", [False, True], ids=["bf16", "fp8"])
def test_closed_loop_success(use_fp8: bool, on_the_cpu) -> None:
    """Paired over the seeds: not more than one episode of twenty worse than the CPU's fp32."""
    from flashrt_ros.sim.tabletop import TabletopEnv

    with TemporaryDirectory() as cache:
        model, env = policy(use_fp8, cache), TabletopEnv()
        episodes = [run_episode(env, model.predict, seed, LoopSettings()) for seed in SEEDS]
    assert all(e.error is None and e.policy_errors == 0 for e in episodes)
    won, reference = [e.success for e in episodes], on_the_cpu.result()
    latency = np.concatenate([e.model_ms for e in episodes])
    print(
        f"\n{'fp8' if use_fp8 else 'bf16'}: {sum(won)}/{len(won)} on the GPU, {sum(reference)}/{len(won)} on the CPU; "
        f"predict P50 {np.percentile(latency, 50):.2f} ms, P95 {np.percentile(latency, 95):.2f} ms"
    )
    assert sum(won) >= sum(reference) - 1
