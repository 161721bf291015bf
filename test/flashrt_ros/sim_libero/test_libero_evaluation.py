"""An evaluation against a double of the simulator: protocol on the wire, resuming, parallel runs, figures and page."""

import argparse
import json

import numpy as np
import pytest
from support.checkpoints import write_checkpoint
from support.fake_simulator import Forward, simulator_spec

from flashrt_core.errors import ConfigError
from flashrt_ros.cli import main
from flashrt_ros.commands import libero
from flashrt_ros.commands._progress import EpisodeProgress
from flashrt_ros.sim.libero.env_client import SimulatorEnv, SimulatorError, find_python
from flashrt_ros.sim.libero.plan import STRATEGIES, Condition, EvaluationPlan
from flashrt_ros.sim.libero.policies import DemoReplay, make_policy, worker_spec
from flashrt_ros.sim.libero.report import page, write_page
from flashrt_ros.sim.libero.results import summarise
from flashrt_ros.sim.libero.ros_run import sim_words
from flashrt_ros.sim.libero.run import open_results, run_here, run_jobs
from flashrt_ros.sim.tabletop import POLICY_DIR

TIMES = ("wall_s", "reset_s", "physics_s", "render_s", "policy_s")


@pytest.fixture
def env(tmp_path):
    made = []

    def make(seed=7, policy_px=None, behaviour=None, **fields) -> SimulatorEnv:
        made.append(SimulatorEnv(simulator_spec(tmp_path, behaviour, **fields), seed, tmp_path / "log", policy_px))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_an_episode_begins_with(env):
    e = env()
    e.reset_to(0, 3)
    assert e.prompt == "move the hand" and e.arm_joints[:3].tolist() == [7, 3, 10]  # seed, resets before, wait steps
    e.reset_to(1, 0)
    assert e.prompt == "move the hand again" and e.arm_joints[:3].tolist() == [7, 0, 10]


def test_each_episode_has_its_seed_with_lerobot(env):
    e = env(seed=1000, name="lerobot")
    e.reset_to(0, 3)
    assert e.arm_joints[:3].tolist() == [1003, 0, 10]


def test_a_demonstration_begins_without_wait_steps(env):
    e = env()
    e.reset_to(0, 1, demonstration=1)
    assert e.arm_joints[:3].tolist() == [0, 1, 0]


def test_init_states_are_put_in_place_and_go_round(env, tmp_path):
    states = np.arange(12.0).reshape(3, 4)
    (tmp_path / "init/libero_spatial").mkdir(parents=True)
    np.savez(tmp_path / "init/libero_spatial/move.npz", states=states)
    e = env(suite="libero_spatial", init_states=tmp_path / "init")
    for trial in (0, 2, 4):
        e.reset_to(0, trial)
        assert e.arm_joints[:3].tolist() == states[trial % 3, :3].tolist()


def test_observation_and_frame_show_the_same_scene_the_right_way_round(env):
    e = env()
    e.reset_to(0, 0)
    seen = e.observe()["images"][0]  # the mark is in the first row and column as MuJoCo gives them: bottom left
    assert seen[-1, -1].tolist() == [255] * 3 and (seen == 255).sum() == 3
    assert e.frame(32)[-1, 0].tolist() == [255] * 3
    small = env(policy_px=16)
    small.reset_to(0, 0)
    assert small.observe()["images"][1].shape == (16, 16, 3)


def test_steps_move_the_hand_and_end_in_success(env):
    e = env(behaviour={"needs": 2})
    e.reset_to(0, 0)
    e.step(np.array([1.0, 0, 0, 0, 0, 0, -1]))
    assert not e.success and e.state()[0] == pytest.approx(0.05)
    e.step(np.array([0.5, 0, 0, 0, 0, 0, -1]))
    assert e.success and e.steps == 2 and e.state()[0] == pytest.approx(0.075)


def test_no_process_no_episode(env):
    with pytest.raises(SimulatorError, match="no process"):
        env().step(np.zeros(7))


def test_missing_interpreter_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="make libero"):
        find_python(tmp_path / "none")


