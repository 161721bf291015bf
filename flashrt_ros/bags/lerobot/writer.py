"""Writes frames as a LeRobotDataset of version 2.1 or 3.0: parquet, pictures as video or PNG, statistics, metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from flashrt_core.errors import ConfigError

from ...config.settings import RobotConfig
from ..episodes import Frame
from ..messages import png_bytes
from . import layout
from .layout import ACTION, CHUNK_EPISODES, STAMPS, STATE, TIMES, DatasetShape
from .stats import RunningStats, merged_stats, picture_rows
from .tables import frame_schema, plain, tasks_table
from .video import VideoWriter

MB = 1 << 20


class EpisodeRows:
    """The columns of the episode that is being written, and its statistics. Pictures are not kept, except as PNG."""

    def __init__(self, shape: DatasetShape, index: int, first: int):
        self.shape, self.index, self.first = shape, index, first
        self.rows: list[dict[str, Any]] = []
        self.tasks: list[str] = []
        self.bytes = 0
        self._pixels = {v: RunningStats(3) for v in shape.robot.views}

    def add(self, frame: Frame, task_index: int) -> None:
        n = len(self.rows)
        row: dict[str, Any] = {
            STATE: frame.state, ACTION: frame.action, TIMES: frame.times_ns, STAMPS: frame.stamps_ns,
            "timestamp": n / self.shape.fps, "frame_index": n, "episode_index": self.index, "index": self.first + n,
            "task_index": task_index,
        }  # fmt: skip
        for view, picture in zip(self.shape.robot.views, frame.images, strict=True):
            self._pixels[view].add(picture_rows(picture))
            if not self.shape.video:
                data = png_bytes(picture)
                row[self.shape.image_key(view)] = {"bytes": data, "path": f"frame-{n:06d}.png"}
                self.bytes += len(data)
        self.rows.append(row)
        self.bytes += 8 * (frame.state.size + frame.action.size + frame.times_ns.size)
        if frame.task not in self.tasks:
            self.tasks.append(frame.task)

    def table(self) -> Any:
        import pyarrow as pa

        schema = frame_schema(self.shape)
        columns = {name: [plain(row[name]) for row in self.rows] for name in schema.names}
        return pa.table(columns, schema=schema)

    def stats(self) -> dict[str, dict[str, np.ndarray]]:
        """By feature; of pictures [3, 1, 1] in 0..1."""
        out = {}
        for name, feature in self.shape.features().items():
            if feature["dtype"] in ("image", "video"):
                continue
            running = RunningStats(feature["shape"][0])
            running.add(np.array([row[name] for row in self.rows], np.float64).reshape(len(self.rows), -1))
            out[name] = running.values()
        for view, running in self._pixels.items():
            values = running.values(count=len(self.rows))
            out[self.shape.image_key(view)] = {k: v if k == "count" else v.reshape(3, 1, 1) for k, v in values.items()}
        return out


class DatasetWriter:
    """Writes into a folder that is there and empty. Use `write_dataset`."""

    def __init__(self, root: Path, shape: DatasetShape):
        self._root, self._shape = root, shape
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, dict[str, np.ndarray]]] = []
        self._rows: EpisodeRows | None = None
        self._source_episode = -1
        self._frames = 0
        self._videos: dict[str, VideoWriter] = {}
        self._places: dict[str, int] = {}  # v3.0: number of the running file, by video key and for "data"
        self._data: Any = None
        self._data_bytes = 0
        self._video_start: dict[str, int] = {}

    @property
    def _is_v3(self) -> bool:
        return self._shape.version == "v3.0"

    def add(self, frame: Frame) -> None:
        if self._rows is None or frame.episode != self._source_episode:
            self._end_episode()
            self._source_episode = frame.episode
            self._rows = EpisodeRows(self._shape, len(self._episodes), self._frames)
            self._begin_videos()
        self._rows.add(frame, self._tasks.setdefault(frame.task, len(self._tasks)))
        if self._shape.video:
            for view, picture in zip(self._shape.robot.views, frame.images, strict=True):
                self._videos[view].add(picture)
        self._frames += 1

    # ---- files

    def _begin_videos(self) -> None:
        if not self._shape.video:
            return
        for view, size in zip(self._shape.robot.views, self._shape.sizes, strict=True):
            running = self._videos.get(view)
            if running is not None and running.bytes > layout.VIDEO_MB * MB:
                running.close()
                self._places[view] += 1
                running = None
            if running is None:
                path = self._root / self._video_path(view)
                running = self._videos[view] = VideoWriter(path, self._shape.fps, size, self._shape.codec)
            self._video_start[view] = running.frames

    def _video_path(self, view: str) -> str:
        key, template = self._shape.image_key(view), layout.VIDEO[self._shape.version]
        if self._is_v3:
            return template.format(video_key=key, **_place(self._places.setdefault(view, 0)))
        return template.format(video_key=key, **_episode_place(len(self._episodes)))

    def _end_episode(self) -> None:
        import pyarrow.parquet as pq

        rows, self._rows = self._rows, None
        if rows is None:
            return
        table, about = rows.table(), {"episode_index": rows.index, "tasks": rows.tasks, "length": len(rows.rows)}
        if self._is_v3:
            about |= self._append(table, rows)
        else:
            path = self._root / layout.DATA["v2.1"].format(**_episode_place(rows.index))
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, path)
            for video in self._videos.values():
                video.close()
            self._videos.clear()
        self._episodes.append(about)
        self._stats.append(rows.stats())

    def _append(self, table: Any, rows: EpisodeRows) -> dict[str, Any]:
        """v3.0: the episode as a row group of the running data file; returns where everything of it is."""
        import pyarrow.parquet as pq

        if self._data is not None and self._data_bytes > layout.DATA_MB * MB:
            self._data.close()
            self._data, self._data_bytes = None, 0
            self._places["data"] += 1
        place = _place(self._places.setdefault("data", 0))
        if self._data is None:
            path = self._root / layout.DATA["v3.0"].format(**place)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._data = pq.ParquetWriter(path, table.schema)
        self._data.write_table(table)
        self._data_bytes += rows.bytes
        out: dict[str, Any] = {f"data/{k}": v for k, v in place.items()}
        out |= {"dataset_from_index": rows.first, "dataset_to_index": rows.first + len(rows.rows)}
        for view in self._videos:
            key, start = f"videos/{self._shape.image_key(view)}", self._video_start[view]
            out |= {f"{key}/{k}": v for k, v in _place(self._places[view]).items()}
            out |= {f"{key}/from_timestamp": start / self._shape.fps,
                    f"{key}/to_timestamp": (start + len(rows.rows)) / self._shape.fps}  # fmt: skip
        return out

    # ---- end

    def close(self) -> dict[str, int]:
        """Write the metadata; returns episodes, frames, tasks."""
        self._end_episode()
        for video in self._videos.values():
            video.close()
        if self._data is not None:
            self._data.close()
        counts = {"episodes": len(self._episodes), "frames": self._frames, "tasks": len(self._tasks)}
        self._json(layout.INFO, self._shape.info(**counts))
        if self._is_v3:
            self._v3_metadata()
        else:
            tasks = [{"task_index": i, "task": t} for t, i in self._tasks.items()]
            stats = [{"episode_index": i, "stats": plain(s)} for i, s in enumerate(self._stats)]
            for name, lines in (
                (layout.TASKS_V21, tasks), (layout.EPISODES_V21, self._episodes), (layout.EPISODE_STATS_V21, stats),
            ):  # fmt: skip
                text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                (self._root / name).write_text(text, encoding="utf-8")
        return counts

    def _v3_metadata(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(tasks_table(list(self._tasks)), self._root / layout.TASKS_V3)
        whole = {name: merged_stats([s[name] for s in self._stats]) for name in self._stats[0]}
        self._json(layout.STATS, plain(whole))
        rows = []
        for about, stats in zip(self._episodes, self._stats, strict=True):
            flat = {f"stats/{name}/{k}": v for name, values in stats.items() for k, v in plain(values).items()}
            rows.append({**about, **flat, "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        path = self._root / layout.EPISODES_V3.format(chunk_index=0, file_index=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)

    def _json(self, name: str, value: object) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_dataset(
    root: Path,
    frames: Iterable[Frame],
    robot: RobotConfig,
    *,
    fps: float,
    version: str,
    video: bool,
    codec: str = "h264",
) -> dict[str, int]:
    """Write into the empty folder `root`; returns episodes, frames, tasks. ConfigError when there is no frame."""
    layout.check_packages()
    writer: DatasetWriter | None = None
    for frame in frames:
        if writer is None:
            sizes = tuple(picture.shape[:2] for picture in frame.images)
            writer = DatasetWriter(root, DatasetShape(robot, fps, version, video, codec, sizes))
        writer.add(frame)
    if writer is None:
        raise ConfigError("dataset", expected="at least one frame", found="none",
                          hint="`flashrt bag info BAG --robot R` shows what the robot file finds")  # fmt: skip
    return writer.close()


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK_EPISODES, "file_index": number % CHUNK_EPISODES}


def _episode_place(index: int) -> dict[str, int]:
    return {"episode_chunk": index // CHUNK_EPISODES, "episode_index": index}
