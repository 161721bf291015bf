"""Watch episodes live: in a window where there is a desktop, else drawn in the terminal."""

from __future__ import annotations

import numpy as np

from flashrt_core.errors import ConfigError

from .closed_loop import Episode, Observation

WINDOW_PX = 480
TERMINAL_PX = 48  # pictures in the terminal: this wide in characters


def open_view(console):
    """A `watch` for `run_episode`: Window, TerminalView, or ConfigError when there is neither."""
    try:
        return Window()
    except Exception:  # no tkinter (ImportError) or no display (tkinter.TclError, whose module may be missing)
        if console.is_terminal:
            return TerminalView(console)
    raise ConfigError(
        "--view", expected="a desktop session with tkinter, or a terminal", found="neither",
        hint="Leave --view out: the report has pictures and a film",
    )  # fmt: skip


class Window:
    """A small desktop window with the scene and the prompt. Closing it ends the run."""

    def __init__(self) -> None:
        import tkinter

        from PIL import Image, ImageTk

        self._images, self._tk_images = Image, ImageTk
        self._root = tkinter.Tk()
        self._root.title("FlashRT demo")
        self._open = True
        self._root.protocol("WM_DELETE_WINDOW", self._close)
        self._picture = tkinter.Label(self._root)
        self._picture.pack()
        self._words = tkinter.Label(self._root, font=("", 14), padx=8, pady=8)
        self._words.pack()

    def _close(self) -> None:
        self._open = False

    def __call__(self, env, obs: Observation | None, episode: Episode) -> None:
        frame = env.frame(size=WINDOW_PX // 2, samples=1)
        picture = self._images.fromarray(frame).resize((WINDOW_PX, WINDOW_PX))
        self._shown = self._tk_images.PhotoImage(picture)  # kept: Tk does not hold a reference
        self._picture.configure(image=self._shown)
        self._words.configure(text=f"{episode.prompt}   (step {env.steps})")
        self._root.update()
        if not self._open:
            self._root.destroy()
            raise KeyboardInterrupt


class TerminalView:
    """The scene in half-block characters, redrawn in place: two pixels a character, 24-bit colour."""

    def __init__(self, console):
        self._console = console
        self._rows = 0

    def __call__(self, env, obs: Observation | None, episode: Episode) -> None:
        from rich.control import Control

        text = half_blocks(env.frame(size=TERMINAL_PX, samples=2))
        text.append(f"{episode.prompt}   step {env.steps:<4}")
        if self._rows:
            self._console.control(Control.move(0, -self._rows), Control.move_to_column(0))
        self._console.print(text, soft_wrap=True)
        self._rows = TERMINAL_PX // 2 + 1


def half_blocks(image: np.ndarray):
    """A uint8 picture [H, W, 3] with even H as rich text of H/2 lines."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    text = Text()
    for upper, lower in zip(image[0::2], image[1::2], strict=True):
        for a, b in zip(upper, lower, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*map(int, a)), bgcolor=Color.from_rgb(*map(int, b))))
        text.append("\n")
    return text
