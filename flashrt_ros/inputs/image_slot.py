"""ImageSlot: keeps the newest good image of one camera, at the policy's size; what is not good is refused, not stored.

One thread puts, another one reads: what a reader sees is one immutable object that is replaced as a whole.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flashrt_core.runtime.clock import NS, Clock

from ..config.settings import CameraConfig
from ..control.faults import FaultReport
from ..redact import public_error
from .image_decode import Rejected, decode_compressed, decode_raw
from .resize import resize_with_pad

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
        times = tuple(self._receipts)  # oldest first; called in every control period
        count = len(times) - bisect_right(times, now_ns - RATE_WINDOW_NS)
        if count == self._receipts.maxlen:
            return (count - 1) * NS / max(1, times[-1] - times[0])
        return count * NS / RATE_WINDOW_NS

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
        self.store(frame, self._check_stamp(frame, ros_now_ns))
        return None

    def store(self, frame: Frame, stamp_fault: FaultReport | None = None) -> None:
        """Take a frame that was checked, here or in another process by the slot of the same camera."""
        self.stamp_fault = stamp_fault
        if stamp_fault is not None:
            self.counters[stamp_fault.id] += 1
        self.reject, self.frame = None, frame
        self._receipts.append(frame.received_ns)

    def refuse(self, report: FaultReport) -> FaultReport:
        """Note that the newest message was refused; the frame stays."""
        self.counters[report.id] += 1
        self.reject = report
        return report

    def _check_size(self, height: object, width: object) -> None:
        camera = self.camera
        for name, have, want in (("height", height, camera.height), ("width", width, camera.width)):
            if want is not None and have != want and _plausible(have):
                raise Rejected("F06", f"{name} {have} px, configured {want}")
        if camera.resize == "exact" and (height, width) != (self.side, self.side) and _plausible(height, width):
            raise Rejected("F06", f"{width} x {height} px, the policy takes {self.side} x {self.side} (resize: exact)")

    def _refuse(self, report: FaultReport) -> FaultReport:
        camera = self.camera
        return self.refuse(FaultReport(report.id, f"{camera.view} ({camera.topic}): {report.reason}", camera.topic))

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
    rows = pixels.reshape(len(pixels), -1)  # whole rows at once: 30 times as fast as over two axes of three
    low, high = (f(axis=0).reshape(-1, pixels.shape[2]) for f in (rows.min, rows.max))
    low, high = low.min(axis=0), high.max(axis=0)
    if high.max() <= BLACK:
        return "black"
    if low.min() >= WHITE:
        return "saturated"
    return "constant" if int((high - low).max()) <= FLAT else ""
