"""What a run over DDS was: the simulation's events and the recorded bag, brought together and checked against each other.

Three witnesses count the commands: the node (PolicyStatus.commands), the simulation (publication numbers of what it
executed, `sim/commands.py`) and the recorder (its own subscription). Here the recorded commands and chunks are compared
with what was executed: command i of an activation must have the recorded value i, and be the row that the recorded chunk
has for index i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..bags.bag import open_bag
from ..bags.recorder_topics import full_name
from ..config.settings import RobotConfig
from ..evaluation.closed_loop import Episode

NS = 1_000_000_000
LEAD_NS = 30_000_000  # an activation's messages begin at most so long before its first command was published
FILM_PX = 320


@dataclass(frozen=True)
class Chunk:
    """One recorded ActionChunk. at_ns: receipt, stamp_ns: of its oldest image, both wall clock. rows: float32 [N, A]."""

    at_ns: int
    stamp_ns: int
    first: int
    executed: int
    rows: np.ndarray
    inference_ms: float
    disagreement: float | None


@dataclass
class Recording:
    """The parts of a bag that the figures need. commands: (receipt ns, float32 [A]) in order."""

    commands: list[tuple[int, np.ndarray]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    messages: dict[str, int] = field(default_factory=dict)


@dataclass
class RosEpisode:
    """An episode as the report takes it, and what only this kind of run knows.

    lateness_ms: of each command published, against the activation's own grid of deadlines. image_age_ms: of the oldest
    image of each request, at the request. transport_ms: publication to receipt of each command. start_ticks: steps before
    the first chunk. bag_mismatches, plan_mismatches: commands that differ from the record / are another row of their chunk
    than their index says.
    """

    episode: Episode
    lateness_ms: list[float] = field(default_factory=list)
    image_age_ms: list[float] = field(default_factory=list)
    transport_ms: list[float] = field(default_factory=list)
    start_ticks: int = 0
    bag_mismatches: int = 0
    plan_mismatches: int = 0


def read_recording(bag: Path, robot: RobotConfig, node: str) -> Recording:
    """Read the bag once. Raises ConfigError when there is none."""
    out = Recording()
    command, chunk = (full_name(t, node) for t in (robot.topics.forward, robot.topics.chunk))
    with open_bag(bag) as reader:
        out.messages = {c.topic: c.msgcount for c in reader.connections}
        wanted = [c for c in reader.connections if c.topic in (command, chunk)]
        for connection, at_ns, raw in reader.messages(wanted):
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic == command:
                out.commands.append((at_ns, np.asarray(message.data, np.float32)))
            else:
                out.chunks.append(_chunk(message, at_ns))
    return out


def _chunk(m, at_ns: int) -> Chunk:
    stamp = m.header.stamp.sec * NS + m.header.stamp.nanosec
    rows = np.asarray(m.data, np.float32).reshape(m.horizon, len(m.names))
    gap = None if np.isnan(m.disagreement) else float(m.disagreement)
    return Chunk(at_ns, stamp, int(m.first_command), int(m.executed), rows, m.inference_time * 1e3, gap)


def read_frames(bag: Path, topic: str, spans: Sequence[tuple[int, int]], every: int = 2) -> list[list[np.ndarray]]:
    """Pictures of one camera within each span of time (ns), every so-manieth, enlarged for a film."""
    from PIL import Image

    frames: list[list[np.ndarray]] = [[] for _ in spans]
    seen = [0] * len(spans)
    with open_bag(bag) as reader:
        wanted = [c for c in reader.connections if c.topic == topic]
        for connection, at_ns, raw in reader.messages(wanted):
            for i, (begin, end) in enumerate(spans):
                if begin <= at_ns <= end:
                    seen[i] += 1
                    if seen[i] % every == 1 or every == 1:
                        m = reader.deserialize(raw, connection.msgtype)
                        picture = np.asarray(m.data, np.uint8).reshape(m.height, m.step)[:, : 3 * m.width]
                        image = Image.fromarray(picture.reshape(m.height, m.width, 3))
                        frames[i].append(np.asarray(image.resize((FILM_PX, FILM_PX), Image.Resampling.BICUBIC)))
    return frames


def join(row: dict[str, object], recording: Recording, period_s: float, simulated_time: bool) -> RosEpisode:
    """One `episode` event of the simulation, with what the bag says about it."""
    out = RosEpisode(Episode(seed=row["seed"], prompt=row["prompt"], error=row["error"]))
    e = out.episode
    e.success, e.steps = bool(row["success"]), int(row["steps"])
    if row["commands"]:
        e.commands = np.asarray(row["commands"], np.float32)
    if not row["sent_ns"]:
        e.tick_misses = len(row["indices"])
        return out
    sent = dict(zip((i for i in row["indices"] if i is not None), row["sent_ns"], strict=True))
    rows = {index: r for r, index in enumerate(row["indices"]) if index is not None}
    begin, end = row["sent_ns"][0] - LEAD_NS, row["ended_ns"]
    chunks = [c for c in recording.chunks if begin <= c.at_ns <= end and c.first in rows]
    out.transport_ms = [(b - a) / 1e6 for a, b in zip(row["sent_ns"], row["received_ns"], strict=True)]
    if not simulated_time:
        out.lateness_ms = lateness_ms(list(sent.values()), period_s, int(row["node"].get("skipped", 0)))
        asked = ((c, sent.get(c.first - c.executed)) for c in chunks if c.executed)
        out.image_age_ms = [(at - c.stamp_ns) / 1e6 for c, at in asked if at is not None]
    # when each command was due: what is left of the clock once lateness is taken out, skipped deadlines included
    late = dict(zip(sent, out.lateness_ms, strict=False))
    deadlines = {i: t - late[i] * 1e6 for i, t in sent.items() if i in late}
    e.late_ms, e.model_ms = out.lateness_ms, [c.inference_ms for c in chunks]
    for c in chunks[1:]:
        e.switch_ticks.append(rows[c.first])
        e.executed.append(c.executed)
        e.elapsed.append(_elapsed(c, deadlines, period_s))
        e.disagreements.append(c.disagreement)
    _check(out, row, rows, chunks, recording)
    return out


def lateness_ms(sent_ns: Sequence[int], period_s: float, skipped: int = 0) -> list[float]:
    """How late each command was published, against a grid of period_s through the earliest of them.

    skipped: deadlines that the node says it missed; then a gap of about two periods is one of them.
    """
    if not sent_ns:
        return []
    period = period_s * 1e9
    t = np.asarray(sent_ns, np.float64) - sent_ns[0]
    ticks = np.arange(len(t), dtype=np.float64)
    if skipped:  # from one command to the next at least 1: two early ones never share a deadline
        ticks[1:] = np.cumsum(np.maximum(1, np.round(np.diff(t) / period)))
    off = t - ticks * period
    return ((off - off.min()) / 1e6).tolist()


def _elapsed(chunk: Chunk, deadlines: dict[int, float], period_s: float) -> int:
    """Periods from the request to the switch by the clock; by the count where the clock says nothing."""
    asked, taken = deadlines.get(chunk.first - chunk.executed), deadlines.get(chunk.first)
    return chunk.executed if asked is None or taken is None else round((taken - asked) / 1e9 / period_s)


def _check(
    out: RosEpisode, row: dict[str, object], rows: dict[int, int], chunks: Sequence[Chunk], recording: Recording
) -> None:
    """Compare what was executed with the record and with the plans; count ticks without a plan."""
    begin, commands = row["sent_ns"][0] - LEAD_NS, out.episode.commands
    recorded = [values for at, values in recording.commands if at >= begin][: row["audit"].get("published") or 0]
    for index, r in rows.items():
        if index >= len(recorded) or not np.array_equal(np.clip(recorded[index], -1.0, 1.0), commands[r]):
            out.bag_mismatches += 1
    served = 0
    ends = [c.first for c in chunks[1:]] + [max(rows) + 1]
    for chunk, end in zip(chunks, ends, strict=True):
        executed = [commands[rows[i]] for i in range(chunk.first, end) if i in rows]
        followed, shifted = follow(np.clip(chunk.rows, -1.0, 1.0), executed)
        served += followed
        out.plan_mismatches += shifted
    out.start_ticks = rows[chunks[0].first] if chunks else len(row["indices"])
    out.episode.tick_misses = len(row["indices"]) - served


def follow(plan: np.ndarray, executed: Sequence[np.ndarray]) -> tuple[int, int]:
    """(commands that are the plan's rows in order, 1 if it was left by a shift of the index else 0).

    A hold leaves the plan, and what comes after it is no row of it any more; a command that is the row before or after
    its own is an index repeated or lost.
    """
    for i, command in enumerate(executed):
        if i < len(plan) and np.allclose(plan[i], command, atol=1e-6):
            continue
        beside = [j for j in (i - 1, i + 1) if 0 <= j < len(plan) and i < len(plan)]
        return i, int(any(np.allclose(plan[j], command, atol=1e-6) for j in beside))
    return len(executed), 0
