"""The bundled policy on rendered observations: fp32 against the independent oracle, FP8 emulation against fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.oracle import OraclePi05
from support.programs import as_float_images, cosine

from flashrt_ros.evaluation.rollout import checkpoint_folder, load_policy
from flashrt_ros.sim.tabletop import TabletopEnv

SEEDS = range(510_000, 510_006)


@pytest.fixture(scope="module")
def observations() -> list[dict]:
    """Scenes at the start and some actions of the policy later, each with its prompt."""
    env, model, out = TabletopEnv(), load_policy(), []
    for seed in SEEDS:
        env.reset(seed)
        for k in range(2):
            out.append({**env.observe(), "prompt": env.prompt, "seed": seed * 2 + k})
            for action in model.predict(out[-1]["images"], env.prompt, out[-1]["state"], seed=k)[:8]:
                env.step(action)
    return out


def normalised(model, obs: dict) -> np.ndarray:
    """The chunk before it is unnormalised, [10, 32]."""
    model.set_prompt(obs["prompt"], obs["state"])
    model.infer(obs, seed=obs["seed"])
    return model._pipe._program_served.output()


def test_actions_equal_the_oracle_s(observations) -> None:
    model = load_policy()
    pipe = model._pipe
    oracle = OraclePi05(load_file(checkpoint_folder(None) / "model.safetensors"), pipe.dims)
    for obs in observations[::3]:
        got = normalised(model, obs)
        noise = np.random.default_rng(obs["seed"]).standard_normal(got.shape, dtype=np.float32)
        images = as_float_images(np.stack(obs["images"]))
        want, _ = oracle.run(images, pipe._tokens, torch.from_numpy(noise))
        assert np.abs(got - want.numpy()).max() <= 1e-4


def test_fp8_emulation_cosine(observations) -> None:
    """>= 0.999 except where rounding tips a decision (open or close now, or one step later): at most one in twelve."""
    fp32, fp8 = load_policy(), load_policy(precision="fp8")
    cosines = [cosine(normalised(fp32, o)[:, :7], normalised(fp8, o)[:, :7]) for o in observations]
    assert np.median(cosines) >= 0.999 and sum(c < 0.999 for c in cosines) <= 1, np.round(cosines, 5)
