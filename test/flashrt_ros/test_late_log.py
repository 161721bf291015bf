"""A log that nobody reads holds nobody up; what it loses is said."""

import logging
import threading

from flashrt_ros.late_log import LateLog


class Stalled(logging.Handler):
    """As a terminal after Ctrl-S: takes a line and lets go of it only when `free` is set."""

    def __init__(self):
        super().__init__()
        self.free, self.taken, self.lines = threading.Event(), threading.Event(), []

    def emit(self, record):
        self.taken.set()
        assert self.free.wait(30)
        self.lines.append(record.getMessage())


def test_the_caller_never_waits_and_lost_lines_are_counted():
    stalled = Stalled()
    late = LateLog(stalled, most=5)
    log = logging.Logger("late")
    log.addHandler(late)
    log.info("line %d", 0)
    assert stalled.taken.wait(30)  # it is being written, for ever
    for i in range(1, 20):
        log.info("line %d", i)  # returns: with the handler itself the test would hang here
    assert late.dropped == 14 and not late.end(0.01)
    stalled.free.set()
    assert late.end(30)
    lines = [line for line in stalled.lines if "dropped" not in line]
    assert lines == [f"line {i}" for i in range(6)]
    assert [line for line in stalled.lines if "dropped" in line] == ["14 log lines were dropped: what reads the log has stalled"]


def test_the_last_lines_are_written_at_the_end():
    stalled = Stalled()
    stalled.free.set()
    late = LateLog(stalled)
    for i in range(100):
        late.handle(logging.LogRecord("x", logging.INFO, __file__, 0, f"{i}", None, None))
    assert late.end(30) and stalled.lines == [str(i) for i in range(100)] and late.dropped == 0
