"""The process of the policy node: start, signals, and the order in which things end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence

import rclpy
from rclpy.exceptions import InvalidParameterException, InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, ShutdownException, SingleThreadedExecutor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.signals import SignalHandlerOptions

from flashrt_core.errors import FlashRTError

from .late_log import LateLog
from .node import PolicyNode
from .redact import one_line
from .security import fast_dds_version, floor_warning, loaded_libraries, security_on

EXIT_CONFIG = 2
USAGE = """\
usage: ros2 run flashrt_ros policy_node [--ros-args ...]

The policy node: camera images and joint states in, actions at the control rate out. It takes ROS arguments only.

  --ros-args -p NAME:=VALUE        a parameter; numbers as declared: control_hz:=20.0, not 20
  --ros-args --params-file FILE    parameters from a YAML file
  --ros-args -r __ns:=/left        another namespace; -r __node:=NAME another name

examples:
  ros2 launch flashrt_ros pi05.launch.py --show-args
  ros2 run flashrt_ros policy_node --ros-args -p robot:=tabletop -p prompt:="pick up the green block" -p autostart:=true
  ros2 param describe /policy_node splice        what a parameter means, with its range (ros2 param list: all of them)

It starts unconfigured: `ros2 lifecycle set /policy_node configure`, then `activate`, or autostart. docs/ros2.md has the rest.
exit codes: 0 ended by a signal; 2 bad arguments, said in one line; 70 a fault ended it
"""
BAD_PARAMETER = (InvalidParameterException, InvalidParameterTypeException, InvalidParameterValueException)


class RosLogHandler(logging.Handler):
    """Hands log records of the plain modules to the node's logger."""

    def __init__(self, logger: RcutilsLogger):
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy ties a severity to the place of the call: one place per severity.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        else:
            self._logger.info(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or a fault of level exit. Returns the exit code: 0, 2 (cannot start) or 70."""
    words = list(sys.argv if argv is None else argv)
    own = words[1 : words.index("--ros-args") if "--ros-args" in words else None]
    if own:  # also robot:=panda: an old form of remapping, which rcl would take without a word
        if own[0] in ("-h", "--help"):
            sys.stdout.write(USAGE)
            return 0
        word = one_line(ascii(own[0]))
        sys.stderr.write(f"policy_node: {word} is no ROS argument (--ros-args -p NAME:=VALUE; --help tells more)\n")
        return EXIT_CONFIG
    ended, done = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # of the C layer: an unknown ROS argument, no enclave in the keystore
        sys.stderr.write(f"policy_node: {type(error).__name__}: {one_line(str(error))}\n")
        return EXIT_CONFIG
    early = rclpy.logging.get_logger("policy_node")
    if security_on():
        warning = floor_warning(rclpy.get_rmw_implementation_identifier(), fast_dds_version(loaded_libraries()))
        if warning is not None:
            early.warning(warning)
    try:
        node = PolicyNode()
    except (FlashRTError, RuntimeError, *BAD_PARAMETER) as error:  # RuntimeError: of the C layer, as above
        early.error(one_line(str(error)))
        rclpy.try_shutdown()
        return EXIT_CONFIG
    log = logging.getLogger("flashrt_ros")
    handler = LateLog(RosLogHandler(node.get_logger()))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor, done), name="flashrt-executor", daemon=True)
    thread.start()
    while not ended.wait(0.2) and node.exit_code is None:
        pass
    node.stop()
    code = node.exit_code or 0
    # In this order: an executor thread that still runs when the context goes ends the process by SIGABRT.
    done.set()
    executor.shutdown(0.3)
    thread.join(0.5)
    log.removeHandler(handler)
    handler.end()
    node.destroy_node()
    rclpy.try_shutdown()
    return code


def _spin(executor: SingleThreadedExecutor, done: threading.Event) -> None:
    while not done.is_set():
        try:
            executor.spin_once(timeout_sec=0.5)
        except (ShutdownException, ExternalShutdownException):
            return
        except Exception:  # of a callback; the node goes on, the control thread is not touched
            logging.getLogger(__name__).exception("a callback raised")


if __name__ == "__main__":
    sys.exit(main())
