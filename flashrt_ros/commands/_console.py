"""The console that the subcommands print tables with."""

from __future__ import annotations

PIPE_COLUMNS = 120  # width of a table that goes to a file or another program


def open_console():
    """A rich console as wide as the terminal; markup off-limits to data (wrap it in Text), no automatic colours."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    return console