# ---- runs


def evaluate(tmp_path, out="out", behaviour=None, using=None, **fields):
    spec = simulator_spec(tmp_path, behaviour)
    plan = EvaluationPlan(**{"simulator": spec, "policy": "scripted", "tasks": (0,), "episodes": 3, "seed": 7, **fields})
    file = open_results(plan, tmp_path / out)
    jobs = file.missing()
    run_jobs(file, jobs, run_here(plan, using or Forward()))
    return file, len(jobs)


def plain(file) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for _, row in sorted(file.rows.items())]


def test_result_has_a_line_per_episode_and_a_second_run_goes_on(tmp_path):
    file, ran = evaluate(tmp_path, episodes=2)
    text = file.path.read_text()
    head, *rows = (json.loads(line) for line in text.splitlines())
    assert ran == 2 and head["run"]["suite"] == "robosuite_lift" and [r["trial"] for r in rows] == [0, 1]
    assert all(r["success"] and r["steps"] == 12 and r["error"] is None for r in rows)
    _, ran = evaluate(tmp_path, episodes=2)
    assert ran == 0 and file.path.read_text() == text
    more, ran = evaluate(tmp_path, episodes=3)
    assert ran == 1 and more.path.read_text().startswith(text)


def test_a_line_cut_by_a_crash_is_run_again(tmp_path):
    file, _ = evaluate(tmp_path)
    whole = plain(file)
    text = file.path.read_text()
    file.path.write_text(text[: text.rindex('"success"')])
    again, ran = evaluate(tmp_path)
    assert ran == 1 and plain(again) == whole


def test_another_evaluation_does_not_mix_in(tmp_path):
    evaluate(tmp_path)
    others = {"seed": {"seed": 8}, "policy": {"policy": "demo-replay"}, "replan_ticks": {"replan_ticks": 7},
              "gl": {"simulator": simulator_spec(tmp_path, gl="osmesa")}, "via": {"via": "ros"}}  # fmt: skip
    for name, other in others.items():
        with pytest.raises(ConfigError, match=f"another {name}"):
            evaluate(tmp_path, **other)


def test_another_precision_or_a_namesake_of_the_checkpoint_does_not_mix_in(tmp_path):
    """runs/a/30000 and runs/b/30000 are two checkpoints; fp8 and fp32 of one of them are two policies."""
    a, b = (write_checkpoint(tmp_path / "runs" / name / "30000", seed=i) for i, name in enumerate("ab"))
    full = {"policy": "checkpoint", "checkpoint": str(a), "worker": (("hardware", "host"), ("use_fp8", False))}
    evaluate(tmp_path, **full)
    assert evaluate(tmp_path, **full)[1] == 0
    fp8 = {"worker": (("hardware", "host"), ("use_fp8", True))}
    for name, other in (("checkpoint_sha256", {"checkpoint": str(b)}), ("worker", fp8)):
        with pytest.raises(ConfigError, match=f"another {name}"):
            evaluate(tmp_path, **{**full, **other})
    moved = a.rename(tmp_path / "30000")
    assert evaluate(tmp_path, **{**full, "checkpoint": str(moved)})[1] == 0  # the same weights elsewhere


@pytest.mark.parametrize("line", ["nonsense", "[1, 2]", "7", '{"splice": "sync"}', "\xff\x00"])
def test_a_file_that_is_no_result_is_one_sentence(tmp_path, line):
    file, _ = evaluate(tmp_path, episodes=1)
    file.path.write_bytes(file.path.read_bytes() + line.encode("latin-1") + b"\n")
    with pytest.raises(ConfigError, match="lines that flashrt libero wrote"):
        evaluate(tmp_path, episodes=1)


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[:60])], ids=["gone", "cut"])
def test_lost_commands_of_an_episode_are_one_sentence(tmp_path, damage):
    file, _ = evaluate(tmp_path, episodes=1)
    damage(next((tmp_path / "out/episodes").iterdir()))
    with pytest.raises(ConfigError, match=r"sync-0ms_task0_trial0\.npz"):
        summarise(file, 1.0)


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    file, _ = evaluate(tmp_path, episodes=1)
    text = file.path.read_text()
    file.path.write_text(text + '{"splice"')  # the other run is about to end this line
    with open_results(file.plan, tmp_path / "out").locked():
        file.path.write_text(text + '{"splice"')
        with pytest.raises(ConfigError, match="no other run"):
            evaluate(tmp_path, episodes=2)
        assert file.path.read_text() == text + '{"splice"'  # left to the one that writes it
    assert evaluate(tmp_path, episodes=2)[1] == 1


