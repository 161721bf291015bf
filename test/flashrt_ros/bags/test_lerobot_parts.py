"""The parts of a LeRobotDataset by themselves: video frames by number, statistics, rows of parquet files."""

import os

import numpy as np
import pytest

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.lerobot.stats import RunningStats, merged_stats, picture_rows
from flashrt_ros.bags.lerobot.tables import RowReader
from flashrt_ros.bags.lerobot.video import CODECS, VideoReader, VideoWriter


def pictures(count, height, width):
    """Flat pictures whose level is their number."""
    return [np.full((height, width, 3), 20 + 10 * i, np.uint8) for i in range(count)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(64, 48), (61, 47)])
@pytest.mark.parametrize("fps", [20.0, 29.97, 12.5])
def test_frames_come_back_by_number_and_in_their_size(tmp_path, codec, size, fps):
    height, width = size
    writer = VideoWriter(tmp_path / "a/x.mp4", fps, size, codec)
    for picture in pictures(17, height, width):
        writer.add(picture)
    writer.close()
    reader = VideoReader(tmp_path / "a/x.mp4", size)
    for number in (0, 1, 5, 16, 3, 4):
        got = reader.at(number)
        assert got.shape == (height, width, 3) and abs(got.astype(int) - (20 + 10 * number)).max() <= 4, number
    with pytest.raises(ConfigError, match="a frame 17"):
        reader.at(17)
    reader.close()


@pytest.mark.parametrize("codec", CODECS)
def test_encoders_leave_the_scheduling_as_it_was(tmp_path, codec):
    """Real-time threads of an encoder would starve the rest of the machine (seen as root only: others may not ask for them)."""
    def policies():
        return {os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

    before = policies()
    writer = VideoWriter(tmp_path / "x.mp4", 20, (64, 48), codec)
    for picture in pictures(3, 64, 48):
        writer.add(picture)
        assert policies() == before
    writer.close()
    assert policies() == before


def test_another_size_and_another_file_are_refused(tmp_path):
    writer = VideoWriter(tmp_path / "x.mp4", 20, (64, 64), "h264")
    writer.add(pictures(1, 64, 64)[0])
    with pytest.raises(ConfigError, match="64 x 64 px in every frame"):
        writer.add(pictures(1, 64, 32)[0])
    writer.close()
    with pytest.raises(ConfigError, match="as info"):
        VideoReader(tmp_path / "x.mp4", (32, 32)).at(0)
    (tmp_path / "y.mp4").write_bytes(b"no video")
    with pytest.raises(ConfigError, match="a video file"):
        VideoReader(tmp_path / "y.mp4", (32, 32))


def test_statistics_are_numpys():
    rng = np.random.default_rng(0)
    rows = rng.normal([1.0, -5.0, 1.7e18], [0.1, 3.0, 1e9], (400, 3))
    whole, parts = RunningStats(3), []
    for chunk in np.array_split(rows, 7):
        part = RunningStats(3)
        for row in np.array_split(chunk, 3):
            part.add(row)
            whole.add(row)
        parts.append(part.values())
    for got in (whole.values(), merged_stats(parts)):
        assert got["count"].tolist() == [400]
        for name, want in (("min", rows.min(0)), ("max", rows.max(0)), ("mean", rows.mean(0)), ("std", rows.std(0))):
            assert np.allclose(got[name], want, rtol=1e-6), name
    picture = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
    assert np.allclose(picture_rows(picture).mean(0), picture[::4, ::4].mean((0, 1)) / 255)


def test_rows_go_forward_without_reading_twice_and_back_by_starting_again(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("a", "b"):
        pq.write_table(pa.table({"n": list(range(300)), "other": ["x"] * 300}), tmp_path / name, row_group_size=70)
    reader = RowReader(["n"])
    for path, low, high in (
        ("a", 0, 90),
        ("a", 90, 200),
        ("a", 250, 300),
        ("b", 10, 20),
        ("b", 0, 5),
        ("b", 5, 5),
        ("a", 0, 300),
    ):
        assert [r["n"] for r in reader.rows(tmp_path / path, low, high)] == list(range(low, high))
    with pytest.raises(ConfigError, match="301 rows"):
        list(reader.rows(tmp_path / "a", 290, 301))
    (tmp_path / "c").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ConfigError, match="an episode's rows"):
        list(reader.rows(tmp_path / "c", 0, 1))
