"""Recordings to LeRobot datasets and back: numbers to the last bit, times kept, pictures within the codec's loss."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.bags import robot_bag

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.conversion import Target, convert_bag, convert_dataset
from flashrt_ros.bags.episode_bag import write_frames
from flashrt_ros.bags.episodes import BagFrames, Frame, FrameOptions
from flashrt_ros.bags.findings import BagError
from flashrt_ros.bags.lerobot.reader import DatasetFrames
from flashrt_ros.bags.reading import BagReader
from flashrt_ros.config.config_file import load_robot

ROBOTS = ["tabletop", "panda"]
NODE = "policy_node"


@pytest.fixture(scope="module", params=ROBOTS)
def case(request, tmp_path_factory):
    robot = load_robot(request.param)
    return robot, robot_bag(tmp_path_factory.mktemp("bag") / "source", robot)


def frames_of(path, robot):
    with BagReader(path) as bag:
        return list(BagFrames(bag, robot, FrameOptions()))


def same(frame, want, robot):
    task, state, action, _, at = want
    readings = [(v - d.offset) / d.scale for v, d in zip(state, robot.state, strict=True)]
    state = [r * d.scale + d.offset for r, d in zip(readings, robot.state, strict=True)]
    assert frame.task == task and frame.times_ns[0] == at
    assert frame.state.tolist() == np.float32(state).tolist()
    assert frame.action.tolist() == np.float32(action).tolist()


def test_frames_of_a_recording(case):
    robot, bag = case
    frames = frames_of(bag.path, robot)
    assert [f.episode for f in frames] == [0] * 14 + [1] * 9
    for frame, want in zip(frames, bag.frames, strict=True):
        same(frame, want, robot)
        assert all((a == b).all() for a, b in zip(frame.images, want[3], strict=True))
        assert frame.times_ns.tolist() == [want[4], want[4] - 2_000_000, want[4] - 9_000_000, want[4] - 7_999_997]
        assert frame.stamps_ns.tolist() == [want[4] - 2_000_000, want[4] - 21_345_678, want[4] - 20_345_675]


@pytest.mark.parametrize("kind", ["lerobot-v2.1", "lerobot-v3"])
@pytest.mark.parametrize("images", ["png", "video"])
def test_round_trip(case, tmp_path, kind, images):
    robot, bag = case
    data, back = tmp_path / "data", tmp_path / "back"
    done = convert_bag(bag.path, robot, Target(data, kind, images), FrameOptions())
    assert done.frames == 23 and done.counts == {"episodes": 2, "frames": 23, "tasks": 2} and not done.skipped
    done = convert_dataset(data, robot, Target(back, "bag"), keys={}, node=NODE)
    assert done.frames == 23 and done.counts["/policy_node/prompt"] == 2
    first, again = frames_of(bag.path, robot), frames_of(back, robot)
    worst = 0
    for frame, got, want in zip(first, again, bag.frames, strict=True):
        same(got, want, robot)
        assert got.episode == frame.episode
        assert got.times_ns.tolist() == frame.times_ns.tolist() and got.stamps_ns.tolist() == frame.stamps_ns.tolist()
        worst = max(worst, *(np.abs(a.astype(float) - b).mean() for a, b in zip(got.images, frame.images, strict=True)))
    assert worst == 0 if images == "png" else 0 < worst < 4, worst
    with BagReader(back) as reader:
        assert list(reader) and reader.findings == [] and reader.verified


def test_between_versions(case, tmp_path):
    robot, bag = case
    convert_bag(bag.path, robot, Target(tmp_path / "a", "lerobot-v2.1", "png"), FrameOptions())
    convert_dataset(tmp_path / "a", robot, Target(tmp_path / "b", "lerobot-v3", "png"), keys={}, node=NODE)
    one, two = (list(DatasetFrames(tmp_path / name, robot)) for name in "ab")
    for x, y in zip(one, two, strict=True):
        assert x.task == y.task and x.episode == y.episode and x.action.tolist() == y.action.tolist()
        assert all((p == q).all() for p, q in zip(x.images, y.images, strict=True))


@pytest.mark.parametrize("kind", ["lerobot-v2.1", "lerobot-v3"])
def test_columns_and_metadata_are_lerobots(case, tmp_path, kind):
    """The layout of lerobot's own code, looked at with pyarrow alone."""
    import pyarrow.parquet as pq

    robot, bag = case
    root = tmp_path / "d"
    convert_bag(bag.path, robot, Target(root, kind), FrameOptions())
    info = json.loads((root / "meta/info.json").read_text())
    assert info["total_episodes"] == 2 and info["total_frames"] == 23 and info["fps"] == robot.control_hz
    assert info["features"]["action"] == info["features"]["action"] | {
        "dtype": "float32", "shape": [len(robot.actions)], "names": list(robot.action_names)
    }  # fmt: skip
    data = sorted((root / "data").rglob("*.parquet"))
    tables = [pq.read_table(f) for f in data]
    rows = [r for t in tables for r in t.to_pylist()]
    assert [r["index"] for r in rows] == list(range(23)) and [r["frame_index"] for r in rows] == [*range(14), *range(9)]
    assert np.allclose([r["timestamp"] for r in rows], [r["frame_index"] / robot.control_hz for r in rows], atol=1e-4)
    assert b"huggingface" in tables[0].schema.metadata
    stacked = np.array([r["action"] for r in rows], np.float64)
    if kind == "lerobot-v2.1":
        assert [f.name for f in data] == ["episode_000000.parquet", "episode_000001.parquet"]
        episodes = [json.loads(x) for x in (root / "meta/episodes.jsonl").read_text().splitlines()]
        assert episodes == [
            {"episode_index": i, "tasks": [f"pick up block {i}"], "length": n} for i, n in ((0, 14), (1, 9))
        ]
        stats = [json.loads(x) for x in (root / "meta/episodes_stats.jsonl").read_text().splitlines()]
        assert np.allclose(stats[0]["stats"]["action"]["mean"], stacked[:14].mean(0))
        assert np.array(stats[0]["stats"]["observation.images." + robot.views[0]]["mean"]).shape == (3, 1, 1)
    else:
        (file,) = (root / "meta/episodes").rglob("*.parquet")
        episodes = pq.read_table(file).to_pylist()
        assert [(e["dataset_from_index"], e["dataset_to_index"]) for e in episodes] == [(0, 14), (14, 23)]
        key = f"videos/observation.images.{robot.views[1]}"
        assert episodes[1][f"{key}/from_timestamp"] == pytest.approx(14 / robot.control_hz)
        stats = json.loads((root / "meta/stats.json").read_text())
        for name, value in (("mean", stacked.mean(0)), ("std", stacked.std(0)), ("min", stacked.min(0))):
            assert np.allclose(stats["action"][name], value), name
        assert pq.ParquetFile(data[0]).num_row_groups == 2


