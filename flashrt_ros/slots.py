"""Slots: each keeps the newest good message of one input; what is not good is refused here, before it is stored.

One thread puts, another one reads: what a reader sees is one immutable object that is replaced as a whole.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flashrt_core.errors import ObservationError
from flashrt_core.inputs import clean_prompt
from flashrt_core.runtime.clock import NS, Clock

from .config import CameraConfig, SafetyConfig, StateDim
from .faults import FaultReport
from .image_decode import Rejected, decode_compressed, decode_raw
from .redact import public_error
from .resize import resize_with_pad

MAX_JOINTS = 1024  # names in one JointState
LOOK_PIXELS = 1 << 14  # about so many pixels of a frame are hashed and looked at
BLACK, WHITE, FLAT = 12, 250, 3  # F12: brightest value, darkest value, largest range per channel
FUTURE_NS = NS // 2  # a stamp this far ahead of ROS time is wrong (F10)
RATE_WINDOW_NS = NS


@dataclass(frozen=True)
class Frame:
    """The newest image of a camera. image: uint8 [S, S, 3], read-only. received_ns: node's clock. stamp_ns: ROS time.

    digest_since_ns, digest_stamp_ns: receipt and stamp of the first frame in a row with these pixels.
    look: "", "black", "saturated" or "constant"; look_since_ns: receipt of the first frame in a row that looks so.
    """

    image: np.ndarray
    stamp_ns: int
    received_ns: int
    seq: int
    digest: int
    digest_since_ns: int
    digest_stamp_ns: int
    look: str
    look_since_ns: int


@dataclass(frozen=True)
class State:
    """The newest state. values: float32 [state dims], in the policy's units and order, read-only."""

    values: np.ndarray
    stamp_ns: int
    received_ns: int
    seq: int


