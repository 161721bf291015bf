"""The progress of a replay: a bar over the bag's time in a terminal, a line a bag elsewhere."""

from __future__ import annotations


class ReplayProgress:
    """A context manager."""

    def __init__(self, console):
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._console, self._live = console, console.is_terminal
        columns = (
            TextColumn("{task.fields[bag]}"), BarColumn(24), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[last]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, disable=not self._live)
        self._task = self._bar.add_task("replay", total=1.0, bag="replay", last="loading the policy ...")
        self._said = ""

    def __enter__(self) -> ReplayProgress:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def phase(self, text: str) -> None:
        """What goes on before the first tick."""
        self._bar.update(self._task, last=text)
        word = text.split(":")[0]
        if not self._live and word != self._said:
            self._said = word
            self._console.print(text, markup=False)

    def tick(self, bag: str, ticks: int, share: float) -> None:
        """Somewhere in a bag; share: of all bags."""
        self._bar.update(self._task, completed=share, bag=bag, last=f"{ticks} ticks")

    def bag_done(self, outcome, done: int, bags: int) -> None:
        """A bag is finished, `done` of `bags` are."""
        text = f"{outcome.bag}: {outcome.ticks} ticks, {outcome.requests} requests"
        text += f" ({done} of {bags} bags)" if bags > 1 else ""
        self._bar.update(self._task, completed=done / bags, bag=outcome.bag, last=text)
        if not self._live:
            self._console.print(text, markup=False)
