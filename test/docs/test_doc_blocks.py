"""Every shell and Python block of README and docs runs as it stands, or as the smaller line written down here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkers import ROOT
from support.doc_blocks import blocks

FILES = ["README.md", "CONTRIBUTING.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))]
BLOCKS = [b for name in FILES for b in blocks(name, (ROOT / name).read_text(encoding="utf-8"))]

# Lines that need the simulator of `make libero`: they run up to where it is missing, with all their words.
LIBERO = (
    "flashrt libero --suite robosuite_lift --episodes 5",
    "flashrt libero --suite robosuite_lift --policy demo-replay --episodes 3 --out replay-out",
    "flashrt libero --suite robosuite_lift --splice sync none quintic --latency-ms 0 100 200 --episodes 10 --out latency-out",
)
NO_SIMULATOR = "({} --sim-python no/python 2>&1 || true) | grep 'make libero'"
# A line that is too slow for the suite -> the smaller line that is run for it.
SMALLER = {
    "make demo": "make -n demo | grep 'flashrt demo' && flashrt demo --episodes 1",
    "make test": "make -n test | grep pytest",
    "flashrt bench --random full --sweep --out bench/results/pi05_h200.json && python tools/perf_tables.py --docs": (
        "flashrt bench --random tiny --hardware host --replays 2 --warmup 1 --num-steps 2 --threads 1 --out b.json && "
        "test -s b.json && python tools/perf_tables.py"
    ),
    "make ros-env": "make -n ros-env | grep requirements/ros.txt",
    "make ros-build": "make -n -W package.xml ros-build | grep ros/build.sh",
    "make ros-test": "make -n ros-test | grep test/ros",
    "make ros-demo": "make -n ros-demo | grep flashrt_ros.ros_demo",
    "make libero": "make -n -W requirements/libero.txt libero | grep requirements/libero.txt",
    **{line: NO_SIMULATOR.format(line) for line in LIBERO},
    "python bench/libero_lift.py --episodes 20 --workers 2": "python bench/libero_lift.py --help | grep -e --workers",
    "flashrt demo": "flashrt demo --episodes 1",
    "flashrt demo --episodes 3 --latency-ms 100 --splice quintic": (
        "flashrt demo --episodes 1 --latency-ms 100 --splice quintic"
    ),
    "flashrt demo --episodes 2 --seed 500100": "flashrt demo --episodes 1 --seed 500100",
    "flashrt demo --episodes 2 --precision fp8 --out fp8-out": "flashrt demo --episodes 1 --precision fp8 --out fp8-out",
    "python tools/eval_tabletop.py --jobs 2": (
        "python tools/eval_tabletop.py --only fp32 --episodes 1 --out e.json && test -s e.json"
    ),
    "flashrt libero --suite libero_spatial --checkpoint pi05_libero --workers 4 --out spatial-out": (
        "(flashrt libero --suite libero_spatial --checkpoint pi05_libero --out spatial-out 2>&1 || true) | grep 'model.safetensors'"
    ),
    "flashrt libero --suite robosuite_lift --via ros --rate 0.25 --camera-hz 5 --episodes 5": (
        "(flashrt libero --via ros --rate 0.25 --camera-hz 5 --episodes 2 2>&1 || true) | grep 'make ros-build'"
    ),
    'make train TRAIN_ARGS="--device cuda --compile --workers 15 --minutes 8"': (
        "make -n train | grep tools/train.py; python tools/train.py --help | grep -e --compile; python tools/export.py -h"
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that looks like a checkout with `flashrt` and `python` on the PATH; what a block writes stays in it."""
    folder = tmp_path_factory.mktemp("checkout")
    names = "flashrt_core flashrt_ros tools bench Makefile requirements pyproject.toml test"
    for name in f"{names} ros CMakeLists.txt package.xml msg scripts launch config".split():
        (folder / name).symlink_to(ROOT / name)
    commands = folder / "bin"
    commands.mkdir()
    for name, line in (("flashrt", "-m flashrt_ros.cli"), ("python", "")):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {line} "$@"\n')
        script.chmod(0o755)
    env = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    return folder, env


def smaller(body: str) -> str:
    return "".join(SMALLER.get(line.strip(), line) + "\n" for line in body.splitlines())


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind in ("bash", "python") and not b.why_not], ids=str)
def test_block_runs(block, place):
    folder, env = place
    if block.kind == "python":
        command = [sys.executable, "-c", block.body]
    else:
        command = ["bash", "-euo", "pipefail", "-c", smaller(block.body)]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{block}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "json"], ids=str)
def test_json_block_is_json(block):
    json.loads(block.body)


def test_smaller_lines_stand_for_lines_that_exist():
    lines = {line.strip() for b in BLOCKS for line in b.body.splitlines()}
    assert set(SMALLER) <= lines


def test_every_block_says_its_language_and_few_are_not_run():
    kinds = {b.kind for b in BLOCKS}
    assert kinds <= {"bash", "python", "json"}, kinds
    assert all((ROOT / name).read_text().count("\n```") % 2 == 0 for name in FILES)
    reasons = {b.why_not for b in BLOCKS if b.why_not}
    assert reasons <= {"installs into the reader's environment", "needs a ROS 2 install"}, reasons


def test_links_between_pages_lead_somewhere():
    for name in FILES:
        prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", (ROOT / name).read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            assert ((ROOT / name).parent / target).exists(), f"{name} -> {target}"


def test_readme_example_is_ten_lines():
    example = next(b for b in BLOCKS if b.file == "README.md" and b.kind == "python")
    assert len([line for line in example.body.splitlines() if line.strip()]) <= 12


def test_a_broken_block_is_caught(place):
    folder, env = place
    found = blocks(
        "x.md", "text\n\n```bash\nfalse | true\n```\n\n<!-- not run: needs a robot -->\n```python\n1/0\n```\n"
    )
    assert [(b.kind, b.line, b.why_not) for b in found] == [("bash", 3, None), ("python", 8, "needs a robot")]
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", smaller(found[0].body)], cwd=folder, env=env, check=False)
    assert done.returncode != 0


def test_the_checkout_folder_is_not_the_repository(place):
    assert Path(place[0]).resolve() != ROOT