def test_a_dataset_without_our_columns_gets_times_from_its_rate(case, tmp_path):
    import pyarrow.parquet as pq

    robot, bag = case
    root = tmp_path / "d"
    convert_bag(bag.path, robot, Target(root, "lerobot-v2.1", "png"), FrameOptions())
    info = json.loads((root / "meta/info.json").read_text())
    for name in ("bag_time_ns", "bag_stamp_ns"):
        del info["features"][name]
    info["features"]["observation.images.top"] = info["features"].pop("observation.images." + robot.views[0])
    (root / "meta/info.json").write_text(json.dumps(info))
    for file in (root / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        names = [
            n.replace(robot.views[0], "top") if n.startswith("observation.images") else n for n in table.column_names
        ]
        pq.write_table(table.rename_columns(names).drop_columns(["bag_time_ns", "bag_stamp_ns"]), file)
    with pytest.raises(ConfigError, match="--view"):
        DatasetFrames(root, robot)
    frames = list(DatasetFrames(root, robot, {robot.views[0]: "observation.images.top"}))
    steps = np.diff([f.times_ns[0] for f in frames]) / 1e9
    assert np.allclose(steps[:13], 1 / robot.control_hz) and steps[13] > 1.5
    for frame, want in zip(frames, bag.frames, strict=True):
        assert frame.action.tolist() == np.float32(want[2]).tolist() and (frame.images[0] == want[3][0]).all()


def test_names_in_another_order_are_mapped_by_name(case, tmp_path):
    robot, bag = case
    root = tmp_path / "d"
    convert_bag(bag.path, robot, Target(root, "lerobot-v3", "png"), FrameOptions())
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["action"]["names"] = info["features"]["action"]["names"][::-1]
    (root / "meta/info.json").write_text(json.dumps(info))
    frame = next(iter(DatasetFrames(root, robot)))
    assert frame.action.tolist() == np.float32(bag.frames[0][2][::-1]).tolist()


def test_episodes_stay_apart_when_the_first_picture_is_older_than_the_last_command(tmp_path):
    """A slow camera: the first picture of an episode was there before the command that ends the one before it."""
    robot = load_robot("tabletop")

    def frames():
        for i in range(8):
            at = 10**18 + i * 50_000_000
            seen = at - 1_000_000 - (i % 4) * 50_000_000 - 60_000_000  # every fourth period a picture, late
            times = np.array([at, at, seen, seen])
            numbers = np.zeros(8, np.float32), np.full(7, i / 10, np.float32)
            yield Frame(
                i // 4, f"task {i // 4}", *numbers, (np.full((112, 112, 3), i // 4, np.uint8),) * 2, times, times[1:]
            )

    write_frames(tmp_path / "bag", frames(), robot)
    assert [(f.episode, f.task) for f in frames_of(tmp_path / "bag", robot)] == [
        (i // 4, f"task {i // 4}") for i in range(8)
    ]


def test_no_frame_at_all_says_why(tmp_path):
    robot = load_robot("tabletop")

    def frames(lag_ns):
        for i in range(4):
            at = 10**18 + i * 50_000_000
            times = np.array([at, at, at - lag_ns, at - lag_ns])
            yield Frame(
                0,
                "",
                np.zeros(8, np.float32),
                np.zeros(7, np.float32),
                (np.zeros((112, 112, 3), np.uint8),) * 2,
                times,
                times[1:],
            )

    write_frames(tmp_path / "silent", frames(0), robot)
    with pytest.raises(ConfigError, match=r"4 x no prompt yet\. Say what was done: --task"):
        frames_of(tmp_path / "silent", robot)
    write_frames(tmp_path / "old", frames(10**9), robot)
    with pytest.raises(ConfigError, match=r"camera agentview older than 0\.5 s"):
        frames_of(tmp_path / "old", robot)


def test_damage_is_not_converted_unless_allowed(tmp_path):
    robot = load_robot("tabletop")
    bag = robot_bag(tmp_path / "source", robot)
    (file,) = bag.path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    target = Target(tmp_path / "d", "lerobot-v3", "png")
    done = convert_bag(bag.path, robot, target, FrameOptions())
    assert done.lost and not done.kept and not target.out.exists()
    done = convert_bag(bag.path, robot, target, FrameOptions(), allow_loss=True)
    assert done.kept and 0 < done.frames < 23
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "source"], "nothing half-written stays"


def test_what_is_refused(tmp_path):
    robot, other = load_robot("tabletop"), load_robot("panda")
    bag = robot_bag(tmp_path / "source", robot, lengths=(60,), size=16)
    with pytest.raises(ConfigError, match="--force"):
        Target(bag.path, "bag")
    with pytest.raises(ConfigError, match="something else"):
        Target(tmp_path, "bag", force=True)
    with pytest.raises(BagError, match="exterior/image_raw: missing"):
        convert_bag(bag.path, other, Target(tmp_path / "d", "lerobot-v3"), FrameOptions())
    with pytest.raises(ConfigError, match=r"10 Hz, found 20\.0 Hz"):
        convert_bag(bag.path, robot, Target(tmp_path / "d", "lerobot-v3"), FrameOptions(fps=10))
    with pytest.raises(ConfigError, match=r"meta/info\.json"):
        DatasetFrames(bag.path, robot)
    assert not (tmp_path / "d").exists()


def test_force_replaces_only_when_the_new_one_is_whole(tmp_path):
    robot = load_robot("tabletop")
    bag = robot_bag(tmp_path / "source", robot, lengths=(3,))
    convert_bag(bag.path, robot, Target(tmp_path / "d", "lerobot-v3", "png"), FrameOptions())
    with pytest.raises(ConfigError):
        convert_bag(
            bag.path, robot, Target(tmp_path / "d", "lerobot-v3", force=True), FrameOptions(fps=7, task="x", gap_s=-1)
        )
    assert DatasetFrames(tmp_path / "d", robot).total == 3
    convert_bag(bag.path, robot, Target(tmp_path / "d", "bag", force=True), FrameOptions())
    assert (tmp_path / "d" / "metadata.yaml").is_file() and not (tmp_path / "d" / "meta").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i | {"data_path": "../../{chunk_index}/{file_index}"},
        lambda i: i | {"codebase_version": "v1.6"},
        lambda i: i | {"fps": 0},
        lambda i: i | {"features": []},
        lambda i: i | {"features": {k: f | {"shape": [9]} for k, f in i["features"].items()}},
    ],
)
def test_hostile_or_foreign_info_is_refused(tmp_path, change):
    robot = load_robot("tabletop")
    bag = robot_bag(tmp_path / "source", robot, lengths=(3,))
    convert_bag(bag.path, robot, Target(tmp_path / "d", "lerobot-v3", "png"), FrameOptions())
    file = tmp_path / "d/meta/info.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(ConfigError):
        list(DatasetFrames(tmp_path / "d", robot))


def test_mutated_datasets_are_typed_errors(tmp_path):
    robot = load_robot("tabletop")
    bag = robot_bag(tmp_path / "source", robot, lengths=(3,), size=112)
    root, rng = tmp_path / "d", np.random.default_rng(0)
    convert_bag(bag.path, robot, Target(root, "lerobot-v3", "video"), FrameOptions())
    files = [p for p in root.rglob("*") if p.is_file()]
    refused = 0
    for _ in range(150):
        file = files[int(rng.integers(len(files)))]
        data = bytearray(file.read_bytes())
        for _ in range(3):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        original = file.read_bytes()
        Path(file).write_bytes(data if rng.random() < 0.7 else data[: len(data) // 2])
        try:
            list(DatasetFrames(root, robot))
        except ConfigError:
            refused += 1
        file.write_bytes(original)
    assert 20 < refused < 150
