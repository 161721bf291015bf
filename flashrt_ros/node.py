"""PolicyNode: topics, parameters, timers and lifecycle transitions, wired to a PolicyStack."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType, JumpThreshold
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from flashrt_core.errors import ConfigError, FlashRTError, ObservationError
from flashrt_core.runtime.clock import SteadyClock
from flashrt_ros.msg import PolicyStatus

from . import qos, topics
from .bond import ManagerBond
from .control.health import FaultReport, Health
from .control.patient_tick import PatientTick
from .control.ticker import TickThread
from .endpoints import Commands, Inputs
from .graph_watch import GraphWatch
from .params import Params
from .redact import public_error
from .sim_time import FunctionClock, SimTicker
from .stack import PolicyStack, StackConfig
from .status import View, diagnostics_message, status_message
from .transitions import ACTIVATE, CONFIGURE, DEACTIVATE, ThreadedLifecycleNode
from .worker.policy_worker import PolicyWorker

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
EXIT_FAULT = 70  # a fault of level exit ended the process
INPUTS_S = 1.0  # how long activate waits for fresh inputs
LEASE_S = 20.0  # how long DDS remembers a process that was killed (Fast DDS: DiscoverySettings.leaseDuration)
KILLED = f"If it was killed, DDS forgets it within {LEASE_S:g} s: activate again then"
DISCOVERY_S = 3.0  # after the start, until the graph shows everybody: Fast DDS announces itself every 3 s
logger = logging.getLogger(__name__)


class PolicyNode(ThreadedLifecycleNode):
    """Runs a policy on a robot. Transitions run in threads; callbacks and timers on the executor's one thread."""

    def __init__(self, name: str = "policy_node", **kwargs: object):
        """Raises ConfigError for an unknown parameter."""
        super().__init__(name, **kwargs)
        self.exit_code: int | None = None
        self._made_at = time.monotonic()
        self.phase = ""
        self.stack: PolicyStack | None = None
        self.ticker: TickThread | SimTicker | None = None
        self._worker: PolicyWorker | None = None
        self._bond: ManagerBond | None = None
        self._health = Health(logger=logger)
        self._inputs: Inputs | None = None
        self._commands: Commands | None = None
        self._seen, self._asked, self._configured_at = None, None, 0.0
        self._stopping = threading.Event()
        configured = lambda: self.lifecycle not in ("unconfigured", "finalized")  # noqa: E731
        self.params = Params(self, configured=configured, changed=self._on_changed)
        self._auto = bool(self.get_parameter("autostart").value)
        self.add_post_set_parameters_callback(self._on_own_changed)
        self._graph = GraphWatch(self)
        self._status = self.create_publisher(PolicyStatus, topics.STATUS, qos.STATUS)
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, qos.DIAGNOSTICS)
        self.create_service(Trigger, "~/resume", self._on_resume)
        self.create_service(SetBool, "~/takeover", self._on_takeover)
        self._attention = self.create_guard_condition(self._on_attention)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time must not stop these
        self._status_timer = self.create_timer(1.0, self._publish_status, clock=steady)
        self.create_timer(1.0, self._on_second, clock=steady)
        self.create_timer(0.4, self._look, clock=steady)
        clock = self.get_clock()
        limits = JumpThreshold(min_forward=Duration(nanoseconds=1), min_backward=Duration(nanoseconds=-1))
        self._jumps = clock.create_jump_callback(limits, post_callback=self._on_time)
        self._publish_status()

    # ---- transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read parameters, load the policy in its worker, make inputs. FAILURE for what the operator can put right."""
        self._health, self._seen = Health(logger=logger), None
        try:
            config = self.params.load()
            if config.node.lockstep and not self._simulated:
                raise ConfigError("lockstep", expected="use_sim_time", found="real time, which does not wait")
            self._health.auto_resume = config.robot.safety.auto_resume
            self._status_timer.timer_period_ns = round(1e9 / config.node.status_hz)
            self._say(f"loading {config.policy_name}")
            self._worker = config.make_worker()
            info = self._worker.start(self._say)
            clock = FunctionClock(self._ros_now) if self._simulated else SteadyClock()
            self._commands = Commands(self, config, self._ros_now, self._look)
            self.stack = PolicyStack(config, self._worker, info, clock, self._commands.sinks, self._health)
            if config.node.hold_on_bond_loss:
                self._bond = ManagerBond(self, self._attention.trigger)
            self._inputs = Inputs(self, config.robot, self.stack.observations, self._ros_now, self._look)
            self._graph.watch(self._inputs.endpoints, self._commands.endpoints)
        except FlashRTError as error:
            self.get_logger().error(f"configure: {error}")
            self._free()
            self._say(f"configure failed: {public_error(error)}")
            return FAILURE
        self._configured_at = time.monotonic()
        self._say("ready")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Refuse a twin, a rival or unfit inputs; then command from where the robot stands."""
        self._stopping.wait(max(0.0, self._made_at + DISCOVERY_S - time.monotonic()))
        twin, rivals = self._graph.twin(), [f for f in self._graph.look() if f.id == "F18"]
        try:
            if twin is not None:
                raise ObservationError("F75", expected=f"one node {twin}", found="two in the graph", hint=KILLED)
            if rivals:
                found = rivals[0].reason
                raise ObservationError("F18", expected="no other publisher of commands", found=found, hint=KILLED)
            self._open(True)
            self._wait_for_inputs()
        except FlashRTError as error:
            self.get_logger().error(f"activate: {error}")
            self._open(False)
            self._say(f"activate refused: {public_error(error)}")
            return FAILURE
        super().on_activate(state)
        self._asked, self._auto = None, False
        stack, tick = self.stack, self._tick
        period_s = stack.config.node.period_s
        if stack.config.node.lockstep:
            self._worker.reseed(stack.config.policy.seed)
            tick = PatientTick(tick, stack.observations, stack.runner, stack.clock)
        self.ticker = SimTicker(tick, period_s, self._ros_now) if self._simulated else TickThread(tick, period_s)
        self.ticker.start()
        self._say("running")
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Come to rest, then be silent."""
        self._rest(5.0)
        self._open(False)
        self._say("ready")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        gc.collect()  # the parts refer to each other: left alone, a hundred configurations would wait for the collector (F67)
        self._say("")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._rest(1.2)
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: free everything and be unconfigured (F65)."""
        self._rest(1.2)
        self._free()
        self._say("a transition raised; the log has the traceback")
        return SUCCESS

    def stop(self) -> None:
        """The process ends: come to rest, end the worker. Not from a callback. Within 2 s (F69)."""
        self._stopping.set()
        self._rest(1.2)
        if self._worker is not None:
            self._worker.close(0.4)

    def illegal_transition(self, transition: int, state: str) -> None:
        self.get_logger().warning(f"transition {transition} refused in state {state}")
        self._health.raise_("F66", f"transition {transition} in state {state}", now_ns=time.monotonic_ns())

    def transition_ended(self, before: str, now: str) -> None:
        if now == "unconfigured":
            self.params.forget()  # also when configure failed: nothing is in force
        elif before == "unconfigured" and now == "inactive":
            self.params.show()
        self._publish_status()

    def _open(self, wanted: bool) -> None:
        """Have publishers of commands, or have none."""
        if wanted:
            self._graph.commanding = True
            self._commands.open()
        else:
            self._commands.close()
            self._graph.commanding = False

    def _wait_for_inputs(self) -> None:
        until = time.monotonic() + INPUTS_S
        while True:
            try:
                return self.stack.loop.activate()
            except ObservationError:
                if time.monotonic() > until or self._stopping.is_set():
                    raise
                time.sleep(0.02)

    def _rest(self, timeout_s: float) -> None:
        """Decelerate and end the ticks; after the timeout (simulated time that stands still) end them anyway."""
        stack, ticker = self.stack, self.ticker
        if stack is not None and ticker is not None and ticker.running:
            stack.loop.deactivate()
            if not stack.loop.wait_inactive(timeout_s):
                self.get_logger().warning(f"not at rest after {timeout_s} s")
            ticker.stop(0.5)
            stack.loop.abandon()  # else it would wait for ticks for ever, and refuse the next activation

    def _free(self) -> None:
        self._graph.watch((), ())
        self._graph.commanding = False
        for part in (self._commands, self._inputs, self._bond, self.stack, self._worker):
            if part is not None:
                part.close()
        self._inputs = self._commands = self._bond = self.stack = self._worker = self.ticker = None

    # ---- the control thread

    def _tick(self, late_s: float, skipped: int) -> None:
        now = self.stack.clock.now_ns()
        self._health.report(self._node_faults(), now)
        self.stack.loop.tick(late_s, skipped)
        seen = (self._health.active, self.stack.loop.mode, self.stack.loop.request)
        if seen != self._seen:
            self._seen = seen
            self._attention.trigger()

    def _node_faults(self) -> tuple[FaultReport, ...]:
        broken = self._bond is not None and self._bond.broken
        return (*self._graph.faults, FaultReport("F73", "the lifecycle manager is gone")) if broken else self._graph.faults

    # ---- callbacks on the executor's thread

    @property
    def _simulated(self) -> bool:
        return bool(self.get_parameter("use_sim_time").value)

    def _ros_now(self) -> int:
        return self.get_clock().now().nanoseconds

    def _on_time(self, jump: object) -> None:
        if isinstance(self.ticker, SimTicker):
            self.ticker.notify()

    def _on_changed(self, config: StackConfig, names: frozenset[str]) -> None:
        if self.stack is not None:
            self.stack.change(config.robot, config.node, prompt="prompt" in names)
            self._publish_status()

    def _on_own_changed(self, changes: list[Parameter]) -> None:
        for change in changes:
            if change.name == "autostart":
                self._auto = bool(change.value)

    def _on_attention(self) -> None:
        """Something changed in the control thread: say so, and do what it asks for."""
        self._publish_status()
        request = None if self.stack is None else self.stack.loop.request
        if request is None or request == self._asked:
            return
        self._asked = request
        if request == "exit":
            self.exit_code = EXIT_FAULT
        else:
            self.change_soon(DEACTIVATE)

    def _on_second(self) -> None:
        self._diagnostics.publish(diagnostics_message(self._view(count=True), self.get_name(), self._ros_now()))
        if self._auto and not self._stopping.is_set() and self.lifecycle in ("unconfigured", "inactive"):
            if self.lifecycle == "unconfigured":
                self._auto = not self.phase.startswith("configure failed")
            if self._auto:
                self.change_soon(CONFIGURE if self.lifecycle == "unconfigured" else ACTIVATE)

    def _look(self) -> None:
        self._graph.look()
        if self.lifecycle != "active":
            self._health.report(f for f in self._graph.faults if f.id == "F70")
            self._health.cycle(time.monotonic_ns())

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self.stack is not None
        if self.stack is not None:
            self.stack.loop.resume()
        return response

    def _on_takeover(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            if self.stack is None or self.lifecycle != "active":
                raise ObservationError("takeover", expected="an active node", found=self.lifecycle)
            (self.stack.loop.takeover if request.data else self.stack.loop.release)()
            response.success = True
        except FlashRTError as error:
            response.message = public_error(error)
        return response

    # ---- status

    def _say(self, text: str) -> None:
        self.phase = text[:300]
        self._attention.trigger()

    def _view(self, count: bool = False) -> View:
        stack, seen = self.stack, {}
        if count and stack is not None:
            seen = {c.view: self.count_publishers(c.topic) for c in stack.config.robot.cameras}
        since = time.monotonic() - self._configured_at
        return View(self.lifecycle, self.phase, self._health, stack, self.ticker, since, seen)

    def _publish_status(self) -> None:
        self._status.publish(status_message(self._view(), self._ros_now()))


if __name__ == "__main__":
    from flashrt_ros.main import main

    sys.exit(main())
