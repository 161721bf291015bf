"""Where things are in a LeRobotDataset and what its info.json says, for versions 2.1 and 3.0.

Facts: github.com/huggingface/lerobot. v2.1: src/lerobot/datasets/utils.py (paths, DEFAULT_FEATURES, info) at the release of
that name; v3.0: src/lerobot/datasets/v30/convert_dataset_v21_to_v30.py (paths, per-episode columns, info) and io_utils.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flashrt_core.errors import ConfigError

from ...config.settings import RobotConfig

VERSIONS = {"lerobot-v2.1": "v2.1", "lerobot-v3": "v3.0"}
INFO, STATS = "meta/info.json", "meta/stats.json"
TASKS_V21, EPISODES_V21, EPISODE_STATS_V21 = "meta/tasks.jsonl", "meta/episodes.jsonl", "meta/episodes_stats.jsonl"
TASKS_V3, EPISODES_V3 = "meta/tasks.parquet", "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA = {
    "v2.1": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "v3.0": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO = {
    "v2.1": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    "v3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
CHUNK_EPISODES = 1000  # per folder in v2.1; files per folder in v3.0
DATA_MB, VIDEO_MB = 100, 200  # size at which v3.0 begins another file
STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
# Our own columns: log times of command, state and images, and header stamps of state and images, in ns. LeRobot's own
# `timestamp` is frame_index / fps, whatever happened.
TIMES, STAMPS = "bag_time_ns", "bag_stamp_ns"
MAX_INFO = 4 << 20


def check_packages() -> None:
    """ConfigError when parquet or video cannot be handled here."""
    missing = [name for name in ("pyarrow", "av", "PIL") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "LeRobotDataset", expected="the packages of the lerobot-format extra", found=f"{', '.join(missing)} missing",
            hint="In the checkout, run: pip install -e '.[bag,lerobot-format]'",
        )  # fmt: skip


@dataclass(frozen=True)
class DatasetShape:
    """What the columns of a dataset hold. sizes: (height, width) by view, in the robot's order."""

    robot: RobotConfig
    fps: float
    version: str
    video: bool
    codec: str
    sizes: tuple[tuple[int, int], ...]

    def image_key(self, view: str) -> str:
        return IMAGES + view

    def features(self) -> dict[str, dict[str, Any]]:
        """info.json's features."""
        robot = self.robot
        out: dict[str, dict[str, Any]] = {
            STATE: _numbers("float32", robot.state_names), ACTION: _numbers("float32", robot.action_names),
            TIMES: _numbers("int64", ("command", "state", *robot.views)),
            STAMPS: _numbers("int64", ("state", *robot.views)),
        }  # fmt: skip
        for view, (height, width) in zip(robot.views, self.sizes, strict=True):
            out[self.image_key(view)] = self._picture(height, width)
        for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
            out[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
        if not robot.state:
            del out[STATE]
        if self.version == "v3.0":
            for feature in out.values():
                if feature["dtype"] != "video":
                    feature["fps"] = self.fps
        return out

    def _picture(self, height: int, width: int) -> dict[str, Any]:
        names = ["height", "width", "channels"]
        if not self.video:
            return {"dtype": "image", "shape": [height, width, 3], "names": names}
        info = {
            "video.height": height, "video.width": width, "video.codec": self.codec, "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False, "video.fps": self.fps, "video.channels": 3, "has_audio": False,
        }  # fmt: skip
        return {"dtype": "video", "shape": [height, width, 3], "names": names, "info": info}

    def info(self, episodes: int, frames: int, tasks: int) -> dict[str, Any]:
        """info.json."""
        fps: float | int = int(self.fps) if self.fps == int(self.fps) else self.fps
        out: dict[str, Any] = {
            "codebase_version": self.version, "robot_type": self.robot.name, "total_episodes": episodes,
            "total_frames": frames, "total_tasks": tasks, "chunks_size": CHUNK_EPISODES, "fps": fps,
            "splits": {"train": f"0:{episodes}"}, "data_path": DATA[self.version],
            "video_path": VIDEO[self.version] if self.video else None, "features": self.features(),
        }  # fmt: skip
        if self.version == "v2.1":
            out["total_videos"] = episodes * len(self.robot.views) if self.video else 0
            out["total_chunks"] = -(-episodes // CHUNK_EPISODES)
        else:
            out["data_files_size_in_mb"], out["video_files_size_in_mb"] = DATA_MB, VIDEO_MB
        return out


def _numbers(dtype: str, names: Sequence[str]) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [len(names)], "names": list(names)}


def read_info(root: Path) -> dict[str, Any]:
    """info.json of a dataset of a version that can be read. Raises ConfigError for anything else."""
    file = root / INFO
    if not file.is_file():
        raise ConfigError(f"dataset {root.name}", expected=f"a LeRobotDataset with {INFO}", found="none")
    if file.stat().st_size > MAX_INFO:
        raise ConfigError(INFO, expected=f"at most {MAX_INFO} bytes", found=file.stat().st_size)
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
        version, features = info["codebase_version"], info["features"]
        known = version in DATA and isinstance(features, dict) and float(info["fps"]) > 0
        paths = info["data_path"], info.get("video_path")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            INFO, expected="codebase_version, fps, features", found=f"{type(error).__name__} {error}"[:120]
        ) from None
    if not known:
        raise ConfigError(INFO, expected=f"version {' or '.join(DATA)}, features, fps > 0", found=f"version {version!r}"[:80],
                          hint="lerobot converts older datasets")  # fmt: skip
    # Templates are text from outside that becomes paths: only those that LeRobot itself writes are followed.
    if paths[0] != DATA[version] or paths[1] not in (None, VIDEO[version]):
        raise ConfigError(INFO, expected=f"data_path {DATA[version]!r}", found=str(paths)[:120])
    return info
