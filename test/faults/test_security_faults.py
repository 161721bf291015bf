"""Security rows of the fault matrix: nothing runs code, opens a socket or starts a process; hostile prompts are refused."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from flashrt_core import load_model
from flashrt_core.errors import ObservationError
from flashrt_ros.evaluation.rollout import simulated_observations
from flashrt_ros.sim.tabletop import POLICY_DIR

# An audit hook cannot be removed, so it lives in a process of its own. `exec` is raised for each imported module's own
# code too: only code compiled from text ("<string>" and the like) is what data could have smuggled in.
WATCH = """
    import sys, json
    seen = []
    watching = False
    def hook(event, args):
        if not watching:
            return
        if event in ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
                     "socket.connect", "socket.bind", "socket.getaddrinfo"):
            seen.append(event)
        if event == "exec" and getattr(args[0], "co_filename", "").startswith("<") \\
                and not args[0].co_filename.startswith("<frozen"):
            seen.append(f"exec {args[0].co_filename} {args[0].co_name}")
    sys.addaudithook(hook)
"""
# The first round imports what is imported on demand (namedtuple of the standard library runs `exec`); the second is watched.
USE = """
    import numpy as np
    from flashrt_core import load_model
    for cache in ({cache!r} + "/warm", {cache!r} + "/watched"):
        watching = cache.endswith("watched")
        model = load_model({checkpoint!r}, hardware="host", use_fp8={fp8}, calibration_dir=cache)
        image = np.zeros((112, 112, 3), np.uint8)
        actions = model.predict([image, image], prompt="pick up the red block", state=np.zeros(8, np.float32), seed=0)
    assert actions.shape == (10, 7)
"""


def watched(code: str) -> list[str]:
    """Events seen between `watching = True` and the end of a script."""
    script = textwrap.dedent(WATCH) + textwrap.dedent(code) + "\nwatching = False\nprint(json.dumps(seen))\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("fp8", [False, True])
def test_F87_load_and_predict_run_nothing_from_data(tmp_path, fp8):
    assert watched(USE.format(checkpoint=str(POLICY_DIR), fp8=fp8, cache=str(tmp_path))) == []


@pytest.mark.parametrize(
    "planted, event",
    [
        ("exec('1')", "exec <string>"),
        ("import pickle; pickle.loads(pickle.dumps(json.JSONDecoder))", "pickle.find_class"),
        ("import socket; socket.socket().bind(('127.0.0.1', 0))", "socket.bind"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import os; os.system('true')", "os.system"),
    ],
)
def test_F87_the_hook_sees_each_kind(planted, event):
    assert any(s.startswith(event) for s in watched(f"watching = True\n{planted}"))


@pytest.fixture(scope="module")
def model():
    return load_model(str(POLICY_DIR), hardware="host")


@pytest.fixture(scope="module")
def observation():
    return simulated_observations([1])[0]


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "x" * 2**20, "pick\0up", "pick up\x1b[2J the red block", "a\u0085b", "\ud800", None, 7, b"pick up"],
    ids=["empty", "blank", "1 MB", "NUL", "escape", "C1", "lone surrogate", "None", "number", "bytes"],
)
def test_F86_prompt_that_cannot_be_one(model, observation, prompt):
    images, state = observation["images"], observation["state"]
    before = model.predict(images, prompt=observation["prompt"], state=state, seed=1)
    if prompt is not None:  # None means: keep the prompt
        with pytest.raises(ObservationError, match="prompt"):
            model.predict(images, prompt=prompt, state=state, seed=1)
    np.testing.assert_array_equal(model.predict(images, state=state, seed=1), before)  # nothing was lost


def test_F86_message_does_not_repeat_a_long_prompt(model, observation):
    with pytest.raises(ObservationError) as caught:
        model.predict(observation["images"], prompt="x" * 2**20, state=observation["state"])
    assert len(str(caught.value)) < 500


def test_F86_prompt_over_the_token_limit_names_the_limit(model, observation):
    with pytest.raises(ObservationError, match="48"):
        model.predict(observation["images"], prompt="zyx " * 60, state=observation["state"])
