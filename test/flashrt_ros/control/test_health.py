"""Health: the worst fault decides, each clears by its rule, nothing grows, every row of the table counts."""

from __future__ import annotations

import itertools
import threading

import pytest
from support.arm import ListLogger

from flashrt_ros.control import health as health_module
from flashrt_ros.control.faults import FAULTS, GROUPS, FaultRow, fault_table
from flashrt_ros.control.health import FaultReport, Health, Level

ROWS = list(FAULTS.values())
STATES = [(row.id, level) for row in ROWS for level in (row.levels or (Level.STOP,))]
GOOD = {Level.NOTE: 1, Level.COAST: 3, Level.HOLD: 5}  # FAULTS.md, states and actions


def quiet(**kwargs) -> Health:
    return Health(logger=ListLogger(), **kwargs)


def test_the_table_is_whole():
    assert list(FAULTS) == [f"F{i:02d}" for i in range(1, 91)]
    assert len({row.name for row in ROWS}) == 90 and all(row.name.isidentifier() for row in ROWS)
    assert set(GROUPS) <= set(FAULTS)
    for row in ROWS:
        assert row.levels == tuple(sorted(row.levels)) and Level.OK not in row.levels
        assert row.bound and row.fault and row.expected and set(row.tier) <= set("CRNG,")
        assert len(next(fault_table())) == 7


def test_levels_are_ordered():
    assert [x.name for x in Level] == ["OK", "NOTE", "COAST", "HOLD", "STOP", "EXIT"] == [x.name for x in sorted(Level)]


def all_pairs_are_the_worse(make=quiet) -> int:
    """Raise every two states together: the level is the worse one. Returns the number of pairs of rows."""
    pairs = 0
    for (a, la), (b, lb) in itertools.combinations_with_replacement(STATES, 2):
        health = make()
        health.raise_(a, "x", level=la)
        health.raise_(b, "y", level=lb)
        assert health.level == max(la, lb), (a, la, b, lb)
        assert health.cycle() == max(la, lb)
        assert health.worst.level == max(la, lb)
        pairs += a < b
    return pairs


def test_every_pair_of_faults_yields_the_worse_action():
    assert all_pairs_are_the_worse() >= 4005


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.id)
def test_each_row_acts(row):
    """Alone in an otherwise healthy system, a row gives its own level: none is without effect."""
    health = quiet()
    assert health.cycle() == Level.OK
    health.report([FaultReport(row.id, "injected")])
    wanted = row.levels[0] if row.levels else Level.STOP  # cannot happen at run time: R11, unknown means stop
    assert health.cycle() == wanted > Level.OK
    assert health.counters == {row.name: 1}
    assert health.to_status()["reason"] == f"{row.id} {row.name}: injected"


@pytest.mark.parametrize("row", [r for r in ROWS if r.levels], ids=lambda r: r.id)
def test_disabling_a_row_is_noticed(row, monkeypatch):
    """The mutation check of the two tests above: with the row's action taken away, they fail."""
    tame = FaultRow(row.id, row.name, (Level.OK,), row.bound, row.tier, row.fault, row.expected)
    with monkeypatch.context() as patch:
        patch.setitem(health_module.FAULTS, row.id, tame)
        with pytest.raises(AssertionError):
            test_each_row_acts(row)
    test_each_row_acts(row)


def test_all_pairs_notices_a_health_that_takes_the_first_or_the_best(monkeypatch):
    for wrong in (
        lambda self: next(iter(self._active.values())).level if self._active else Level.OK,
        lambda self: min((e.level for e in self._active.values()), default=Level.OK),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Health, "_worst_level", wrong)
            with pytest.raises(AssertionError):
                all_pairs_are_the_worse()


@pytest.mark.parametrize("level, cycles", GOOD.items())
def test_clears_itself_after_good_cycles(level, cycles):
    row = next(r for r in ROWS if r.levels == (level,))
    health = quiet()
    for _ in range(10):
        health.raise_(row.id)
        assert health.cycle() == level
    for _ in range(cycles - 1):
        assert health.cycle() == level
    assert health.cycle() == Level.OK and health.active == {}
    for _ in range(3):  # a bad cycle in between starts the count again
        health.raise_(row.id)
        health.cycle()
        for _ in range(cycles - 1):
            assert health.cycle() == level


def test_hold_without_auto_resume_waits_for_the_operator():
    health = quiet(auto_resume=False)
    health.raise_("F04")
    assert all(health.cycle() == Level.HOLD for _ in range(100))
    health.operator_clear()
    assert health.cycle() == Level.OK


