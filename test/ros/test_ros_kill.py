"""F64: the node killed in each lifecycle state leaves an arm at rest, no worker, no shared memory; F65: a raising transition."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from rig_ros import FakeArm, Inside, NodeProcess, script, until

from flashrt_ros.node import LEASE_S

STATES = (
    "unconfigured", "configuring", "inactive", "activating", "active", "deactivating", "cleaningup", "shuttingdown",
    "finalized",
)  # fmt: skip


@pytest.fixture(scope="module")
def arm(probe):
    with FakeArm(probe) as a:
        yield a


def reach(probe, arm, state: str, node: str) -> None:
    """Drive the node into a state or into a transition, which is left under way."""

    def later(transition: str | int) -> None:
        threading.Thread(target=lambda: _quiet(probe, transition, node), daemon=True).start()

    probe.state(node)
    if state in ("unconfigured", "configuring"):
        if state == "configuring":
            later("configure")
    else:
        probe.to("configure", name=node)
    if state == "activating":
        arm.camera_hz = 0.0  # it waits for inputs
        time.sleep(0.7)
        later("activate")
    if state in ("active", "deactivating", "cleaningup", "shuttingdown"):
        probe.to("activate", name=node)
        sent = len(arm.commands)
        until(lambda: len(arm.commands) > sent + 25, 5)
    if state == "deactivating":
        later("deactivate")
    if state == "cleaningup":
        time.sleep(0.5)  # the scripted hang has begun: the worker does not end kindly
        probe.to("deactivate", name=node)
        later("cleanup")
    if state == "shuttingdown":
        later(7)
    if state == "finalized":
        assert probe.change(6, node)
    heard = probe.statuses(node)
    if state.endswith("ing") or state == "cleaningup":
        until(lambda: any(m.lifecycle == state for _, m in heard) or probe.state(node) == state, 3, state)


def _quiet(probe, transition, node) -> None:
    try:
        probe.change(transition, node, 4)
    except (AssertionError, RuntimeError, ValueError):
        pass  # it was killed


@pytest.mark.parametrize("place", ["Inputs", "PolicyStack"])
def test_F65_exception_in_configure_is_logged_and_frees(probe, monkeypatch, capfd, place):
    import flashrt_ros.node as module

    def broken(*args, **kwargs):
        raise LookupError("planted in a transition")

    made = []
    real = module.StackConfig.make_worker
    monkeypatch.setattr(module.StackConfig, "make_worker", lambda self: made.append(real(self)) or made[-1])
    monkeypatch.setattr(module, place, broken)
    with Inside(probe, module, f"inside_{place}") as node:
        assert not probe.change("configure", f"/inside_{place}")
        assert probe.state(f"/inside_{place}") == "unconfigured"
        assert node.stack is None and not made[0].alive and made[0].status().pid is None
        error = capfd.readouterr().err
        assert "LookupError: planted in a transition" in error and "Traceback" in error and "on_configure" in error
        monkeypatch.undo()
        probe.to("configure", name=f"/inside_{place}")  # the next one is not hurt
        probe.to("cleanup", name=f"/inside_{place}")


def test_F65_exception_in_activate_comes_to_rest(probe, arm, monkeypatch, capfd):
    import flashrt_ros.node as module

    def broken(*args):
        raise LookupError("planted")

    monkeypatch.setattr(module, "TickThread", broken)
    with Inside(probe, module, "inside") as node:
        probe.to("configure", name="/inside")
        workers = node.stack.worker
        assert not probe.change("activate", "/inside")
        assert probe.state("/inside") == "unconfigured" and node.stack is None and not workers.alive
        assert "LookupError: planted" in capfd.readouterr().err
        assert probe.node.count_publishers("/bench/commands") == 0


def test_F73_broken_bond_holds_when_configured(probe, arm, monkeypatch):
    """With a stand-in for bondpy (double): the bond breaks when the manager dies."""
    import flashrt_ros.node as module

    breaks = []

    class Bond:
        broken = False

        def __init__(self, node, on_broken):
            breaks.append((self, on_broken))

        def close(self):
            pass

    monkeypatch.setattr(module, "ManagerBond", Bond)
    with Inside(probe, module, "bonded", hold_on_bond_loss=True):
        heard = probe.statuses("/bonded")
        probe.to("configure", name="/bonded")
        assert probe.change("activate", "/bonded"), heard[-1][1].phase
        until(lambda: heard[-1][1].lifecycle == "active" and heard[-1][1].chunks, 5)
        bond, told = breaks[0]
        bond.broken = True
        told()
        until(lambda: heard[-1][1].faults[:1] == ["F73"] and heard[-1][1].level == 3, 2)
        until(lambda: arm.resting(), 3)
        probe.to("deactivate", "cleanup", name="/bonded")


@pytest.mark.parametrize("state", STATES)
def test_F64_killed_node_leaves_nothing(probe, arm, state):
    policy = script(
        start_s=2.0 if state == "configuring" else 0.0, faults={4: "hang"} if state == "cleaningup" else {}
    )
    slow = {} if state not in ("deactivating", "shuttingdown") else {f"limits__joint{i}__a_max": 0.1 for i in (1, 2, 3)}
    name = f"victim_{state}"
    with NodeProcess(name=name, script=policy, worker_timeout_s=60.0, **slow) as n:
        reach(probe, arm, state, f"/{name}")
        if state == "configuring":
            until(n.children, 3, "a worker")
        workers = n.children()
        assert len(workers) == (0 if state in ("unconfigured", "finalized") else 1)
        n.kill(signal.SIGKILL)
        n.wait()
        dead = time.monotonic_ns()
        arm.camera_hz = 20.0
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 2, "the worker is an orphan")
    time.sleep(0.1)
    assert len(arm.since(dead + 50_000_000)) == 0 and arm.resting()
    assert not [f for f in os.listdir("/dev/shm") if "flashrt" in f]
    if state in ("configuring", "active"):  # a new one of the same name configures
        # By itself: a request could go to the service of the dead one, which DDS remembers for a while.
        with NodeProcess(name=name, autostart=True) as again:
            heard = probe.statuses(f"/{name}")
            until(lambda: heard and heard[-1][1].lifecycle in ("inactive", "activating", "active"), 10)
            assert len(again.children()) == 1


def test_a_standby_node_says_why_it_must_wait_after_a_kill_and_then_takes_over(probe, arm):
    """A node that was there before keeps the dead one's publishers in its graph until DDS's lease ends."""
    with NodeProcess(name="first") as first, NodeProcess(name="standby") as standby:
        probe.to("configure", "activate", name="/first")
        probe.to("configure", name="/standby")
        assert not probe.change("activate", "/standby")
        until(lambda: "F18" in standby.text and "/first publishes too" in standby.text, 5)
        first.kill(signal.SIGKILL)
        first.wait()
        until(lambda: arm.resting(), 5)
        assert not probe.change("activate", "/standby")
        until(lambda: "If it was killed, DDS forgets it within 20 s: activate again then" in standby.text, 5)
        until(lambda: probe.change("activate", "/standby"), LEASE_S + 10)