def test_an_interrupted_run_ends_its_simulators_before_it_returns(tmp_path):
    file = open_results(EvaluationPlan(simulator_spec(tmp_path), "scripted", (0,), 3, 7), tmp_path / "out")
    policy, seen = Forward(), []

    def interrupt(outcome):
        seen.append(outcome)
        raise KeyboardInterrupt

    try:
        run_jobs(file, file.missing(), run_here(file.plan, policy), interrupt)
    except KeyboardInterrupt as error:
        assert error.__traceback__ is not None and policy.closed  # although the traceback still holds the run's frames
    assert len(seen) == 1 and len(file.missing()) == 2


def test_an_error_before_the_prompt_is_known_has_none(env):
    e = env(behaviour={"faults": {"1": "reset"}})
    e.reset_to(0, 0)
    with pytest.raises(SimulatorError, match="no placement"):
        e.reset_to(1, 1)
    assert e.prompt == "" and e.reset_s == 0.0


def test_errors_are_kept_unless_they_are_to_be_retried(tmp_path):
    file, _ = evaluate(tmp_path, behaviour={"faults": {"1": "raise"}})
    assert [bool(r["error"]) for r in plain(file)] == [False, True, False]
    file, ran = evaluate(tmp_path)
    assert ran == 0
    assert [job.trial for job in file.missing(retry_errors=True)] == [1]
    run_jobs(file, file.missing(retry_errors=True), run_here(file.plan, Forward()))
    assert not any(r["error"] for r in plain(file))
    assert not any(r["error"] for r in plain(open_results(file.plan, tmp_path / "out")))  # the later line counts


def test_results_do_not_depend_on_the_number_of_simulators(tmp_path):
    conditions = (Condition(), Condition("quintic", 100.0))
    one, _ = evaluate(tmp_path, "one", conditions=conditions)
    three, _ = evaluate(tmp_path, "three", conditions=conditions, workers=3)
    assert plain(one) == plain(three) and len(plain(one)) == 6


def test_replay_gives_the_recorded_action_of_each_step_in_every_strategy(tmp_path):
    conditions = tuple(Condition(s, 0.0) for s in STRATEGIES)
    file, _ = evaluate(tmp_path, using=DemoReplay(), episodes=2, conditions=conditions)
    for row in plain(file):
        commands = file.episodes([row])[0].commands
        assert commands[:, 0] == pytest.approx(0.5 * (1 + row["trial"] % 2)), row["splice"]
        assert row["steps"] == 12 and row["tick_misses"] == 0


def test_sync_stands_still_while_the_policy_computes(tmp_path):
    conditions = (Condition("sync", 0.0), Condition("sync", 200.0), Condition("none", 200.0))
    file, _ = evaluate(tmp_path, episodes=1, conditions=conditions)
    still, waited, moving = (file.rows[c.splice, c.latency_ms, 0, 0] for c in conditions)
    assert still["steps"] == waited["steps"] == moving["steps"] == 12 and still["chunks"] == waited["chunks"] == 3
    assert still["task_s"] == pytest.approx(0.6)
    assert waited["task_s"] == pytest.approx(0.6 + 3 * 0.2)  # every chunk is waited for
    assert moving["task_s"] == pytest.approx(0.6 + 0.2)  # only the first one


