"""The demo end to end with the bundled policy: files, schema, determinism, success and what each input is worth."""

import json
from pathlib import Path

import numpy as np
import pytest

from flashrt_core import __version__
from flashrt_core.errors import ConfigError
from flashrt_ros.evaluation.demo import run_demo
from flashrt_ros.evaluation.rollout import Rollout, Runner, load_policy, run_seeds
from flashrt_ros.evaluation.summary import TIMING_KEYS

SEED = 500_000
SCHEMA = {
    "episodes": int, "successes": int, "success_rate": float, "success_wilson95": list, "model_latency_ms": dict,
    "tick_misses": int, "boundary": dict, "precision": str, "splice": str, "seed": int, "version": str, "rows": list,
    "by_prompt": dict, "errors": int, "renderer": str, "hardware": str, "latency_ms": float, "machine": dict,
}  # fmt: skip


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(folder, DemoOutput) of two episodes."""
    out = tmp_path_factory.mktemp("first")
    return out, run_demo(Rollout(), episodes=2, out=out, command="flashrt demo --episodes 2")


def test_result_has_the_documented_keys(first):
    out, _ = first
    r = json.loads((out / "result.json").read_text())
    for key, kind in SCHEMA.items():
        assert isinstance(r[key], kind), key
    assert r["model_latency_ms"].keys() == {"p50", "p95", "p99"} and all(v > 0 for v in r["model_latency_ms"].values())
    assert {"cb1_ratio", "cb2_violations", "cb3_step_over", "cb4_max", "cb5_jerk", "cb6_index_law"} <= r[
        "boundary"
    ].keys()
    assert (r["episodes"], r["precision"], r["splice"], r["seed"], r["version"]) == (
        2,
        "fp32",
        "none",
        SEED,
        __version__,
    )
    assert [row.keys() >= {"seed", "prompt", "success", "steps"} for row in r["rows"]] == [True, True]
    assert r["boundary"]["cb6_index_law"] == 1.0 and r["tick_misses"] == 0
    assert r["success_wilson95"][0] <= r["success_rate"] <= r["success_wilson95"][1]


def test_files_are_written_and_the_page_stands_alone(first):
    out, output = first
    assert (
        {p.name for p in out.iterdir()} == {"result.json", "report.html", "demo.gif"} == {p.name for p in output.files}
    )
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 and page.count("data:image/gif;base64,") == 1
    for prompt in {e.prompt for e in output.episodes}:
        assert prompt in page
    for outside in ("http://", "https://", "<script", 'src="/', "url("):
        assert outside not in page.replace("http://www.w3.org", "")
    assert 10_000 < (out / "demo.gif").stat().st_size < 5_000_000


def plain(path: Path) -> str:
    data = json.loads((path / "result.json").read_text())
    return json.dumps({k: v for k, v in data.items() if k not in TIMING_KEYS}, sort_keys=True)


def test_same_seed_same_bytes_also_over_processes(first, tmp_path):
    out, output = first
    again = run_demo(Rollout(), episodes=2, out=tmp_path, jobs=2)
    assert plain(tmp_path) == plain(out)
    for a, b in zip(output.episodes, again.episodes, strict=True):
        np.testing.assert_array_equal(a.commands, b.commands)
    assert (tmp_path / "demo.gif").read_bytes() == (out / "demo.gif").read_bytes()


def test_another_seed_gives_other_episodes(first):
    other = next(iter(run_seeds(Rollout(), [SEED + 7])))
    assert other.commands.shape != first[1].episodes[0].commands.shape or not np.array_equal(
        other.commands, first[1].episodes[0].commands
    )


def test_the_film_of_an_earlier_run_does_not_stay(tmp_path, monkeypatch):
    (tmp_path / "demo.gif").write_bytes(b"old")
    monkeypatch.setattr("flashrt_ros.evaluation.rollout.keep_frame", lambda *a: None)
    run_demo(Rollout(), episodes=1, out=tmp_path)
    assert not (tmp_path / "demo.gif").exists()


@pytest.mark.parametrize(
    "options, word",
    [({"episodes": 0}, "episodes"), ({"seed": -1}, "seed"), ({"jobs": 0}, "jobs"), ({"seed": 2**60}, "seed")],
)
def test_bad_numbers(options, word, tmp_path):
    with pytest.raises(ConfigError, match=word):
        run_demo(Rollout(), out=tmp_path, **options)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigError, match="out"):
        run_demo(Rollout(), out=tmp_path / "a")


# ---- the policy itself


def test_forty_unseen_episodes_succeed():
    episodes = list(run_seeds(Rollout(), range(SEED + 1000, SEED + 1040)))
    assert sum(e.success for e in episodes) >= 36, [e.seed for e in episodes if not e.success]
    assert sum(e.tick_misses for e in episodes) == 0


def test_fp8_succeeds_too():
    episodes = list(run_seeds(Rollout(precision="fp8"), range(SEED, SEED + 8)))
    assert sum(e.success for e in episodes) >= 7


@pytest.mark.parametrize("taken", ["wrong prompt", "black images", "black wrist", "zero state"])
def test_every_input_matters(taken, shared_model, monkeypatch):
    """With the input all six seeds succeed (they are part of the committed 200); without it at most one does."""
    monkeypatch.setattr("flashrt_ros.evaluation.rollout.load_policy", lambda *a, **k: shared_model)
    runner = Runner(Rollout(ablation=taken))
    assert sum(runner.run(seed).success for seed in range(SEED, SEED + 6)) <= 1


@pytest.fixture(scope="module")
def shared_model():
    return load_policy()


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "fp8"])
def test_two_hundred_unseen_episodes(precision):
    episodes = list(run_seeds(Rollout(precision=precision), range(SEED, SEED + 200), jobs=2))
    assert sum(e.success for e in episodes) >= 190
