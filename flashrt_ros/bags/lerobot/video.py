"""Video files of camera pictures: written frame by frame, and read back by frame number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError

# name in info.json -> (encoder, its options). Keyframes every second frame, as lerobot video_utils.py encodes them, so
# that any frame is found quickly; crf: the quality.
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"g": "2", "crf": "18", "preset": "veryfast"}),
    "av1": ("libsvtav1", {"g": "2", "crf": "30", "preset": "8"}),
}
MAX_SIDE = 16384


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """SVT-AV1, opened by root, makes the calling thread and its own threads real-time (SCHED_FIFO, 99): they and every process
    started later would keep all others from running. Afterwards every thread has the policy that it, or this one, had before."""
    before, own = _policies(), (os.sched_getscheduler(0), os.sched_getparam(0))
    yield
    for thread, now in _policies().items():
        policy, parameters = before.get(thread, own)
        if now[0] != policy:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setscheduler(thread, policy, parameters)


def _policies() -> dict[int, tuple[int, os.sched_param]]:
    """Policy and parameters of every thread of this process by its kernel id."""
    found = {}
    for thread in map(int, os.listdir("/proc/self/task")):
        with suppress(ProcessLookupError):
            found[thread] = os.sched_getscheduler(thread), os.sched_getparam(thread)
    return found


class VideoWriter:
    """An .mp4 of uint8 RGB [H, W, 3] frames, all of one size; H and W are rounded up to even numbers by repeating the edge."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int], codec: str):
        import av

        encoder, options = CODECS[codec]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.frames = path, 0
        self._height, self._width = size
        self._box = av.open(str(path), "w")
        self._stream = self._box.add_stream(encoder, rate=Fraction(fps).limit_denominator(1000), options=options)
        self._stream.height, self._stream.width = self._height + self._height % 2, self._width + self._width % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.thread_count = 2

    def add(self, picture: np.ndarray) -> None:
        import av

        if picture.shape != (self._height, self._width, 3):
            raise ConfigError(f"video {self.path.name}", expected=f"{self._width} x {self._height} px in every frame",
                              found=f"{picture.shape[1]} x {picture.shape[0]}")  # fmt: skip
        if self._height % 2 or self._width % 2:
            picture = np.pad(picture, ((0, self._height % 2), (0, self._width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = self.frames
        frame.time_base = 1 / self._stream.codec_context.framerate
        if self.frames:
            self._box.mux(self._stream.encode(frame))
        else:  # opens the encoder
            with _scheduling_kept():
                self._box.mux(self._stream.encode(frame))
        self.frames += 1

    @property
    def bytes(self) -> int:
        return self.path.stat().st_size

    def close(self) -> None:
        self._box.mux(self._stream.encode(None))
        self._box.close()


class VideoReader:
    """Frames of a video file in order; `at(n)` moves forward to frame n, and starts again to go back."""

    def __init__(self, path: Path, size: tuple[int, int]):
        """size: (height, width) of the pictures; a frame may be larger by the row and column that evenness took."""
        self.path, self._size = path, size
        self._box = None
        self._rewind()

    def _rewind(self) -> None:
        import av

        self.close()
        try:
            self._box = av.open(str(self.path))
            stream = self._box.streams.video[0]
        except (av.error.FFmpegError, OSError, IndexError, ValueError) as error:
            raise ConfigError(
                f"video {self.path.name}", expected="a video file", found=f"{type(error).__name__}"
            ) from None
        height, width = getattr(stream, "height", 0), getattr(stream, "width", 0)  # none: a codec that does not exist
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
            raise ConfigError(f"video {self.path.name}", expected=f"1..{MAX_SIDE} px", found=f"{width} x {height}")
        stream.thread_type = "AUTO"
        self._frames, self._next = self._box.decode(stream), 0

    def at(self, number: int) -> np.ndarray:
        """uint8 RGB [H, W, 3]. Raises ConfigError when there is no such frame."""
        import av

        if number < self._next:
            self._rewind()
        try:
            while True:
                frame = next(self._frames)
                self._next += 1
                if self._next > number:
                    break
        except (StopIteration, av.error.FFmpegError, OSError, ValueError) as error:
            raise ConfigError(f"video {self.path.name}", expected=f"a frame {number}",
                              found=f"{self._next} frames, {type(error).__name__}") from None  # fmt: skip
        picture = frame.to_ndarray(format="rgb24")
        height, width = self._size
        if not (0 <= picture.shape[0] - height <= 1 and 0 <= picture.shape[1] - width <= 1):
            raise ConfigError(f"video {self.path.name}", expected=f"{width} x {height} px, as info.json says",
                              found=f"{picture.shape[1]} x {picture.shape[0]}")  # fmt: skip
        return picture[:height, :width]

    def close(self) -> None:
        if self._box is not None:
            self._box.close()
            self._box = None
