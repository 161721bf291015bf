"""The progress bar of a run of episodes, with the running success count."""

from __future__ import annotations

from ..evaluation.closed_loop import Episode


class EpisodeProgress:
    """A context manager: a rich bar in a terminal, one line an episode elsewhere, nothing when `hidden`."""

    def __init__(self, console, total: int, hidden: bool = False):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console, self._total, self._hidden = console, total, hidden
        self._live = console.is_terminal and not hidden
        columns = (
            TextColumn("episodes"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[wins]}"),
            TimeElapsedColumn(), TextColumn("[dim]{task.fields[last]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, disable=not self._live)
        self._task = self._bar.add_task("episodes", total=total, wins="", last="loading the policy ...")
        self._done = self._wins = 0

    def __enter__(self) -> EpisodeProgress:
        if not (self._live or self._hidden):
            self._console.print("loading the policy ...")
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