def test_figures_and_page(tmp_path):
    behaviour = {"needs": 12, "faults": {"2": "raise"}}
    conditions = (Condition(), Condition("linear", 50.0))
    file, _ = evaluate(tmp_path, behaviour=behaviour, conditions=conditions)
    result = summarise(file, 2.0)
    json.dumps(result, allow_nan=False)
    first, second = result["conditions"]
    assert (first["episodes"], first["successes"], first["errors"]) == (2, 2, 1)
    assert first["tasks"][0]["name"] == "move" and first["mean_steps_of_successes"] == 12
    assert first["success_wilson95"] == pytest.approx([0.3424, 1.0], abs=1e-3)
    assert second["boundary"]["cb6_index_law"] == 1.0 and second["boundary"]["cb5_ratio"] is not None
    assert result["cost"]["steps"] == 48 and 0 <= result["cost"]["share"]["policy"] <= 1
    text = write_page(tmp_path / "out", result, "flashrt libero").read_text()
    assert "1 errors apart" in text and "linear" in text and "http" not in text and "<script" not in text


def test_failures_leave_a_film(tmp_path):
    file, _ = evaluate(tmp_path, behaviour={"needs": 1000}, episodes=1)
    assert [f.name for f in (tmp_path / "out/failures").iterdir()] == ["sync-0ms_task0_trial0.gif"]
    row = plain(file)[0]
    assert row["steps"] == 30 and not row["success"] and row["error"] is None
    text = page(tmp_path / "out", summarise(file, 1.0))
    assert "data:image/gif;base64," in text and "0.0 %" in text


def test_the_first_trial_of_each_task_leaves_a_film(tmp_path):
    conditions = (Condition(), Condition("none", 0.0))
    file, _ = evaluate(tmp_path, episodes=2, conditions=conditions)
    films = [f.name for f in (tmp_path / "out/films").iterdir()]
    assert films == ["sync-0ms_task0_trial0.gif"] and not any((tmp_path / "out/failures").iterdir())
    text = page(tmp_path / "out", summarise(file, 1.0))
    assert text.count("data:image/gif;base64,") == 1 and "The first trial of each task" in text and "Failures" not in text


# ---- policies and the command


def test_a_real_checkpoint_drives_the_hand(tmp_path):
    """The bundled Pi0.5 has LIBERO's shapes: two views (112 px), an 8-d state, 7-d actions."""
    spec = simulator_spec(tmp_path, {"any_motion": True, "needs": 12})
    plan = EvaluationPlan(spec, "checkpoint", (0,), 1, 7, str(POLICY_DIR), (("hardware", "host"), ("use_fp8", False)))
    policy = make_policy(plan.policy, "robosuite_lift", worker_spec(plan))
    assert policy.px == 112
    file = open_results(plan, tmp_path / "out")
    run_jobs(file, file.missing(), run_here(plan, policy))
    (row,) = plain(file)
    assert row["success"] and row["policy_errors"] == 0 and row["chunks"] == 3
    episode = file.episodes([row])[0]
    assert episode.commands.std() > 0 and len(episode.model_ms) == 3


def test_realtime_ticks_come_by_the_wall_clock(tmp_path):
    file, _ = evaluate(tmp_path, episodes=1, realtime=True, conditions=(Condition("none"),))
    row = plain(file)[0]
    assert row["steps"] >= 12  # more where the machine was too busy for a tick: the hand stood still then
    assert file.rows["none", 0.0, 0, 0]["wall_s"] >= (row["steps"] - 1) * 0.05
    assert len(file.episodes([row])[0].late_ms) == row["steps"]


def test_scripted_and_replayed_policies_say_where_they_belong():
    with pytest.raises(ConfigError, match="robosuite_lift"):
        make_policy("scripted", "libero_10")
    with pytest.raises(ConfigError, match="demo-replay"):
        make_policy("demoreplay", "robosuite_lift")