class ImageSlot:
    """Newest frame of one camera, resized to the policy's side."""

    def __init__(self, camera: CameraConfig, side: int, clock: Clock):
        self.camera, self.side = camera, side
        self.frame: Frame | None = None
        self.reject: FaultReport | None = None  # of the newest message; None when it was stored
        self.stamp_fault: FaultReport | None = None  # F10 of the newest frame
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._seq = 0
        self._receipts: deque[int] = deque(maxlen=256)

    def put(
        self,
        height: int,
        width: int,
        encoding: str,
        step: int,
        data: object,
        stamp_ns: int,
        ros_now_ns: int | None = None,
    ) -> FaultReport | None:
        """Store a sensor_msgs/Image, or return why not (F05, F06, F07, F09). Never raises for what is in the fields.

        data: bytes, array.array('B') or uint8 array; not kept. ros_now_ns: ROS time now, to notice stamps in the future.
        """
        camera = self.camera
        return self._put(
            lambda: decode_raw(height, width, encoding, step, data, camera.encodings),
            stamp_ns,
            ros_now_ns,
            (height, width),
        )

    def put_compressed(self, data: object, stamp_ns: int, ros_now_ns: int | None = None) -> FaultReport | None:
        """Store a sensor_msgs/CompressedImage (JPEG, PNG), or return why not."""
        return self._put(lambda: decode_compressed(data, self.camera.encodings), stamp_ns, ros_now_ns, None)

    def reset(self) -> None:
        """Forget frame, rate and complaints; counters stay."""
        self.frame = self.reject = self.stamp_fault = None
        self._receipts.clear()

    def hz(self, now_ns: int) -> float:
        """Frames received per second, over the last second."""
        times = [t for t in tuple(self._receipts) if t > now_ns - RATE_WINDOW_NS]
        if len(times) == self._receipts.maxlen:
            return (len(times) - 1) * NS / max(1, times[-1] - times[0])
        return len(times) * NS / RATE_WINDOW_NS

    def watched_ns(self, now_ns: int) -> int:
        """How long frames have been coming, up to the memory of the rate."""
        times = tuple(self._receipts)
        return now_ns - times[0] if times else 0

    def _put(
        self, decode: Callable[[], np.ndarray], stamp_ns: int, ros_now_ns: int | None, size: tuple | None
    ) -> FaultReport | None:
        now = self._clock.now_ns()
        try:
            if size is not None:
                self._check_size(*size)  # before decoding: nothing is read for a picture of the wrong size
            pixels = decode()
            self._check_size(*pixels.shape[:2])
            image = resize_with_pad(pixels, self.side)
            if np.may_share_memory(image, pixels):
                image = image.copy()  # the message's memory is not ours
            frame = self._frame(image, pixels, stamp_ns, now)
        except Rejected as rejected:
            return self._refuse(rejected.report)
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            return self._refuse(FaultReport("F07", f"not decodable: {public_error(error)}"))
        self.stamp_fault = self._check_stamp(frame, ros_now_ns)
        if self.stamp_fault is not None:
            self.counters[self.stamp_fault.id] += 1
        self.reject, self.frame = None, frame
        self._receipts.append(now)
        return None

    def _check_size(self, height: object, width: object) -> None:
        camera = self.camera
        for name, have, want in (("height", height, camera.height), ("width", width, camera.width)):
            if want is not None and have != want and _plausible(have):
                raise Rejected("F06", f"{name} {have} px, configured {want}")
        if camera.resize == "exact" and (height, width) != (self.side, self.side) and _plausible(height, width):
            raise Rejected("F06", f"{width} x {height} px, the policy takes {self.side} x {self.side} (resize: exact)")

    def _refuse(self, report: FaultReport) -> FaultReport:
        camera = self.camera
        self.counters[report.id] += 1
        self.reject = FaultReport(report.id, f"{camera.view} ({camera.topic}): {report.reason}", camera.topic)
        return self.reject

    def _frame(self, image: np.ndarray, pixels: np.ndarray, stamp_ns: object, now: int) -> Frame:
        stride = max(1, math.isqrt(pixels.shape[0] * pixels.shape[1] // LOOK_PIXELS))
        sample = np.ascontiguousarray(pixels[::stride, ::stride])
        digest, look = zlib.crc32(sample), picture_look(sample)
        stamp = int(stamp_ns) if isinstance(stamp_ns, int | np.integer) and stamp_ns > 0 else 0
        old = self.frame
        same = old is not None and old.digest == digest
        looked = old is not None and old.look == look
        image.flags.writeable = False
        self._seq += 1
        return Frame(
            image, stamp, now, self._seq, digest, old.digest_since_ns if same else now,
            old.digest_stamp_ns if same else stamp, look, old.look_since_ns if looked else now,
        )  # fmt: skip

    def _check_stamp(self, frame: Frame, ros_now_ns: int | None) -> FaultReport | None:
        old, stamp = self.frame, frame.stamp_ns
        if not stamp:
            reason = "stamp is zero"
        elif ros_now_ns is not None and stamp > ros_now_ns + FUTURE_NS:
            reason = f"stamp is {(stamp - ros_now_ns) / NS:.3f} s in the future"
        elif old is not None and stamp < old.stamp_ns:
            reason = f"stamp went back {(old.stamp_ns - stamp) / NS:.3f} s"
        else:
            return None
        return FaultReport("F10", f"{self.camera.view} ({self.camera.topic}): {reason}", self.camera.topic)


def _plausible(*sizes: object) -> bool:
    """Whether these may be sizes at all: others are an absurd message (F09), not a wrong size (F06)."""
    return all(isinstance(s, int | np.integer) and 0 < s < 1 << 31 for s in sizes)


def picture_look(pixels: np.ndarray) -> str:
    """F12: "black", "saturated", "constant" (one colour) or "" for a picture with content. uint8 [H, W, C]."""
    low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
    if high.max() <= BLACK:
        return "black"
    if low.min() >= WHITE:
        return "saturated"
    return "constant" if int((high - low).max()) <= FLAT else ""


class StateSlot:
    """Newest joint state, mapped by name to the policy's state."""

    def __init__(self, dims: Sequence[StateDim], safety: SafetyConfig, clock: Clock, topic: str = "joint_states"):
        self.dims, self.safety, self.topic = tuple(dims), safety, topic
        self.state: State | None = None
        self.reject: FaultReport | None = None
        self.teleport: FaultReport | None = None  # F19 since the reader last took it
        self.counters: Counter[str] = Counter()
        self._clock = clock
        self._seq = 0
        self._names: list[str] | None = None
        self._index: list[int] = []
        self._fields = sorted({d.field for d in self.dims})
        lower, upper = (np.array([getattr(d, n) for d in self.dims]) for n in ("lower", "upper"))
        self._middle, self._half = (lower + upper) / 2, (upper - lower) / 2
        self._scale = np.array([d.scale for d in self.dims])
        self._offset = np.array([d.offset for d in self.dims])

    @property
    def span(self) -> np.ndarray:
        """float64 [state dims]: upper - lower."""
        return 2 * self._half

    def put(
        self,
        names: Sequence[str],
        positions: Sequence[float],
        stamp_ns: int,
        velocities: Sequence[float] = (),
        efforts: Sequence[float] = (),
    ) -> FaultReport | None:
        """Store a sensor_msgs/JointState, or return why not: F16 names, F14 not finite, F17 out of limits."""
        now = self._clock.now_ns()
        try:
            values = self._values(names, {"position": positions, "velocity": velocities, "effort": efforts})
        except Rejected as rejected:
            return self._refuse(rejected.report)
        except (TypeError, ValueError, OverflowError, MemoryError) as error:
            return self._refuse(FaultReport("F16", f"not a joint state: {public_error(error)}"))
        self._check_step(values, now)
        values.flags.writeable = False
        stamp = int(stamp_ns) if isinstance(stamp_ns, int | np.integer) and stamp_ns > 0 else 0
        self._seq += 1
        self.state, self.reject = State(values, stamp, now, self._seq), None
        return None

    def reset(self) -> None:
        """Forget the state and complaints; counters stay."""
        self.state = self.reject = self.teleport = None

    def take_teleport(self) -> FaultReport | None:
        """The jump since the last call, if any."""
        found, self.teleport = self.teleport, None
        return found

    def _values(self, names: Sequence[str], fields: dict[str, Sequence[float]]) -> np.ndarray:
        if names != self._names:
            self._map(names)
        readings = {}
        for field in self._fields:
            array = np.asarray(fields[field], dtype=np.float64)
            if array.shape != (len(self._names),):
                raise Rejected("F16", f"{len(self._names)} names, {array.size} values of {field}")
            readings[field] = array
        raw = np.array([readings[d.field][i] for d, i in zip(self.dims, self._index, strict=True)], dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            values = raw * self._scale + self._offset
            narrow = values.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(narrow))
        if len(bad):
            raise Rejected("F14", f"{self.dims[bad[0]].name} is {raw[bad[0]]}")
        outside = np.flatnonzero(np.abs(values - self._middle) > self.safety.limits_factor * self._half + 1e-6)
        if len(outside):
            dim = self.dims[outside[0]]
            raise Rejected(
                "F17", f"{dim.name} is {values[outside[0]]:.4g}, limits {dim.lower:g}..{dim.upper:g} (other units?)"
            )
        return narrow

    def _map(self, names: Sequence[str]) -> None:
        """Where each state dimension stands in the message (F16). Extra joints are ignored."""
        if len(names) > MAX_JOINTS:
            raise Rejected("F16", f"{len(names)} joint names, at most {MAX_JOINTS}")
        names = list(names)
        at = {name: i for i, name in enumerate(names)}
        missing = [d.source for d in self.dims if d.source not in at]
        if missing:
            raise Rejected("F16", f"no joint {', '.join(missing[:8])}")
        twice = sorted({d.source for d in self.dims if names.count(d.source) > 1})
        if twice:
            raise Rejected("F16", f"joint {', '.join(twice[:8])} twice")
        self._index = [at[d.source] for d in self.dims]
        self._names = names

    def _check_step(self, values: np.ndarray, now: int) -> None:
        """F19: a step between two messages that no motion makes. After a pause the state may be anywhere."""
        old = self.state
        if old is None or not 0 <= now - old.received_ns <= self.safety.max_state_age_s * NS:
            return
        limit = np.array([d.max_step if d.max_step is not None else np.nan for d in self.dims])
        limit = np.where(np.isnan(limit), self.safety.teleport_fraction * self.span, limit)
        step = np.abs(values.astype(np.float64) - old.values)
        over = np.flatnonzero(step > limit + 1e-6)
        if len(over):
            self.counters["F19"] += 1
            name = self.dims[over[0]].name
            reason = f"{name} jumped by {step[over[0]]:.4g}, at most {limit[over[0]]:.4g}"
            self.teleport = FaultReport("F19", reason, self.topic)

    def _refuse(self, report: FaultReport) -> FaultReport:
        self.counters[report.id] += 1
        self.reject = FaultReport(report.id, f"{self.topic}: {report.reason}", self.topic)
        return self.reject


class PromptSlot:
    """The prompt in force. A new one replaces it only when it may be one (F86)."""

    def __init__(self, prompt: str = "", check: Callable[[str], None] | None = None, topic: str = "prompt"):
        """check: raises ObservationError for a prompt that the policy cannot take (too many tokens)."""
        self.text, self.topic = "", topic
        self.reject: FaultReport | None = None  # since the reader last took it
        self.counters: Counter[str] = Counter()
        self._check = check
        if prompt:
            self.put(prompt)

    def put(self, text: str) -> FaultReport | None:
        """Store the prompt, or return why not and keep the old one."""
        try:
            clean_prompt(text)
            if self._check is not None:
                self._check(text)
        except ObservationError as error:
            self.counters["F86"] += 1
            report = FaultReport("F86", f"{self.topic}: {public_error(error)}; the old prompt stays", self.topic)
            self.reject = report
            return report
        self.text, self.reject = text, None
        return None

    def take_reject(self) -> FaultReport | None:
        """The refusal since the last call, if any."""
        found, self.reject = self.reject, None
        return found
