"""Makes `support` importable from every test, whatever directory pytest was started in, and adds the options for GPU runs."""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_addoption(parser):
    parser.addoption("--require-gpu", action="store_true", help="fail instead of leaving the GPU tests out")
    parser.addoption("--op-examples", type=int, default=0, help="cases per op in test/ops (0: each test's own number)")
    parser.addoption("--soak-replays", type=int, default=2000, help="calls of the GPU soak (30000 is the long form)")
    parser.addoption("--soak-size", default="demo", help="random weights of the GPU soak: tiny, demo or full")


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a Hopper GPU and the built kernels")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started with `&`: the commands that tests interrupt would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--require-gpu"):
        from support.machines import hopper_missing

        if hopper_missing():
            pytest.exit(f"--require-gpu: {hopper_missing()}", returncode=3)


def pytest_collection_modifyitems(config, items):
    from support.machines import hopper_missing

    if any(item.get_closest_marker("gpu") for item in items) and hopper_missing():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=hopper_missing()))
