"""Bags are written and read back without ROS: bytes, types with their hashes, QoS, and what is refused."""

import numpy as np
import pytest

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.bag import FOREVER, BagWriter, OfferedQos, message_folder, open_bag, typestore
from flashrt_ros.config.config_file import load_robot
from flashrt_ros.ros_demo.witnesses import read_frames, read_recording

CHUNK, COMMAND = "flashrt_ros/msg/ActionChunk", "std_msgs/msg/Float64MultiArray"
STORE = typestore()


def make(type_name: str, **fields):
    """A message with zeros for what is not given."""
    kind = STORE.types[type_name]
    return kind(**fields)


def header(ns: int = 5_000_000_007):
    time = make("builtin_interfaces/msg/Time", sec=ns // 10**9, nanosec=ns % 10**9)
    return make("std_msgs/msg/Header", stamp=time, frame_id="tabletop")


def chunk(first: int, rows: np.ndarray):
    n, dims = rows.shape
    return make(
        CHUNK, header=header(), chunk=0, observation=3, first_command=first, executed=1,
        names=[f"d{i}" for i in range(dims)], kinds=np.ones(dims, np.uint8), period=0.05, horizon=n,
        data=rows.astype(np.float32).reshape(-1), inference_time=0.021, disagreement=float("nan"),
    )  # fmt: skip


def command(values: np.ndarray):
    layout = make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    return make(COMMAND, layout=layout, data=np.asarray(values, np.float64))


def cdr(message, type_name: str) -> bytes:
    return bytes(STORE.serialize_cdr(message, type_name))


def test_bytes_come_back_with_type_and_hash(tmp_path):
    rows = np.arange(14, dtype=np.float32).reshape(2, 7) / 14
    raw = [cdr(chunk(i, rows + i), CHUNK) for i in range(50)]
    with BagWriter(tmp_path / "bag") as bag:
        bag.add("/policy_node/action_chunk", CHUNK, OfferedQos(depth=7, reliability=1, durability=1))
        for i, data in enumerate(raw):
            bag.write("/policy_node/action_chunk", 10**18 + i, data)
        assert bag.counts == {"/policy_node/action_chunk": 50}
        announced = bag.type_hash(CHUNK)
    with open_bag(tmp_path / "bag") as reader:
        (connection,) = reader.connections
        assert connection.msgcount == 50 and connection.msgtype == CHUNK
        assert announced.startswith("RIHS01_") and STORE.hash_rihs01(CHUNK) == announced
        assert announced in (tmp_path / "bag" / "metadata.yaml").read_text()
        (qos,) = connection.ext.offered_qos_profiles
        assert (qos.depth, qos.reliability.value, qos.durability.value, tuple(qos.lifespan)) == (7, 1, 1, FOREVER)
        got = list(reader.messages())
        assert [bytes(data) for _, _, data in got] == raw and [at for _, at, _ in got] == [
            10**18 + i for i in range(50)
        ]
        message = reader.deserialize(got[3][2], CHUNK)
        assert message.first_command == 3 and np.array_equal(message.data.reshape(2, 7), rows + 3)


def test_bag_describes_itself(tmp_path):
    """A reader that never heard of our messages finds their definition inside."""
    from rosbags.highlevel import AnyReader

    with BagWriter(tmp_path / "bag") as bag:
        bag.add("/c", CHUNK)
        bag.write("/c", 1, cdr(chunk(9, np.zeros((1, 2))), CHUNK))
    with AnyReader([tmp_path / "bag"]) as reader:
        (connection,) = reader.connections
        _, _, data = next(reader.messages())
        assert reader.deserialize(data, connection.msgtype).first_command == 9


def test_hash_depends_on_the_definition(tmp_path):
    text = (message_folder() / "ActionChunk.msg").read_text()
    (tmp_path / "ActionChunk.msg").write_text(text.replace("uint32 horizon", "uint64 horizon"))
    assert typestore(tmp_path).hash_rihs01(CHUNK) != STORE.hash_rihs01(CHUNK)


def test_pictures_compress(tmp_path):
    picture = np.repeat(np.arange(112, dtype=np.uint8), 112 * 3).reshape(112, 112, 3)
    image = make(
        "sensor_msgs/msg/Image", header=header(), height=112, width=112, encoding="rgb8", is_bigendian=0, step=336,
        data=picture.reshape(-1),
    )  # fmt: skip
    data, sizes = cdr(image, "sensor_msgs/msg/Image"), {}
    for compress in (True, False):
        path = tmp_path / str(compress)
        with BagWriter(path, compress=compress) as bag:
            bag.add("/agentview/image", "sensor_msgs/msg/Image")
            for i in range(40):
                bag.write("/agentview/image", i, data)
        sizes[compress] = next(path.glob("*.mcap")).stat().st_size
    assert sizes[True] < sizes[False] / 4
    (first, second) = read_frames(tmp_path / "True", "/agentview/image", [(0, 9), (30, 34)])
    assert len(first) == 5 and len(second) == 3 and first[0].shape == (320, 320, 3)
    assert abs(int(first[0][160, 160, 0]) - 56) <= 2


def test_recording_is_read_by_topic(tmp_path):
    robot, rows = load_robot("tabletop"), np.ones((2, 7), np.float32)
    with BagWriter(tmp_path / "bag") as bag:
        bag.add("/tabletop/commands", COMMAND)
        bag.add("/policy_node/action_chunk", CHUNK)
        bag.add("/other", COMMAND)
        for i in range(3):
            bag.write("/tabletop/commands", i, cdr(command(np.full(7, i)), COMMAND))
            bag.write("/other", i, cdr(command(np.zeros(7)), COMMAND))
        bag.write("/policy_node/action_chunk", 2, cdr(chunk(1, rows), CHUNK))
    got = read_recording(tmp_path / "bag", robot, "policy_node")
    assert [(at, v[0]) for at, v in got.commands] == [(0, 0), (1, 1), (2, 2)]
    assert got.chunks[0].first == 1 and got.chunks[0].disagreement is None and got.chunks[0].stamp_ns == 5_000_000_007
    assert got.messages["/other"] == 3


def test_what_is_refused(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.add("/c", COMMAND)
        with pytest.raises(ConfigError, match="twice"):
            bag.add("/c", COMMAND)
        with pytest.raises(ConfigError, match="no_such/msg/Type"):
            bag.add("/d", "no_such/msg/Type")
    with pytest.raises(ConfigError, match="does not exist yet"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(ConfigError, match=r"metadata\.yaml"):
        open_bag(tmp_path)


def test_closing_twice_and_an_empty_bag(tmp_path):
    bag = BagWriter(tmp_path / "bag")
    bag.close()
    bag.close()
    with open_bag(tmp_path / "bag") as reader:
        assert reader.message_count == 0
