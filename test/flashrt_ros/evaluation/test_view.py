"""Watching live: pictures in a terminal, and a clear error where there is neither window nor terminal."""

import io
import sys

import numpy as np
import pytest
from rich.console import Console

from flashrt_core.errors import ConfigError
from flashrt_ros.evaluation.closed_loop import Episode
from flashrt_ros.evaluation.view import TERMINAL_PX, TerminalView, half_blocks, open_view


class Scene:
    steps = 3

    def frame(self, size: int, samples: int) -> np.ndarray:
        return np.zeros((size, size, 3), np.uint8)


def test_two_pixels_a_character():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 1] = (255, 0, 0)
    text = half_blocks(image)
    assert text.plain == "▀▀▀\n"
    assert text.spans[1].style.color.triplet == (255, 0, 0) and text.spans[1].style.bgcolor.triplet == (0, 0, 0)


def test_terminal_is_redrawn_in_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)  # no window on this machine
    out = io.StringIO()
    view = open_view(Console(file=out, force_terminal=True, width=120, color_system="truecolor"))
    assert isinstance(view, TerminalView)
    for _ in range(2):
        view(Scene(), None, Episode(0, "pick up the red block"))
    assert out.getvalue().count("pick up the red block") == 2
    assert f"\x1b[{TERMINAL_PX // 2 + 1}A" in out.getvalue()


def test_neither_window_nor_terminal(monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(ConfigError, match="--view"):
        open_view(Console(file=io.StringIO(), force_terminal=False))