def test_stop_waits_for_the_operator_and_exit_for_a_restart():
    health = quiet()
    health.raise_("F18")
    assert all(health.cycle() == Level.STOP for _ in range(100))
    health.operator_clear()
    assert health.level == Level.OK
    health.raise_("F64")
    health.operator_clear()
    assert all(health.cycle() == Level.EXIT for _ in range(10))


def test_operator_cannot_clear_what_still_holds():
    health = quiet()
    for _ in range(3):
        health.raise_("F18")
        assert health.cycle() == Level.STOP
        health.operator_clear()
    health.raise_("F18")
    assert health.cycle() == Level.STOP


def test_a_fault_grows_and_falls_by_its_levels():
    health = quiet()
    health.raise_("F20")
    health.raise_("F12", "note")
    assert health.cycle() == Level.HOLD
    health.raise_("F20", "still", level=Level.STOP)
    assert health.cycle() == Level.STOP and health.worst.reason == "still"
    health.clear("F20")
    health.raise_("F12", "held", level=Level.HOLD)
    assert health.cycle() == Level.HOLD
    for k in range(5):  # the note goes on, the hold ends by its own rule
        health.raise_("F12", "note")
        assert health.cycle() == (Level.HOLD if k < 4 else Level.NOTE)
    assert health.cycle() == Level.OK


def test_a_level_below_the_row_counts_as_the_row():
    health = quiet()
    assert health.raise_("F04", level=Level.NOTE) == Level.HOLD


@pytest.mark.parametrize("unknown", ["F00", "F91", "", "frozen", "F13", "F47", "F08"])
def test_unknown_means_stop(unknown):
    """R11. Also for rows that have no level at run time."""
    health = quiet()
    health.raise_(unknown)
    assert health.cycle() == Level.STOP


def test_one_line_per_change_and_bounded_memory():
    log = ListLogger()
    health = Health(logger=log, event_log=16)
    for _ in range(1000):
        health.raise_("F04", "front: frozen for some time")
        health.raise_("F03", "slow")
        health.cycle(1)
    assert len(log.lines) == 2
    for _ in range(5):
        health.cycle(2)
    assert len(log.lines) == 4 and [e.kind for e in health.events] == ["raise", "raise", "clear", "clear"]
    assert "frozen for some time (hold)" in log.lines[0] and all(line.endswith("is over") for line in log.lines[2:])
    for k in range(10_000):
        health.raise_("F03", f"{k}")
        health.cycle(k)
        health.cycle(k)
    assert len(health.events) == 16 and health.counters == {"frozen_image": 1, "camera_slow": 10_001}
    assert health.active == {}


def test_status_is_plain_data():
    import json

    health = quiet()
    assert health.to_status() == {
        "level": 0, "state": "ok", "action": "run", "reason": "", "faults": [], "counters": {},
    }  # fmt: skip
    health.raise_("F03", "slow", now_ns=5)
    health.raise_("F04", "frozen", now_ns=7)
    status = json.loads(json.dumps(health.to_status()))
    assert status["state"] == "hold" and status["reason"].startswith("F04 frozen_image")
    assert [f["id"] for f in status["faults"]] == ["F04", "F03"] and status["faults"][1]["since_ns"] == 5
    assert all(isinstance(e.to_json()["level"], str) for e in health.events)


def test_the_reason_is_the_newest_one():
    health = quiet()
    for k in range(3):
        health.raise_("F15", f"age {k}")
        health.cycle()
    assert health.to_status()["reason"].endswith("age 2")


def test_threads_may_raise_while_the_control_thread_cycles():
    health = quiet()
    stop = threading.Event()

    def noise(fault):
        while not stop.is_set():
            health.raise_(fault, "x")
            health.to_status()

    threads = [threading.Thread(target=noise, args=(f,)) for f in ("F03", "F05", "F15")]
    for t in threads:
        t.start()
    try:
        levels = {health.cycle() for _ in range(2000)}
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert levels <= {Level.OK, Level.NOTE, Level.COAST, Level.HOLD}


def test_module_prints_the_table(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["health", "--table"])
    assert health_module.main() == 0
    out = capsys.readouterr().out
    assert all(row.id in out and row.name in out for row in ROWS)
    monkeypatch.setattr("sys.argv", ["health", "--tabel"])
    assert health_module.main() == 2
