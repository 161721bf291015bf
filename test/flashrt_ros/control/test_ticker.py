"""The control thread: deadlines on a fixed grid, skipped when missed, and a histogram that does not grow."""

import threading
import time

import numpy as np
import pytest
from support.rig import until

from flashrt_core.errors import ConfigError
from flashrt_ros.control.ticker import Histogram, TickThread

T = 0.02


def run(tick, ticks: int, period_s: float = T, **options) -> TickThread:
    ticker = TickThread(tick, period_s, **options)
    ticker.start()
    until(lambda: ticker.ticks >= ticks)
    assert ticker.stop()
    return ticker


def test_ticks_stay_on_the_grid():
    """Deadline k is t0 + k T: the mean lateness does not grow with k."""
    at = []

    def tick(late, skipped):
        at.append((time.monotonic() - late, skipped))
        time.sleep(0.002)  # 100 ms over the run, if it added up

    ticker = run(tick, 50)
    starts = np.array([a for a, _ in at])
    numbers = np.cumsum([1 + s for _, s in at]) - 1  # of the grid
    off = starts - starts[0] - numbers * T
    assert np.abs(off - np.median(off)).max() < 0.004, "what is left is the time between the clock and our reading it"
    assert ticker.ticks == len(at)


def test_missed_ticks_are_skipped_and_counted():
    calls = []

    def tick(late, skipped):
        calls.append((time.monotonic(), skipped))
        if len(calls) == 5:
            time.sleep(4.5 * T)

    ticker = run(tick, 15)
    assert calls[5][1] >= 4 and ticker.skipped >= 4
    assert calls[5][0] - calls[4][0] > 4.4 * T
    rest = np.diff([t for t, _ in calls[5:]])
    assert rest.min() > 0.3 * T, "no burst afterwards"


def test_a_tick_of_exactly_one_period_does_not_lose_every_second_one():
    ticker = run(lambda late, skipped: time.sleep(0.9 * T), 10)
    assert ticker.skipped <= 5


def test_a_tick_that_raises_is_followed_by_the_next(caplog):
    calls = []

    def tick(late, skipped):
        calls.append(1)
        raise ValueError("broken tick")

    run(tick, 5)
    assert len(calls) >= 5 and "broken tick" in caplog.text


def test_stop_from_inside_and_twice():
    ticker = TickThread(lambda late, skipped: ticker.stop(), T)
    assert ticker.stop() and not ticker.running
    ticker = TickThread(lambda late, skipped: ticker.stop(), T)
    ticker.start()
    until(lambda: not ticker.running)
    assert ticker.ticks == 1 and ticker.stop()
    with pytest.raises(ConfigError, match="a new one"):
        ticker.start()


def test_stop_does_not_wait_for_a_long_period():
    ticker = TickThread(lambda late, skipped: None, 30.0)
    ticker.start()
    until(lambda: ticker.ticks == 1)
    begin = time.monotonic()
    assert ticker.stop() and time.monotonic() - begin < 0.5


def test_stop_says_when_a_tick_hangs():
    gate = threading.Event()
    ticker = TickThread(lambda late, skipped: gate.wait(5), T)
    ticker.start()
    until(lambda: ticker.ticks == 1)
    assert not ticker.stop(0.05)
    gate.set()
    assert ticker.stop()


def test_spinning_meets_the_deadline_too():
    ticker = run(lambda late, skipped: None, 20, spin_s=0.001)
    assert ticker.lateness.percentile(50) < T / 2


@pytest.mark.parametrize("bad", [{"period_s": 0.0}, {"period_s": float("nan")}, {"period_s": T, "spin_s": T}], ids=str)
def test_refuses(bad):
    with pytest.raises(ConfigError):
        TickThread(lambda late, skipped: None, **bad)


def test_histogram_percentiles_are_right_to_its_bin_width():
    r = np.random.default_rng(0)
    values = np.exp(r.normal(np.log(1e-3), 1.0, 20_000))
    histogram = Histogram()
    for v in values:
        histogram.add(float(v))
    for p in (50, 99, 99.9):
        true = np.percentile(values, p)
        assert true * 0.98 <= histogram.percentile(p) <= true * 1.14
    assert histogram.max_s == values.max() and histogram.percentile(100) == values.max()
    out = histogram.to_json()
    assert sum(n for _, n in out["bins"]) == out["count"] == 20_000 and out["mean_s"] == pytest.approx(values.mean())


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e-5, 10.0, 1e6])
def test_histogram_takes_any_duration(value):
    histogram = Histogram()
    histogram.add(value)
    assert histogram.percentile(50) == value and len(histogram.counts) == len(Histogram().counts)


def test_empty_histogram():
    assert Histogram().percentile(99) == 0.0 and Histogram().to_json()["bins"] == []
