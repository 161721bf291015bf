"""A lifecycle node whose transitions run in a thread, so that its services and timers go on meanwhile.

rclpy runs a transition inside the service call; on one executor thread nothing else is answered until it ends, and an
exception in it is swallowed. Here the service is a coroutine that waits for the thread, and errors are logged.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future

# What the state machine raises for a transition that is not there: an error of the C layer that rclpy does not export
# under a public name; it derives from RuntimeError.
StateMachineError = RuntimeError


class ThreadedLifecycleNode(LifecycleNode):
    """on_configure, on_activate, ... run in a thread of their own, one at a time; they may block."""

    def __init__(self, name: str, **kwargs: object):
        super().__init__(name, **kwargs)
        # A coroutine keeps its callback group busy until it ends: with the default group nothing else would be answered.
        self._transition_group = ReentrantCallbackGroup()
        service = self._service_change_state
        service.callback, service.callback_group = self._on_change_request, self._transition_group
        self._transition_group.add_entity(service)
        self._transition_done = self.create_guard_condition(lambda: None, self._transition_group)
        self._moves = {
            State.TRANSITION_STATE_CONFIGURING: "on_configure", State.TRANSITION_STATE_CLEANINGUP: "on_cleanup",
            State.TRANSITION_STATE_ACTIVATING: "on_activate", State.TRANSITION_STATE_DEACTIVATING: "on_deactivate",
            State.TRANSITION_STATE_SHUTTINGDOWN: "on_shutdown", State.TRANSITION_STATE_ERRORPROCESSING: "on_error",
        }  # fmt: skip

    @property
    def lifecycle(self) -> str:
        """Label of the state or of the transition under way."""
        return self._state_machine.current_state[1]

    def change_soon(self, transition: int) -> None:
        """Ask for a transition from any thread; what became of it is in the log and in the state."""
        self.executor.create_task(self.change(transition))

    async def change(self, transition: int) -> bool:
        """Go through a transition; False when it is not possible now (F66), failed or raised (F65)."""
        machine = self._state_machine
        before = LifecycleState(*reversed(machine.current_state))
        try:
            machine.trigger_transition_by_id(transition, True)
        except StateMachineError:
            self.illegal_transition(transition, before.label)
            return False
        try:
            result = await self._in_thread(before)
            if result is None:
                return False  # the node is going away
            machine.trigger_transition_by_label(result.to_label(), True)
            if result is TransitionCallbackReturn.ERROR:
                handled = await self._in_thread(before)
                machine.trigger_transition_by_label((handled or TransitionCallbackReturn.FAILURE).to_label(), True)
        except StateMachineError as error:
            self.get_logger().error(f"transition {transition} did not complete: {error}")
            return False
        self.transition_ended(before.label, self.lifecycle)
        return result is TransitionCallbackReturn.SUCCESS

    def illegal_transition(self, transition: int, state: str) -> None:
        """Hook: a transition was asked for that the state does not have."""

    def transition_ended(self, before: str, now: str) -> None:
        """Hook: on the executor's thread, after each transition."""

    async def _on_change_request(self, request: ChangeState.Request, response: ChangeState.Response):
        transition = request.transition.id
        if request.transition.label:
            try:
                transition = self._state_machine.get_transition_by_label(request.transition.label)
            except StateMachineError:
                self.illegal_transition(-1, self.lifecycle)
                response.success = False
                return response
        response.success = await self.change(transition)
        return response

    async def _in_thread(self, before: LifecycleState) -> TransitionCallbackReturn | None:
        """Run the callback of the state that the machine is in now."""
        name = self._moves[self._state_machine.current_state[0]]
        done: Future = Future(executor=self.executor)
        thread = threading.Thread(
            target=self._run_move, args=(getattr(self, name), before, done), name=f"flashrt-{name}", daemon=True
        )
        thread.start()
        return await done

    def _run_move(self, move: Callable[[LifecycleState], object], before: LifecycleState, done: Future) -> None:
        try:
            result = move(before)
        except Exception:  # rclpy would swallow it (F65)
            self.get_logger().error(f"{move.__name__} raised\n{traceback.format_exc()}")
            result = TransitionCallbackReturn.ERROR
        done.set_result(result)
        self._transition_done.trigger()


CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
