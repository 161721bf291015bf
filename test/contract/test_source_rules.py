"""The rules of the source tree, each checked on every file and shown to catch a planted violation."""

import ast
import importlib
from collections import Counter

import pytest
from support import checkers
from support.checkers import PACKAGES, ROOT, source_files

from flashrt_core.hardware import _PIPELINE_MAP

# checker -> (folders it walks, [(path, planted text)...] that it must reject, [...] that it must accept)
RULES = {
    checkers.check_arrow: (
        PACKAGES,
        [
            ("flashrt_core/ops/x.py", "from ..models.pi05 import dims"),
            ("flashrt_core/blocks/x.py", "import flashrt_core.frontends.base"),
            ("flashrt_core/models/pi05/x.py", "def f():\n    from ...frontends import base"),
            ("flashrt_core/core/x.py", "from ..hardware import detect_arch"),
            ("flashrt_core/api.py", "import flashrt_ros"),
            ("flashrt_ros/x.py", "from flashrt_core.models.pi05 import dims"),
            ("flashrt_ros/sim/x.py", "from tools import expert"),
            ("flashrt_ros/evaluation/demo.py", "from ..commands import demo"),
        ],
        [
            ("flashrt_core/frontends/x.py", "from ..models.pi05 import dims\nfrom ..errors import OpError"),
            ("flashrt_core/runtime/x.py", "from .chunk import align"),
            ("flashrt_ros/x.py", "from flashrt_core import load_model\nfrom flashrt_core.runtime.rtc import RTCConfig"),
        ],
    ),
    checkers.check_framework_imports: (
        PACKAGES,
        [
            ("flashrt_core/models/pi05/x.py", "import torch"),
            ("flashrt_core/blocks/x.py", "try:\n    import jax.numpy as jnp\nexcept ImportError:\n    pass"),
            ("flashrt_core/ops/table.py", "from torch import nn"),
            ("flashrt_core/frontends/x.py", "import rclpy"),
            ("flashrt_ros/control/guard.py", "from rclpy.node import Node"),
            ("flashrt_ros/sim/lockstep.py", "import rclpy"),
        ],
        [
            ("flashrt_ros/node.py", "from rclpy.node import Node"),
            ("flashrt_core/hardware/host/ops.py", "import torch"),
            ("flashrt_core/models/pi05/x.py", "def f():\n    import torch"),
        ],
    ),
    checkers.check_hardware_fork: (
        ("flashrt_core",),
        [
            ("flashrt_core/models/pi05/pipeline_host.py", "def f(ops):\n    if ops.arch == 'host':\n        return 1"),
            ("flashrt_core/blocks/x.py", "def f(ops):\n    return 1 if hasattr(ops, 'fp8') else 0"),
            ("flashrt_core/blocks/x.py", "def f(hardware):\n    while hardware.sm90:\n        pass"),
        ],
        [("flashrt_core/blocks/x.py", "def f(n):\n    if n == 0:\n        return 1"), ("flashrt_core/api.py", "hasattr(1, 'a')")],
    ),
    checkers.check_code_runners: (
        (*PACKAGES, "tools"),
        [
            ("x.py", "import pickle"), ("x.py", "from marshal import loads"), ("x.py", "eval('1')"), ("x.py", "exec('1')"),
            ("x.py", "import os\nos.system('ls')"), ("x.py", "import torch\ntorch.load('a.pt')"), ("x.py", "import subprocess"),
            ("x.py", "import yaml\nyaml.load(f)"), ("x.py", "np.load('a.npz')"), ("x.py", "np.load('a', allow_pickle=True)"),
        ],
        [("x.py", "np.load('a.npz', allow_pickle=False)\nyaml.load(f, Loader=yaml.SafeLoader)\nre.compile('a')\nm.eval()")],
    ),
    checkers.check_environment: (
        PACKAGES,
        [("x.py", "import os\nos.environ['A']"), ("x.py", "import os\nos.getenv('A')"), ("x.py", "from os import environ")],
        [("x.py", "import os\nos.path.join('a')")],
    ),
    checkers.check_print: (
        PACKAGES,
        [("flashrt_core/x.py", "print(1)"), ("flashrt_ros/evaluation/demo.py", "def f():\n    print(1)")],
        [("flashrt_ros/commands/x.py", "print(1)"), ("flashrt_core/x.py", "console.print(1)")],
    ),
    checkers.check_length: (
        (*PACKAGES, "tools", "test"),
        [("x.py", "a = 1\n" * 451)],
        [("x.py", "a = 1\n" * 440)],
    ),
    checkers.check_top_docstring: ((*PACKAGES, "tools"), [("x.py", "import os")], [("x.py", '"""One thing."""'), ("x.py", "")]),
    checkers.check_private_words: (
        (*PACKAGES, "tools", "test"),
        [("x.py", "open('/wo" + "rk/main/a')")],
        [("x.py", "network/path")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", RULES, ids=lambda c: c.__name__)
def test_tree_obeys(check):
    folders, _, _ = RULES[check]
    files = source_files(*folders)
    assert len(files) > 20 or folders == ("flashrt_core",)
    bad = [line for f in files for line in check(f.relative_to(ROOT).as_posix(), f.read_text(encoding="utf-8"))]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("check", RULES, ids=lambda c: c.__name__)
def test_checker_catches_a_planted_violation(check):
    _, planted, fine = RULES[check]
    for path, text in planted:
        assert check(path, text), f"{check.__name__} let pass: {text}"
    for path, text in fine:
        assert not check(path, text), check(path, text)


def test_pipeline_map_is_one_to_one():
    rows = list(_PIPELINE_MAP.items())
    assert rows and [r for r, n in Counter(target for _, target in rows).items() if n > 1] == []
    for (model, framework, arch), (module, name) in rows:
        if not module.startswith("flashrt_core."):
            continue  # a plug-in's row
        assert module == f"flashrt_core.frontends.{framework}.{model}_{arch}"
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file()
        assert (ROOT / f"flashrt_core/models/{model}/pipeline_{arch}.py").is_file()
        words = [model, framework, "frontend", *arch.split("_")]
        assert name == "".join(w.capitalize() for w in words), f"{name} is not named by its row"
        assert isinstance(getattr(importlib.import_module(module), name), type)


def test_every_frontend_and_pipeline_file_has_a_row():
    frontends = {module for module, _ in _PIPELINE_MAP.values()}
    archs = {(m, a) for m, _, a in _PIPELINE_MAP}
    for path in source_files("flashrt_core/frontends/torch", "flashrt_core/frontends/jax"):
        classes = [n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)]
        if any("Frontend" in c for c in classes):
            assert checkers.module_name(path.relative_to(ROOT).as_posix()) in frontends
    for path in (ROOT / "flashrt_core/models").glob("*/pipeline_*.py"):
        assert (path.parent.name, path.stem.removeprefix("pipeline_")) in archs


def test_no_private_words_in_any_text_file():
    files = [
        f for f in source_files(".", suffix="") if f.suffix not in (".safetensors", ".model", ".npz", ".png", ".gif")
    ]
    assert any(f.name == "Makefile" for f in files)
    bad = [
        line
        for f in files
        for line in checkers.check_private_words(f.relative_to(ROOT).as_posix(), f.read_text(encoding="utf-8"))
    ]
    assert not bad, "\n".join(bad)
