"""The fault table: what can go wrong, what must happen, how fast and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """What the robot does about a fault, ordered: of all active faults the worst decides."""

    OK = 0
    NOTE = 1
    COAST = 2
    HOLD = 3
    STOP = 4
    EXIT = 5

    @property
    def action(self) -> str:
        """What is done at this level."""
        return ACTIONS[self][0]

    @property
    def clears(self) -> str:
        """What ends it."""
        return ACTIONS[self][1]


GOOD_CYCLES = {Level.NOTE: 1, Level.COAST: 3, Level.HOLD: 5}  # control periods without the fault until it is over
ACTIONS = {
    Level.OK: ("run", "-"),
    Level.NOTE: ("count it, one log line per change", "itself"),
    Level.COAST: ("execute the valid rest of the current chunk, ask again", "itself after 3 good cycles"),
    Level.HOLD: (
        "decelerate to rest along the last command within limits, publish the hold every period",
        "itself after 5 good cycles, or the operator (auto_resume: false)",
    ),
    Level.STOP: ("as hold, then deactivate", "the operator (activate)"),
    Level.EXIT: ("publish the hold, then the process exits", "restart"),
}


@dataclass(frozen=True)
class FaultRow:
    """One fault.

    name: short name, also of its counter. levels: the level that it starts at and, where there are two, the one that it
    grows into; empty: it has no level at run time (refused at load, or no effect at all). bound: from onset to the
    reaction; T is the control period. tier: where its test runs (C on every commit, R with ROS 2, N long, G on a GPU).
    fault: the cause. expected: what must happen.
    """

    id: str
    name: str
    levels: tuple[Level, ...]
    bound: str
    tier: str
    fault: str
    expected: str

    @property
    def level(self) -> Level:
        """The level that it starts at."""
        return self.levels[0] if self.levels else Level.OK

    @property
    def clears(self) -> str:
        """What ends it, at its worst level, in short."""
        worst = self.levels[-1] if self.levels else Level.OK
        good = GOOD_CYCLES.get(worst, 0)
        return f"{good} good cycles" if good > 1 else worst.clears


@dataclass(frozen=True)
class FaultReport:
    """One fault seen now. subject: the topic, view or dimension it is about. level: other than the row's first."""

    id: str
    reason: str
    subject: str = ""
    level: Level | None = None

    def __str__(self) -> str:
        return f"{self.id} {FAULTS[self.id].name if self.id in FAULTS else 'unknown'}: {self.reason}"


GROUPS = {
    "F01": "observations", "F14": "state and command", "F22": "time", "F32": "worker and GPU", "F47": "checkpoint and config",
    "F64": "lifecycle and DDS", "F76": "bags and replay", "F83": "simulation", "F85": "security",
}  # fmt: skip
NOTE, COAST, HOLD, STOP, EXIT = Level.NOTE, Level.COAST, Level.HOLD, Level.STOP, Level.EXIT

