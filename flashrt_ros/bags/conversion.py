"""Converts recordings and datasets into each other: one source of frames, one sink, and an output that is whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flashrt_core.errors import ConfigError

from ..config.settings import RobotConfig
from .episode_bag import write_frames
from .episodes import BagFrames, Frame, FrameOptions
from .findings import Finding
from .lerobot import layout
from .lerobot.reader import DatasetFrames
from .lerobot.writer import write_dataset
from .metadata import NAME as METADATA
from .reading import BagReader

TARGETS = ("bag", *layout.VERSIONS)
OURS = (METADATA, layout.INFO)  # a folder with one of these may be replaced with --force
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """Where to and how. kind: bag, lerobot-v2.1 or lerobot-v3. images: video or png, codec: of the video."""

    out: Path
    kind: str
    images: str = "video"
    codec: str = "h264"
    force: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("kind", TARGETS), ("images", ("video", "png"))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"--{'to' if name == 'kind' else name}", expected=f"one of {', '.join(choices)}",
                                  found=repr(getattr(self, name)))  # fmt: skip
        if self.out.exists() and not self.force:
            raise ConfigError(f"output {self.out}", expected="a folder that does not exist yet", found="it",
                              hint="--force replaces it")  # fmt: skip
        if self.out.exists() and not any((self.out / name).is_file() for name in OURS):
            raise ConfigError(f"output {self.out}", expected="a bag or a dataset to replace", found="something else")

    def check_source(self, source: Path) -> None:
        """ConfigError where --force would replace what is converted: not everything in it is in the output."""
        out, real = self.out.resolve(), source.resolve()
        if real == out or out in real.parents:
            raise ConfigError(f"output {self.out}", expected="another folder than the source", found=f"{source}")


@dataclass
class Converted:
    """What a conversion did. counts: of what was written; skipped: commands without a frame, by reason."""

    out: Path
    counts: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    kept: bool = True

    @property
    def lost(self) -> bool:
        return any(f.is_loss for f in self.findings)

    def to_json(self) -> dict[str, object]:
        return {
            "out": str(self.out), "written": self.kept, "frames": self.frames, "counts": self.counts, "skipped": self.skipped,
            "findings": [{"fault": f.fault, "text": f.text, "count": f.count} for f in self.findings],
        }  # fmt: skip


def is_dataset(path: Path) -> bool:
    return (path / layout.INFO).is_file()


def convert_bag(
    source: Path, robot: RobotConfig, target: Target, options: FrameOptions, *, allow_loss: bool = False,
    on_progress: Progress | None = None,
) -> Converted:  # fmt: skip
    """A recording into a dataset, or into a bag of its frames. With losses nothing is written, unless they are allowed."""
    target.check_source(source)
    with BagReader(source) as whole:  # which topics there are, for F79; then only those that are needed
        wanted = BagFrames(whole, robot, options).topics()
    with BagReader(source, wanted) as bag:
        frames = BagFrames(bag, robot, options)
        total = bag.topics[frames.command_topic].count
        result = Converted(target.out)
        with _output(target) as (folder, keep):
            _write(
                folder, target, robot, _counted(frames, result, total, on_progress), frames.fps, result, options.node
            )
            result.findings, result.skipped = bag.findings, dict(frames.skipped)
            result.kept = allow_loss or not result.lost
            if result.kept:
                keep()
        return result


def convert_frames(
    frames: Iterable[Frame], robot: RobotConfig, target: Target, *, fps: float, total: int = 0, node: str,
    on_progress: Progress | None = None,
) -> Converted:  # fmt: skip
    """Any frames, such as those of a dataset or a simulation."""
    result = Converted(target.out)
    with _output(target) as (folder, keep):
        _write(folder, target, robot, _counted(frames, result, total, on_progress), fps, result, node)
        keep()
    return result


def convert_dataset(
    source: Path,
    robot: RobotConfig,
    target: Target,
    *,
    keys: dict[str, str],
    node: str,
    on_progress: Progress | None = None,
) -> Converted:
    """A LeRobotDataset into a recording, or into the other version."""
    target.check_source(source)
    frames = DatasetFrames(source, robot, keys)
    return convert_frames(frames, robot, target, fps=frames.fps, total=frames.total, node=node, on_progress=on_progress)


def _write(
    folder: Path, target: Target, robot: RobotConfig, frames: Iterator[Frame], fps: float, result: Converted, node: str
) -> None:
    if target.kind == "bag":
        result.counts = write_frames(folder, frames, robot, node)
        return
    folder.mkdir()
    result.counts = write_dataset(
        folder, frames, robot, fps=fps, version=layout.VERSIONS[target.kind], video=target.images == "video",
        codec=target.codec,
    )  # fmt: skip


def _counted(frames: Iterable[Frame], result: Converted, total: int, on_progress: Progress | None) -> Iterator[Frame]:
    for frame in frames:
        yield frame
        result.frames += 1
        if on_progress is not None:
            on_progress(result.frames, max(total, result.frames))


@contextmanager
def _output(target: Target) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder to write into; when `keep` was called it becomes the output at the end, else it is removed."""
    part = target.out.with_name(f".{target.out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    inside = part / target.out.name  # a bag's file is named after its folder
    part.mkdir()
    kept: list[bool] = []
    try:
        yield inside, lambda: kept.append(True)
        if kept:
            if target.out.exists():
                target.out.rename(part / "replaced")
            inside.rename(target.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
