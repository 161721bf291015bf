"""Faults of the simulation (rows F83 of the fault matrix): an episode that breaks is counted apart, the run goes on."""

import numpy as np
import pytest

from flashrt_ros.evaluation import rollout
from flashrt_ros.evaluation.rollout import Rollout
from flashrt_ros.evaluation.summary import summarise
from flashrt_ros.sim.tabletop import TabletopEnv


class BreakingEnv(TabletopEnv):
    """The real task; the second episode raises in `step`, the third while rendering, the fourth never ends well."""

    def reset(self, seed: int, prompt: str | None = None) -> None:
        super().reset(seed, prompt)
        self.seed = seed

    def step(self, action: np.ndarray) -> None:
        if self.seed == 2 and self.steps == 3:
            raise RuntimeError("injected: the simulator diverged")
        super().step(action)

    def observe(self) -> dict[str, object]:
        if self.seed == 3 and self.steps > 0:
            raise OSError("injected: rendering failed")
        return super().observe()


@pytest.fixture
def broken_rollout(monkeypatch):
    class StillModel:
        def predict(self, images, prompt=None, state=None, *, seed=None):
            return np.zeros((10, 7), np.float32)

    monkeypatch.setattr("flashrt_ros.sim.tabletop.TabletopEnv", BreakingEnv)
    monkeypatch.setattr(rollout, "load_policy", lambda *a, **k: StillModel())
    return Rollout()


def test_F83_environment_error_is_counted_apart(broken_rollout):
    episodes = list(rollout.run_seeds(broken_rollout, [1, 2, 3, 4]))
    assert [bool(e.error) for e in episodes] == [False, True, True, False]
    assert "diverged" in episodes[1].error and "rendering failed" in episodes[2].error
    assert episodes[1].steps == 3
    assert episodes[3].steps == 120 and not episodes[3].success  # the time limit is a failure, not an error
    r = summarise(episodes, broken_rollout, 1, 1.0)
    assert (r["episodes"], r["successes"], r["errors"]) == (2, 0, 2)
    assert [row["error"] is None for row in r["rows"]] == [True, False, False, True]