# fmt: off
_ROWS = (
    # A: observations
    FaultRow("F01", "cameras_stopped", (COAST, HOLD), "max_obs_age + T", "C", "all cameras stop (publisher paused)",
             "coast, then hold at chunk end; status names topics"),
    FaultRow("F02", "camera_stopped", (COAST, HOLD), "max_obs_age + T", "C", "one of N views stops",
             "as F01; no request with a missing view"),
    FaultRow("F03", "camera_slow", (NOTE,), "1 s", "C", "camera drops to 3 Hz",
             "requests only on fresh frames; rate in status"),
    FaultRow("F04", "frozen_image", (HOLD,), "1.0 s", "C", "frozen image: same bytes, new stamps, arm moving",
             "hold; reason 'frozen'"),
    FaultRow("F05", "wrong_encoding", (HOLD,), "first msg", "C", "wrong encoding (bgr8, mono8, 16UC1, yuv422)",
             "reject message; refuse activation if first"),
    FaultRow("F06", "wrong_image_size", (HOLD,), "first msg", "C", "wrong width/height",
             "reject or resize only if configured"),
    FaultRow("F07", "short_image", (COAST,), "first msg", "C", "data shorter than step*height",
             "reject; no crash, no read past end"),
    FaultRow("F08", "padded_image", (), "-", "C", "step padded",
             "correct pixels (bit-exact)"),
    FaultRow("F09", "absurd_image", (COAST,), "first msg", "C", "absurd dims (2^31, 0, step 0)",
             "reject before allocating"),
    FaultRow("F10", "bad_stamp", (NOTE, COAST), "T", "C", "stamp zero / future / going back",
             "age by receipt; align rejected over skew"),
    FaultRow("F11", "view_skew", (COAST,), "T", "C", "views skewed beyond max_skew_s",
             "no request; coast"),
    FaultRow("F12", "constant_image", (NOTE, HOLD), "1 s", "C", "black / saturated / constant frame",
             "warn; hold if > 1 s and configured"),
    FaultRow("F13", "unknown_camera", (), "configure", "C", "unknown or swapped camera name in YAML",
             "refuse at configure, list known names"),
    # B: state and command
    FaultRow("F14", "state_not_finite", (COAST, HOLD), "max_state_age", "C", "NaN/Inf in joint state",
             "reject; age then runs"),
    FaultRow("F15", "state_stopped", (COAST, HOLD), "50 ms + T", "C", "joint state stops",
             "coast <= max_state_age, hold"),
    FaultRow("F16", "joint_names", (HOLD,), "first msg", "C", "joints reordered, missing, extra",
             "map by name; missing -> refuse / hold"),
    FaultRow("F17", "state_units", (HOLD,), "T", "C", "state outside limits x 1.2 (units wrong)",
             "reject; hold"),
    FaultRow("F18", "second_publisher", (STOP,), "1 s", "R", "second publisher on the command topic",
             "refuse activation; L3 if it appears later"),
    FaultRow("F19", "state_teleport", (HOLD,), "T", "C", "state teleports",
             "drop chunk, hold, ask again"),
    FaultRow("F20", "robot_not_following", (HOLD, STOP), "0.5 s", "C", "robot does not follow (error > tol 0.5 s)",
             "hold, then stop"),
    FaultRow("F21", "takeover", (HOLD,), "2T", "C", "teleop takes over, then returns",
             "silent while taken; re-anchor; refuse gap > 0.05 rad"),
    # C: time
    FaultRow("F22", "inference_slow", (COAST, HOLD), "T", "C", "inference slower than rest of chunk",
             "coast, decelerate at end, resume aligned"),
    FaultRow("F23", "latency_spike", (NOTE,), "-", "C", "one 10x latency spike",
             "no skipped or repeated index"),
    FaultRow("F24", "slow_first_inference", (), "-", "C,G", "slow first inference",
             "warm-up before active; first chunk starts at index 0"),
    FaultRow("F25", "tick_overrun", (NOTE,), "T", "C", "tick overruns its period",
             "skip missed ticks; never a burst"),
    FaultRow("F26", "wall_clock_step", (), "-", "C", "wall clock steps +-1 h",
             "no effect on ages or pacing"),
    FaultRow("F27", "sim_time_back", (HOLD,), "T", "C,R", "sim time jumps back (bag loop)",
             "reset slots and chunk"),
    FaultRow("F28", "sim_time_paused", (), "-", "R", "sim time paused",
             "no ticks, no stale faults"),
    FaultRow("F29", "sim_time_fast", (), "-", "C", "sim time 10x",
             "same actions as 1x (bitwise)"),
    FaultRow("F30", "process_stopped", (HOLD,), "T after wake", "R", "process stopped 500 ms (SIGSTOP)",
             "chunk judged stale; hold; nothing replayed"),
    FaultRow("F31", "gil_held", (NOTE,), "T", "C", "GIL held 100 ms",
             "late counter; command continuous"),
    # D: worker and GPU
    FaultRow("F32", "worker_died", (COAST, STOP), "100 ms", "C,G", "worker SIGKILL mid-inference",
             "coast/hold; respawn (max 2 in 60 s, then stop)"),
    FaultRow("F33", "worker_hung", (COAST, HOLD), "watchdog + T", "C,G", "worker hangs",
             "watchdog 2.5 x P99 (min 3T) -> kill"),
    FaultRow("F34", "cuda_sticky_error", (HOLD,), "100 ms", "G", "sticky CUDA error (illegal address)",
             "worker reports, exits 70; no further replay"),
    FaultRow("F35", "out_of_memory", (), "configure", "G", "OOM at configure",
             "error with needed / free bytes; all freed"),
    FaultRow("F36", "memory_eaten", (), "-", "G", "other process eats GPU memory at run time",
             "no effect: 0 allocations after capture"),
    FaultRow("F37", "capture_invalidated", (), "configure", "G", "capture invalidated by another thread",
             "thread-local mode; 1 retry; DeviceError"),
    FaultRow("F38", "gpu_lost", (STOP,), "100 ms", "C", "GPU lost / Xid (error code injected)",
             "as F34; stop after 2"),
    FaultRow("F39", "slow_policy", (NOTE,), "3 chunks", "C", "policy slower than it was (+60 %: a throttled GPU, a busy CPU)",
             "delay estimate follows; no fault while chunk suffices"),
    FaultRow("F40", "chunk_not_finite", (COAST, STOP), "T", "C", "NaN/Inf chunk",
             "rejected; 3 in a row hold, 10 stop"),
    FaultRow("F41", "wild_chunk", (NOTE, COAST), "T", "C", "finite but wild chunk",
             "clamp within limits and count; reject if disagreement > D_max"),
    FaultRow("F42", "chunk_shape", (COAST,), "T", "C", "wrong shape, horizon 0, wrong dims",
             "reject with shape in message"),
    FaultRow("F43", "fp8_saturation", (), "configure", "G", "FP8 saturation > 1 % at calibration",
             "refuse scales, name the site"),
    FaultRow("F44", "wrong_build", (), "configure", "C,G", "extension built for another SM",
             "NotBuilt with both SMs"),
    FaultRow("F45", "no_gpu", (), "configure", "C", "no GPU / old driver",
             "ConfigError; node process alive"),
    FaultRow("F46", "prompt_needs_capture", (NOTE, HOLD), "-", "C,G", "prompt change needing new capture",
             "old graph serves or hold; never capture on control thread"),
    # E: checkpoint and config
    FaultRow("F47", "truncated_file", (), "load", "C", "file truncated",
             "CheckpointError: file, expected, got"),
    FaultRow("F48", "bit_flip", (), "load", "C", "one bit flipped in data",
             "sha256 mismatch named"),
    FaultRow("F49", "header_length", (), "load", "C", "header length 0, 2^31, 2^63, 2^64-1",
             "reject before allocating"),
    FaultRow("F50", "header_size", (), "load", "C", "header 100 MB / 10^6 tensors",
             "caps 16 MiB / 65,536"),
    FaultRow("F51", "tensor_overlap", (), "load", "C", "overlap, hole, negative, past end",
             "reject"),
    FaultRow("F52", "wrong_dtype", (), "load", "C", "wrong dtype",
             "name, want, have"),
    FaultRow("F53", "wrong_shape", (), "load", "C", "wrong shape",
             "name, want, have"),
    FaultRow("F54", "missing_key", (), "load", "C", "missing or extra key",
             "first 10 names + nearest match"),
    FaultRow("F55", "duplicate_key", (), "load", "C", "duplicate key",
             "reject as duplicate"),
    FaultRow("F56", "path_escape", (), "load", "C", "shard index with ../, absolute path, symlink out",
             "reject: outside checkpoint dir"),
    FaultRow("F57", "pickle_file", (), "load", "C", ".pt, .pkl, .ckpt, or pickle magic",
             "refuse; say how to convert"),
    FaultRow("F58", "weights_not_finite", (), "load", "C", "non-finite weights",
             "refuse, name tensor"),
    FaultRow("F59", "norm_stats", (), "load", "C", "norm stats missing, wrong length, std 0, q01 >= q99",
             "refuse; no identity fallback"),
    FaultRow("F60", "foreign_calibration", (NOTE,), "load", "C", "calibration of other checkpoint / GPU / version, broken JSON",
             "recalibrate; never reuse"),
    FaultRow("F61", "bad_setting", (), "configure", "C", "unknown key, typo, out of range, wrong type",
             "refuse with nearest name"),
    FaultRow("F62", "tokenizer", (), "load", "C", "tokenizer missing or wrong vocabulary size",
             "refuse"),
    FaultRow("F63", "disk_full", (NOTE,), "load", "C", "disk full writing cache",
             "atomic write; continue without cache"),
    # F: lifecycle and DDS
    FaultRow("F64", "node_killed", (EXIT,), "chunk end", "R", "node SIGKILL in each of 9 lifecycle states",
             "arm at rest at chunk end; no orphan worker, no shm left; restart configures"),
    FaultRow("F65", "transition_exception", (), "-", "R", "exception in a transition",
             "traceback logged by us; unconfigured; resources freed"),
    FaultRow("F66", "illegal_transition", (NOTE,), "-", "R", "illegal transition request",
             "refused, node alive (rclpy#1209)"),
    FaultRow("F67", "lifecycle_cycles", (), "-", "N", "500 configure..cleanup cycles",
             "no growth (6.3)"),
    FaultRow("F68", "deactivate_in_flight", (HOLD,), "2T", "C", "deactivate during inference",
             "result discarded; hold"),
    FaultRow("F69", "signal", (EXIT,), "2 s", "R", "SIGINT / SIGTERM while active",
             "decelerate, hold, exit 0"),
    FaultRow("F70", "qos_mismatch", (HOLD,), "1 s", "R", "QoS mismatch",
             "incompatible-QoS event -> status names topic and policy"),
    FaultRow("F71", "late_subscriber", (), "-", "R", "late subscriber to status",
             "gets last status (transient local)"),
    FaultRow("F72", "image_loss", (NOTE, COAST), "-", "R", "5 % / 20 % image loss",
             "within ages: no fault / coast"),
    FaultRow("F73", "manager_died", (HOLD,), "bond timeout", "R", "lifecycle manager dies",
             "node keeps its own safety; hold if configured"),
    FaultRow("F74", "illegal_parameter", (NOTE,), "-", "R", "illegal run-time parameter",
             "rejected, old value kept"),
    FaultRow("F75", "started_twice", (), "activate", "R", "same node started twice",
             "second refuses activation"),
    # G: bags and replay
    FaultRow("F76", "bag_cut", (), "-", "C", "bag cut mid-chunk",
             "all whole chunks read; loss counted; exit 3 unless allowed"),
    FaultRow("F77", "bag_byte_flipped", (), "-", "C", "byte flipped in a chunk",
             "CRC error, chunk index, never silent loss"),
    FaultRow("F78", "bag_metadata", (), "-", "C", "metadata.yaml missing / wrong",
             "read from the file; say so"),
    FaultRow("F79", "bag_topic", (), "-", "C", "topic missing, wrong type, zero messages",
             "error before model load"),
    FaultRow("F80", "bag_log_time", (), "-", "C", "log time not monotonic",
             "stable order; reported"),
    FaultRow("F81", "bag_no_crc", (), "-", "C", "no CRC in file",
             "report marked 'unverified'"),
    FaultRow("F82", "replay_twice", (), "-", "C", "replay twice",
             "byte-identical report"),
    # H: simulation
    FaultRow("F83", "sim_exception", (), "-", "C", "env exception, render failure, timeout",
             "episode = error, counted apart; run goes on"),
    FaultRow("F84", "init_state_pickle", (), "-", "C", "init states only as pickle",
             "refused; offline converter makes .npz without objects"),
    # I: security
    FaultRow("F85", "unauthorised_peer", (), "-", "N", "unauthorised publisher/subscriber under SROS2",
             "denied both ways"),
    FaultRow("F86", "bad_prompt", (NOTE, HOLD), "T", "C", "prompt 1 MB, NUL, control characters",
             "reject; cap 4 KiB and token limit"),
    FaultRow("F87", "forbidden_call", (), "-", "C", "code tries socket, subprocess, pickle, exec",
             "audit hook fails the test"),
    FaultRow("F88", "shared_memory", (), "-", "C", "shared memory readable or pre-planted by others",
             "0600, random name, created exclusively"),
    FaultRow("F89", "cache_symlink", (), "-", "C", "symlink in cache dir",
             "0700 dir, no-follow open, atomic rename"),
    FaultRow("F90", "leaking_error", (), "-", "C", "errors on topics leak paths or environment",
             "message carries file name only"),
)
# fmt: on

FAULTS: dict[str, FaultRow] = {row.id: row for row in _ROWS}


def fault_table() -> Iterator[tuple[str, str, str, str, str, str, str]]:
    """(id, fault, level, action, clears, bound, counter) of every row, in order."""
    for row in FAULTS.values():
        level = " then ".join(x.name.lower() for x in row.levels) or "-"
        yield row.id, row.fault, level, row.expected, row.clears, row.bound, row.name


COLUMNS = ("id", "fault", "level", "action", "clears", "bound", "counter")


def levels_markdown() -> str:
    """The levels as a Markdown table."""
    rows = [("level", "state", "what is done", "what ends it")]
    rows += [(f"L{level - 1}", level.name.lower(), level.action, level.clears) for level in Level if level > Level.OK]
    return _markdown(rows)


def table_markdown() -> str:
    """The fault table as Markdown, one table per group: what docs/faults.md holds."""
    parts, rows = [], []
    for row in fault_table():
        if row[0] in GROUPS:
            parts.append(_markdown(rows) if rows else "")
            parts.append(f"### {GROUPS[row[0]].capitalize()}\n")
            rows = [COLUMNS]
        rows.append(row)
    return "\n".join([*parts[1:], _markdown(rows)])


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"
