"""Reads a LeRobotDataset of version 2.1 or 3.0 as frames of a robot, episode by episode."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flashrt_core.errors import ConfigError, nearest
from flashrt_core.runtime.clock import NS

from ...config.settings import RobotConfig
from ..episode_bag import EPOCH_NS
from ..episodes import Frame
from . import layout
from .layout import ACTION, IMAGES, STAMPS, STATE, TIMES
from .tables import RowReader
from .video import MAX_SIDE, VideoReader

PAUSE_NS = 2 * NS  # between episodes that bring no times
MAX_LINES = 64 << 20  # bytes of a .jsonl file


@dataclass(frozen=True)
class EpisodePlace:
    """Where an episode is. rows: slice of the data file; videos: view -> (file, first frame)."""

    index: int
    data: Path
    rows: tuple[int, int]
    videos: dict[str, tuple[Path, int]]


class DatasetFrames:
    """The frames of a dataset, once. keys: view -> image key where it is not observation.images.<view>.

    Raises ConfigError when the dataset does not fit the robot.
    """

    def __init__(self, root: Path, robot: RobotConfig, keys: Mapping[str, str] | None = None):
        layout.check_packages()
        self._root, self._robot = root, robot
        self._info = layout.read_info(root)
        self.version, self.fps = str(self._info["codebase_version"]), float(self._info["fps"])
        self._features: dict[str, Any] = self._info["features"]
        self._check_keys(dict(keys or {}))
        self._state_order = self._order(STATE, robot.state_names) if robot.state else None
        self._action_order = self._order(ACTION, robot.action_names)
        self._tasks = self._read_tasks()
        self._episodes = self._read_episodes()
        self.total = sum(e.rows[1] - e.rows[0] for e in self._episodes)
        self._timed = all(
            self._features.get(name, {}).get("shape") == [n + len(robot.views)] for name, n in ((TIMES, 2), (STAMPS, 1))
        )

    def _check_keys(self, given: dict[str, str]) -> None:
        there = [k for k, f in self._features.items() if f.get("dtype") in ("image", "video")]
        for view in given:
            if view not in self._robot.views:
                raise ConfigError(f"--view {view}", found="no view of the robot", hint=nearest(view, self._robot.views))
        self._keys: dict[str, str] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        for view in self._robot.views:
            key = given.get(view, IMAGES + view)
            if key not in there:
                raise ConfigError(f"view {view}", expected=f"pictures {key} in the dataset", found=f"{', '.join(there) or 'none'}",
                                  hint=f"--view {view}=KEY names them")  # fmt: skip
            self._keys[view], self._sizes[view] = key, self._size(key)

    def _size(self, key: str) -> tuple[int, int]:
        """(height, width); older datasets have the channels first."""
        shape, names = self._features[key].get("shape"), self._features[key].get("names") or []
        good = (
            isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and 0 < n <= MAX_SIDE for n in shape)
        )
        if not good:
            raise ConfigError(f"{layout.INFO}: {key}", expected="a shape of three numbers", found=str(shape)[:60])
        first = str(names[0]).startswith("channel") if names else shape[0] == 3 and shape[2] != 3
        return (shape[1], shape[2]) if first else (shape[0], shape[1])

    def _order(self, key: str, names: tuple[str, ...]) -> list[int] | None:
        """Positions of the robot's dimensions in a column: by name when the names are the same, else as they stand."""
        feature = self._features.get(key, {})
        if feature.get("shape") != [len(names)]:
            raise ConfigError(f"dataset {self._root.name}: {key}", expected=f"{len(names)} numbers, as robot {self._robot.name}",
                              found=str(feature.get("shape"))[:60])  # fmt: skip
        have = feature.get("names")
        if isinstance(have, dict) and len(have) == 1:
            have = next(iter(have.values()))
        if isinstance(have, list) and sorted(map(str, have)) == sorted(names):
            return [have.index(name) for name in names]
        return None

    # ---- metadata

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = self._root / name
        try:
            if path.stat().st_size > MAX_LINES:
                raise ConfigError(name, expected=f"at most {MAX_LINES} bytes", found=path.stat().st_size)
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(name, expected="one JSON object a line", found=type(error).__name__) from None

    def _table(self, name: str | Path) -> list[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._root / name
        try:
            names = [n for n in pq.read_schema(path).names if not n.startswith("stats/")]
            return pq.read_table(path, columns=names).to_pylist()
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, MemoryError) as error:
            raise ConfigError(f"parquet {path.name}", expected="a parquet file", found=str(error)[:100]) from None

    def _read_tasks(self) -> dict[int, str]:
        rows = self._lines(layout.TASKS_V21) if self.version == "v2.1" else self._table(layout.TASKS_V3)
        try:
            return {int(r["task_index"]): str(r.get("task", r.get("__index_level_0__"))) for r in rows}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError("tasks", expected="task_index and task", found=type(error).__name__) from None

    def _read_episodes(self) -> list[EpisodePlace]:
        try:
            if self.version == "v2.1":
                rows = sorted(self._lines(layout.EPISODES_V21), key=lambda r: r["episode_index"])
                return [self._place_v21(int(r["episode_index"]), int(r["length"])) for r in rows]
            files = sorted((self._root / "meta/episodes").glob("chunk-*/file-*.parquet"))
            rows = [row for f in files for row in self._table(f.relative_to(self._root))]
            rows.sort(key=lambda r: r["episode_index"])
            firsts: dict[tuple[int, int], int] = {}  # an episode's rows are counted from its file's first
            for r in rows:
                firsts.setdefault((r["data/chunk_index"], r["data/file_index"]), int(r["dataset_from_index"]))
            return [self._place_v3(r, firsts[r["data/chunk_index"], r["data/file_index"]]) for r in rows]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                "episodes", expected="the columns that LeRobot writes", found=f"{type(error).__name__} {error}"[:100]
            ) from None

    def _place_v21(self, index: int, length: int) -> EpisodePlace:
        at = {"episode_chunk": index // int(self._info.get("chunks_size", 1000)), "episode_index": index}
        videos = {v: (self._root / layout.VIDEO["v2.1"].format(video_key=k, **at), 0) for v, k in self._video_keys()}
        return EpisodePlace(index, self._root / layout.DATA["v2.1"].format(**at), (0, length), videos)

    def _place_v3(self, row: dict[str, Any], first: int) -> EpisodePlace:
        videos = {}
        for view, key in self._video_keys():
            name = layout.VIDEO["v3.0"].format(
                video_key=key,
                chunk_index=int(row[f"videos/{key}/chunk_index"]),
                file_index=int(row[f"videos/{key}/file_index"]),
            )
            start = float(row[f"videos/{key}/from_timestamp"])
            if not math.isfinite(start) or start < 0:
                raise ValueError(f"from_timestamp {start}")
            videos[view] = (self._root / name, round(start * self.fps))
        data = layout.DATA["v3.0"].format(
            chunk_index=int(row["data/chunk_index"]), file_index=int(row["data/file_index"])
        )
        rows = int(row["dataset_from_index"]) - first, int(row["dataset_to_index"]) - first
        return EpisodePlace(int(row["episode_index"]), self._root / data, rows, videos)

    def _video_keys(self) -> list[tuple[str, str]]:
        keys = [(v, k) for v, k in self._keys.items() if self._features[k]["dtype"] == "video"]
        for _, key in keys:
            if "/" in key or key.startswith("."):
                raise ConfigError(f"{layout.INFO}: feature {ascii(key)[:80]}", expected="a name without /", found="one")
        return keys

    # ---- frames

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order; times are the recorded ones, or made from the rate where the dataset has none."""
        readers: dict[str, VideoReader] = {}
        rows = RowReader(self._columns())
        begin = EPOCH_NS
        try:
            for number, place in enumerate(self._episodes):
                self._open(readers, place)
                for i, row in enumerate(rows.rows(place.data, *place.rows)):
                    yield self._frame(number, i, row, place, readers, begin)
                begin += round((place.rows[1] - place.rows[0]) / self.fps * NS) + PAUSE_NS
        finally:
            for reader in readers.values():
                reader.close()

    def _open(self, readers: dict[str, VideoReader], place: EpisodePlace) -> None:
        for view, (path, _) in place.videos.items():
            if view not in readers or readers[view].path != path:
                if view in readers:
                    readers.pop(view).close()
                readers[view] = VideoReader(path, self._sizes[view])

    def _columns(self) -> list[str]:
        """What is read of the data files."""
        wanted = [STATE] if self._robot.state else []
        wanted += [ACTION, "task_index", *([TIMES, STAMPS] if self._timed else [])]
        return wanted + [k for k in self._keys.values() if self._features[k]["dtype"] == "image"]

    def _frame(
        self, number: int, i: int, row: dict[str, Any], place: EpisodePlace, readers: dict[str, VideoReader], begin: int
    ) -> Frame:
        views = self._robot.views
        images = tuple(
            readers[v].at(place.videos[v][1] + i) if v in readers else self._png(row[self._keys[v]], v) for v in views
        )
        if self._timed:
            times, stamps = np.array(row[TIMES], np.int64), np.array(row[STAMPS], np.int64)
        else:
            at = begin + round(i / self.fps * NS)
            times, stamps = np.full(2 + len(views), at, np.int64), np.full(1 + len(views), at, np.int64)
        task = self._tasks.get(row["task_index"])
        if task is None:
            raise ConfigError(
                f"episode {place.index}", expected="a task of the dataset", found=f"task_index {row['task_index']}"
            )
        state = self._numbers(row[STATE], self._state_order) if self._robot.state else np.zeros(0, np.float32)
        return Frame(number, task, state, self._numbers(row[ACTION], self._action_order), images, times, stamps)

    def _numbers(self, values: list[float], order: list[int] | None) -> np.ndarray:
        out = np.array(values, np.float32)
        return out if order is None else out[order]

    def _png(self, value: dict[str, Any], view: str) -> np.ndarray:
        from PIL import Image

        height, width = self._sizes[view]
        try:
            with Image.open(io.BytesIO(value["bytes"]), formats=("PNG", "JPEG")) as picture:
                if picture.size != (width, height):
                    raise ConfigError(f"picture of {view}", expected=f"{width} x {height} px", found=str(picture.size))
                return np.asarray(picture.convert("RGB"))
        except ConfigError:
            raise
        except Exception as error:  # Pillow raises nearly anything on damaged data
            raise ConfigError(f"picture of {view}", expected="a PNG or JPEG file", found=type(error).__name__) from None
