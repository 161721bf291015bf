"""Ctrl-C belongs to the process that the user started: those that it starts itself do not hear it and are ended by it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def children_without_interrupts() -> Iterator[None]:
    """Processes that this thread starts inside never get SIGINT: a signal mask is inherited.

    A terminal sends SIGINT to all processes of a command. One that is just starting would print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
