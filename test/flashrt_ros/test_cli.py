"""`flashrt` as a user types it: help that teaches, one line and exit code 2 for bad input, JSON for programs."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from support.checkers import ROOT
from support.checkpoints import write_checkpoint

from flashrt_core import __version__
from flashrt_ros.cli import main, one_line
from flashrt_ros.commands import COMMANDS
from flashrt_ros.evaluation.rollout import simulated_observations
from flashrt_ros.sim.tabletop import POLICY_DIR


def run(capsys, *argv: str) -> tuple[int, str, str]:
    try:
        code = main(list(argv))
    except SystemExit as error:  # argparse
        code = error.code
    out, err = capsys.readouterr()
    return code, out, err


def failed(capsys, *argv: str) -> str:
    """The one line that a refused call prints."""
    code, out, err = run(capsys, *argv)
    assert code == 2 and out in ("", "loading the policy ...\n") and "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


def test_help_lists_every_command_and_each_help_has_examples(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "exit codes" in out
    assert all(name in out for name in COMMANDS)
    for name in COMMANDS:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0 and f"flashrt {name}" in out.split("examples:")[1]


def test_the_page_has_a_section_for_each_command():
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^## (\S+)$", page, re.M)) == sorted(COMMANDS)


def test_no_command_prints_the_help_and_version_is_the_package_s(capsys):
    assert run(capsys)[1].startswith("usage: flashrt")
    assert run(capsys, "--version")[1].strip() == f"flashrt {__version__}"


def test_help_loads_no_model_library():
    heavy = "{'torch', 'mujoco', 'PIL'} & set(sys.modules)"
    code = f"import sys; from flashrt_ros.cli import build_parser; build_parser(); print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "argv, words",
    [
        (["demo", "--splice", "quintc"], "did you mean 'quintic'?"),
        (["demo", "--precision", "fp16"], "precision"),
        (["demo", "--episodes", "0"], "episodes"),
        (["demo", "--latency-ms", "-5"], "latency_ms"),
        (["demo", "--renderer", "rays"], "'ray' or 'gl'"),
        (["demo", "--threads", "0"], "threads"),
        (["demo", "--realtime", "--latency-ms", "50"], "latency_ms"),
        (["demo", "--checkpoint", "no/such/folder"], "no/such/folder"),
        (["inspect", "no/such/folder"], "no/such/folder"),
        (["predict", "--checkpoint", "no/such", "--image", "a.png", "--prompt", "x"], "no/such"),
        (["calibrate", "--demo-seeds", "0"], "--demo-seeds"),
        (["calibrate", "--observations", "no.npz"], "no.npz"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, argv, words):
    out = ["--out", str(tmp_path)] if argv[0] == "demo" else []
    line = failed(capsys, *argv, *out)
    assert line.startswith(f"flashrt {argv[0]}: ") and words in line


def test_demo_with_a_checkpoint_of_another_task_is_one_line(capsys, tmp_path):
    folder = write_checkpoint(tmp_path / "c")  # 28 px images
    line = failed(capsys, "demo", "--checkpoint", str(folder), "--out", str(tmp_path / "out"))
    assert "image 0 (agentview): expected shape (28, 28, 3)" in line


def test_unknown_options_and_commands_exit_2(capsys):
    assert run(capsys, "demo", "--epsiodes", "3")[0] == 2
    assert run(capsys, "dmeo")[0] == 2


def test_debug_shows_where(capsys):
    with pytest.raises(ValueError):
        main(["demo", "--splice", "no", "--debug"])


def test_a_bug_is_called_a_bug(capsys, monkeypatch):
    monkeypatch.setattr(COMMANDS["doctor"], "all_checks", lambda: 1 / 0)
    code, _, err = run(capsys, "doctor")
    assert code == 1 and "bug, ZeroDivisionError" in err and len(err.splitlines()) == 1


def test_one_line_has_no_control_characters():
    assert one_line(ValueError("a\n\x1b[31mb\x00\tc")) == "a [31mb c"


def test_the_installed_command_fails_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flashrt_ros.cli", "demo", "--checkpoint", str(tmp_path / "none")],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


# ---- inspect


def test_inspect_shows_each_decision_with_its_source(capsys):
    code, out, _ = run(capsys, "inspect", str(POLICY_DIR))
    assert code == 0
    assert "None" not in out
    for words in ("4,913,184", "state_in_prompt", "quantile", "flashrt_profile.json", "agentview, wrist", "problems"):
        assert words in out


def test_inspect_json_and_problems(capsys, tmp_path):
    folder = write_checkpoint(tmp_path / "c", norm_stats=False)
    code, out, _ = run(capsys, "inspect", str(folder), "--json")
    report = json.loads(out)
    assert code == 2 and any("norm_stats" in p for p in report["problems"])
    code, out, _ = run(capsys, "inspect", str(folder))
    assert code == 2 and "problem: norm_stats" in out


# ---- predict


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two picture files and the state of a scene of the task, and the observation itself."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    obs = simulated_observations([1])[0]
    names = []
    for i, image in enumerate(obs["images"]):
        names.append(str(folder / f"{i}.png"))
        Image.fromarray(image).save(names[-1])
    Image.fromarray(obs["images"][0]).resize((160, 120)).save(folder / "wide.png")
    return folder, names, [str(x) for x in obs["state"].tolist()], obs


def test_predict_prints_the_chunk_that_predict_returns(capsys, pictures):
    from flashrt_core import load_model

    _, names, state, obs = pictures
    common = [
        "predict",
        "--checkpoint",
        str(POLICY_DIR),
        "--prompt",
        obs["prompt"],
        "--seed",
        "5",
        "--hardware",
        "host",
    ]
    code, out, _ = run(capsys, *common, "--json", "--image", *names, "--state", *state)
    assert code == 0
    model = load_model(str(POLICY_DIR), hardware="host")
    want = model.predict(obs["images"], prompt=obs["prompt"], state=obs["state"], seed=5)
    np.testing.assert_array_equal(np.array(json.loads(out)["actions"], np.float32), want)
    code, out, _ = run(capsys, *common, "--image", *names, "--state", *state)
    assert code == 0 and f"{want[9, 0]:+.4f}" in out


def test_predict_resizes_only_when_told(capsys, pictures):
    folder, names, state, obs = pictures
    common = ["predict", "--checkpoint", str(POLICY_DIR), "--prompt", obs["prompt"], "--hardware", "host"]
    images = ["--image", str(folder / "wide.png"), names[1]]
    assert "image 0 (agentview)" in failed(capsys, *common, *images, "--state", *state)
    assert run(capsys, *common, *images, "--state", *state, "--resize")[0] == 0


def test_predict_refuses_what_is_no_picture_and_no_state(capsys, pictures):
    folder, names, state, obs = pictures
    (folder / "text.png").write_text("not a picture")
    common = ["predict", "--checkpoint", str(POLICY_DIR), "--prompt", obs["prompt"], "--hardware", "host"]
    assert "text.png" in failed(capsys, *common, "--image", str(folder / "text.png"), names[1], "--state", *state)
    assert "state" in failed(capsys, *common, "--image", *names)
    assert "state" in failed(capsys, *common, "--image", *names, "--state", "nan", *state[1:])


# ---- calibrate


def test_calibrate_on_recorded_observations_then_the_cache_is_used(capsys, tmp_path):
    folder = write_checkpoint(tmp_path / "c")
    rng = np.random.default_rng(0)
    file = tmp_path / "frames.npz"
    np.savez(
        file, images=rng.integers(0, 255, (3, 2, 28, 28, 3), dtype=np.uint8), state=rng.normal(size=(3, 8)) / 9,
        prompt=np.array(["pick it up"] * 3),
    )  # fmt: skip
    common = ["--checkpoint", str(folder), "--cache-dir", str(tmp_path / "cache"), "--hardware", "host"]
    code, out, err = run(capsys, "calibrate", *common, "--observations", str(file))
    assert code == 0 and "from 3 observations" in out, err
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"images": np.array([object()]), "prompt": np.array(["a"])}, "an .npz file"),  # pickled: refused unopened
        ({"prompt": np.array(["a"])}, "images"),
        ({"images": np.zeros((1, 2, 8, 8, 3)), "prompt": np.array(["a"])}, "uint8"),
        ({"images": np.zeros((2, 2, 8, 8, 3), np.uint8), "prompt": np.array(["a"] * 3)}, "prompt"),
        ({"images": np.zeros((1, 2, 8, 8, 3), np.uint8), "prompt": np.array([1])}, "prompt"),
        ({"images": np.zeros((1, 2, 8, 8, 3), np.uint8), "prompt": np.array(["a"]), "state": np.zeros(8)}, "state"),
    ],
)
def test_calibrate_refuses_other_arrays(capsys, tmp_path, arrays, words):
    np.savez(tmp_path / "x.npz", **arrays)
    assert words in failed(capsys, "calibrate", "--observations", str(tmp_path / "x.npz"))


# ---- doctor


def test_doctor_says_what_is_there(capsys):
    code, out, _ = run(capsys, "doctor", "--json")
    checks = {c["feature"]: c for c in json.loads(out)}
    assert code == 0 and checks["Python"]["ok"] and checks["demo: bundled policy"]["ok"]
    assert all(c["ok"] or c["fix"] for c in checks.values())
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and "pi05/torch/host" in out


def test_doctor_fails_without_what_is_needed(capsys, monkeypatch):
    from flashrt_ros.commands import doctor

    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    code, out, _ = run(capsys, "doctor")
    assert code == 2 and "pip install torch" in out


def test_doctor_knows_every_extra_and_names_no_package_of_an_index(capsys, monkeypatch):
    """The package is on no index: its extras come from a checkout."""
    from flashrt_ros.commands import doctor

    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    fixes = " ".join(c.fix for c in doctor.all_checks())
    declared = re.findall(r"^([a-z-]+) = \[", (ROOT / "pyproject.toml").read_text().split("optional-dependencies]")[1], re.M)
    assert {"demo", "bag", "lerobot-format", "ray", "rerun"} <= set(declared)
    for extra in set(declared) - {"jax", "dev", "include", "select", "ignore", "testpaths", "addopts", "markers"}:
        assert re.search(rf"-e '\.\[([a-z-]+,)*{extra}\]'", fixes), extra
    assert "flashrt-ros[" not in fixes and "make libero" in fixes and "make ros-demo" in fixes
    run(capsys, "doctor")  # and the table can be drawn


def test_a_mistyped_option_is_answered_with_the_nearest(capsys):
    code, _, err = run(capsys, "demo", "--precission", "fp8")
    assert code == 2 and err.strip().endswith("unknown argument '--precission': did you mean '--precision'?")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["dmo"], "demo"),
        (["bag", "chek"], "check"),
        (["bag", "convert", "--out", "d", "--robot", "r", "--to", "lerobot-v4"], "lerobot-v3"),
    ],
    ids=["command", "command of bag", "choice"],
)
def test_a_mistyped_command_is_answered_with_the_nearest(capsys, words, meant):
    code, _, err = run(capsys, *words)
    assert code == 2 and err.strip().endswith(f"found {words[-1]!r}: did you mean {meant!r}?")


def test_help_is_a_command_too(capsys):
    general, of_demo = run(capsys, "--help"), run(capsys, "demo", "--help")
    assert run(capsys, "help") == general and run(capsys, "help", "demo") == of_demo and of_demo[0] == 0
