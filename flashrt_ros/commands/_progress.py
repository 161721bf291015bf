"""Progress bars: of a run of episodes, with the running success count, and of things that are counted."""

from __future__ import annotations

import time

from ..evaluation.closed_loop import Episode


class EpisodeProgress:
    """A context manager: a rich bar in a terminal, one line an episode elsewhere, nothing when `hidden`."""

    def __init__(self, console, total: int, hidden: bool = False, first: str = "loading the policy ..."):
        """first: what is said until there is something else to say."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console, self._total, self._hidden, self._first = console, total, hidden, first
        self._live = console.is_terminal and not hidden
        columns = (
            TextColumn("episodes"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[wins]}"),
            TimeElapsedColumn(), TextColumn("[dim]{task.fields[last]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, disable=not self._live)
        self._task = self._bar.add_task("episodes", total=total, wins="", last=first)
        self._done = self._wins = 0

    def __enter__(self) -> EpisodeProgress:
        if not (self._live or self._hidden):
            self._console.print(self._first)
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def phase(self, text: str) -> None:
        """Show what goes on while no episode runs."""
        self._bar.update(self._task, last=text)
        if not (self._live or self._hidden):
            self._console.print(text)

    def episode_done(self, episode: Episode) -> None:
        """Count an episode and show what became of it."""
        self._done += 1
        self._wins += episode.success
        word = "done" if episode.success else episode.error or "not done"
        last = f"{episode.prompt}: {word}, {episode.steps} steps"
        self._bar.update(self._task, advance=1, wins=f"{self._wins}/{self._done} succeeded", last=last)
        if not (self._live or self._hidden):
            self._console.print(f"episode {self._done}/{self._total}  {self._wins} succeeded  {last}")


class CountProgress:
    """A context manager: a rich bar of things counted, in a terminal; elsewhere a line every LINE_S, or nothing when `hidden`.

    `at(done, total)` moves it; total may change.
    """

    LINE_S = 5.0

    def __init__(self, console, what: str, hidden: bool = False):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console, self._what, self._hidden = console, what, hidden
        live = console.is_terminal and not hidden
        self._lines = not (live or hidden)
        self._bar = Progress(
            TextColumn(what), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), console=console, disable=not live,
            transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(what, total=None)
        self._said = time.monotonic()

    def __enter__(self) -> CountProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def at(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
        if self._lines and time.monotonic() - self._said > self.LINE_S:
            self._said = time.monotonic()
            self._console.print(f"{done}/{total} {self._what}")
