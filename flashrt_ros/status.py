"""PolicyStatus and diagnostics, made from the state of the node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from flashrt_ros.msg import PolicyStatus

from .control.health import Health, Level
from .convert import header
from .redact import one_line
from .stack import PolicyStack

LARGE_IMAGES = (
    "if the images are large (640x480 and up), Fast DDS drops them with its default shared memory segment of 512 KiB: set "
    "FASTDDS_DEFAULT_PROFILES_FILE to config/fastdds_large_images.xml or FASTDDS_BUILTIN_TRANSPORTS to LARGE_DATA, for the "
    "camera driver too (docs/ros2.md)"
)
WATCH_IMAGES_S = 2.0  # a camera is judged once it has had so long to come up to its rate


@dataclass(frozen=True)
class View:
    """What a status is made from. ticker: of the activation under way or the last one. publishers: per input topic."""

    lifecycle: str
    phase: str
    health: Health
    stack: PolicyStack | None = None
    ticker: Any = None
    configured_s: float = 0.0
    publishers: Mapping[str, int] | None = None


def status_message(view: View, now_ns: int) -> PolicyStatus:
    """The status as it is now."""
    health = view.health.to_status()
    faults = health["faults"]
    message = PolicyStatus(
        header=header(now_ns), lifecycle=view.lifecycle, phase=view.phase, level=health["level"], reason=health["reason"],
        faults=[f["id"] for f in faults], fault_names=[f["name"] for f in faults],
        fault_levels=[f["level"] for f in faults], fault_reasons=[f["reason"] for f in faults],
        counters=list(health["counters"]), counts=list(health["counters"].values()),
    )  # fmt: skip
    if view.stack is not None:
        _add_stack(message, view.stack)
    if view.ticker is not None:
        late = view.ticker.lateness
        message.skipped = int(view.ticker.skipped)
        message.tick_late_p50, message.tick_late_p99 = late.percentile(50), late.percentile(99)
        message.tick_late_max = late.max_s
    return message


def _add_stack(message: PolicyStatus, stack: PolicyStack) -> None:
    config, stats, worker = stack.config, stack.loop.stats(), stack.worker.status()
    message.header.frame_id = config.robot.name
    message.policy = f"{config.policy_name} on {stack.info.hardware}"
    message.unverified = config.policy.allow_unverified
    message.prompt, message.splice = stack.observations.prompt, config.node.splice
    inputs = stack.observations.status(stack.clock.now_ns())
    message.inputs = list(inputs)
    message.input_ages = [-1.0 if i["age_s"] is None else float(i["age_s"]) for i in inputs.values()]
    message.input_rates = [float(i.get("hz", -1.0)) for i in inputs.values()]
    message.commands, message.held = stack.loop.outlet.commands, stack.loop.outlet.held
    message.chunks, message.rejected = stack.loop.counters.chunks, int(stats["rejected_chunks"])
    message.worker_deaths = worker.deaths
    message.control_period = config.node.period_s
    message.inference_time = float(stats["last_latency_s"])


def diagnostics_message(view: View, name: str, now_ns: int) -> DiagnosticArray:
    """One entry for the node, one per input."""
    array = DiagnosticArray(header=header(now_ns))
    message = status_message(view, now_ns)
    level = {Level.OK: DiagnosticStatus.OK, Level.NOTE: DiagnosticStatus.WARN, Level.COAST: DiagnosticStatus.WARN}.get(
        Level(message.level), DiagnosticStatus.ERROR
    )
    values = {
        "lifecycle": message.lifecycle, "phase": message.phase, "policy": message.policy, "commands": message.commands,
        "held": message.held, "chunks": message.chunks, "rejected": message.rejected, "skipped ticks": message.skipped,
        "tick late P50 [ms]": f"{message.tick_late_p50 * 1e3:.3f}", "tick late P99 [ms]": f"{message.tick_late_p99 * 1e3:.3f}",
        "inference [ms]": f"{message.inference_time * 1e3:.1f}", "worker deaths": message.worker_deaths,
    }  # fmt: skip
    array.status.append(_entry(name, level, message.reason or message.lifecycle, values))
    if view.stack is not None:
        array.status += _input_entries(view, name, message)
    return array


def _input_entries(view: View, name: str, message: PolicyStatus) -> list[DiagnosticStatus]:
    robot = view.stack.config.robot
    cameras = {camera.view: camera for camera in robot.cameras}
    out = []
    for source, age, rate in zip(message.inputs, message.input_ages, message.input_rates, strict=True):
        camera = cameras.get(source)
        topic = robot.topics.state if camera is None else camera.topic
        level, text = DiagnosticStatus.OK, "fresh"
        if age < 0 or age > (robot.safety.max_state_age_s if camera is None else robot.safety.max_obs_age_s):
            level, text = DiagnosticStatus.STALE, "none came" if age < 0 else "stale"
        slow = camera is not None and rate < camera.min_hz and view.configured_s > WATCH_IMAGES_S
        if slow and (view.publishers or {}).get(source, 0):
            level = DiagnosticStatus.WARN
            text = f"image rate {rate:.1f} Hz, expected at least {camera.min_hz:g}: {LARGE_IMAGES}"
        values = {"topic": topic, "age [s]": f"{age:.3f}", "rate [Hz]": f"{rate:.1f}"}
        out.append(_entry(f"{name}: {source}", level, text, values))
    return out


def _entry(name: str, level: bytes, text: str, values: Mapping[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=one_line(str(value))) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=text, hardware_id="flashrt", values=pairs)
