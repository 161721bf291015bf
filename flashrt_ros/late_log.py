"""LateLog: log records are written by a thread of their own, so that a stalled terminal or disk never holds up the control tick."""

from __future__ import annotations

import logging
import queue
import threading

MOST = 1000  # records that wait; more are dropped and counted


class LateLog(logging.Handler):
    """Hands records on to `target` in their order, from another thread. `emit` never waits (rule R2)."""

    def __init__(self, target: logging.Handler, most: int = MOST):
        super().__init__(target.level)
        self.dropped = 0
        self._target = target
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._write, name="flashrt-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._records.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        told = 0
        while (record := self._records.get()) is not None:
            self._target.handle(record)
            if self.dropped > told:
                lost, told = self.dropped - told, self.dropped
                text = f"{lost} log lines were dropped: what reads the log has stalled"
                self._target.handle(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None))

    def end(self, timeout_s: float = 0.5) -> bool:
        """Write what waits, for so long at most; whether all of it was written."""
        try:
            self._records.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()