def test_command_from_its_words_to_its_files(tmp_path, capsys):
    python = simulator_spec(tmp_path, {"any_motion": True, "needs": 6}).python
    out = tmp_path / "out"
    words = ["libero", "--episodes", "2", "--sim-python", str(python), "--out", str(out), "--splice", "none", "sync"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "episode 4/4  4 succeeded" in said and "control steps/s" in said
    result = json.loads((out / "result.json").read_text())
    assert [c["successes"] for c in result["conditions"]] == [2, 2] and (out / "report.html").stat().st_size > 1000
    assert main(words) == 0
    assert "4 of 4 episodes are in" in capsys.readouterr().out
    assert main([*words, "--suite", "libero_10", "--checkpoint", str(POLICY_DIR)]) == 2
    assert "another suite" in capsys.readouterr().err


REFUSED = {
    "--replan 0": "replan_ticks: expected 1..1000, found 0",
    "--policy demo-replay --episodes 4": "1..3: each demonstration is replayed once",
    "--policy demo-replay --suite libero_10": "a suite with demonstrations: robosuite_lift",
    "--rate 0.5": "--rate: expected --via ros with it",
    "--camera-hz 5": "--camera-hz: expected --via ros with it",
    "--via ros --ray local": "--via ros: expected this machine, found --ray local",
    "--via ros --realtime": "--rate 1 for real time, found --realtime",
    "--via ros --workers 2": "one simulator, found --workers 2",
    "--suite libero_goal --checkpoint nowhere": "a folder with model.safetensors, found nothing at nowhere",
}


@pytest.mark.parametrize(("words", "said"), REFUSED.items(), ids=str)
def test_what_would_have_no_effect_or_no_meaning_is_refused(tmp_path, capsys, words, said):
    python = simulator_spec(tmp_path, {"start": "die"}).python
    assert main(["libero", "--sim-python", str(python), "--out", str(tmp_path / "out"), *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_every_demonstration_is_replayed_once_unless_said_otherwise():
    parser = argparse.ArgumentParser()
    libero.add_arguments(parser)
    assert libero.make_plan(parser.parse_args(["--policy", "demo-replay"])).episodes == 3
    assert libero.make_plan(parser.parse_args(["--policy", "demo-replay", "--episodes", "2"])).episodes == 2
    assert libero.make_plan(parser.parse_args([])).episodes == 50


@pytest.mark.parametrize(("behaviour", "said"), [({"start": "config"}, "make libero"), ({}, "convert_init_states")], ids=str)
def test_a_missing_simulator_is_said_before_a_policy_is_loaded(tmp_path, capsys, monkeypatch, behaviour, said):
    def load(*_):
        raise AssertionError("a policy was loaded")

    monkeypatch.setattr("flashrt_ros.sim.libero.policies.make_policy", load)
    python = simulator_spec(tmp_path, behaviour).python
    words = ["--suite", "libero_goal", "--checkpoint", str(POLICY_DIR), "--sim-python", str(python), "--init-states", "none"]
    assert main(["libero", *words, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    python = simulator_spec(tmp_path, {"any_motion": True}).python
    done = EpisodeProgress.episode_done

    def stop_after_one(self, episode):
        done(self, episode)
        raise KeyboardInterrupt

    monkeypatch.setattr(EpisodeProgress, "episode_done", stop_after_one)
    assert main(["libero", "--episodes", "3", "--sim-python", str(python), "--out", str(tmp_path / "out")]) == 130
    said = capsys.readouterr().out.replace("\n", " ")
    assert "1 of 3 episodes are in" in said and "the same command goes on" in said


def test_a_run_of_errors_alone_is_no_success(tmp_path, capsys):
    """Each was counted apart; but exit code 0 would let a script go on with a success rate of nothing."""
    python = simulator_spec(tmp_path, {"faults": {"0": "raise", "1": "die"}}).python
    assert main(["libero", "--episodes", "2", "--sim-python", str(python), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "2 errors; the last: SimulatorError" in said.err and "exit code 3" in said.err and "--retry-errors" in said.err
    assert (tmp_path / "out/report.html").exists() and "2 errors apart" in said.out


def test_the_bound_of_an_episode_holds_over_ros_too(tmp_path):
    plan = EvaluationPlan(simulator_spec(tmp_path, episode_s=77.0), "scripted", (0,), 1, 7)
    words = sim_words(plan, tmp_path / "jobs", tmp_path, 0.25, 5.0)
    assert words[words.index("--episode-timeout") + 1] == "77.0"
