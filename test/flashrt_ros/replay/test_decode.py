"""What a recorded message becomes: compressed pictures, bad bytes, and the checks of the node's own slots."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.replay_bags import START_NS, STORE, arm_robot, cdr, command, header, image, state, text

from flashrt_ros.bags.source import BagMessage
from flashrt_ros.replay.bag_topics import BagTopics
from flashrt_ros.replay.decode import Decoder, ImageIn, PromptIn, StateIn, UnreadableIn
from flashrt_ros.replay.timeline import Command, Input

ROBOT = arm_robot()
TOPICS = BagTopics({"/front/image": "front"}, "/joint_states", "/commands", "/prompt")
KINDS = {
    "/front/image": "sensor_msgs/msg/Image", "/joint_states": "sensor_msgs/msg/JointState",
    "/commands": "std_msgs/msg/Float64MultiArray", "/prompt": "std_msgs/msg/String",
}  # fmt: skip
PICTURE = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)


def decoded(topic: str, data: bytes, robot=ROBOT, kind: str = ""):
    decoder = Decoder(robot, TOPICS, 32)
    (item,) = decoder.messages([BagMessage(topic, kind or KINDS[topic], START_NS + 7, data)])
    return (decoder.decode(item) if isinstance(item, Input) else item), decoder


def test_each_kind():
    seen, _ = decoded("/front/image", image(PICTURE, START_NS))
    assert isinstance(seen, ImageIn) and np.array_equal(seen.frame.image, PICTURE)
    assert (seen.frame.stamp_ns, seen.frame.received_ns) == (START_NS, START_NS + 7)
    seen, _ = decoded("/joint_states", state(["j0", "j1"], [0.1, 0.2], START_NS))
    assert isinstance(seen, StateIn) and seen.names == ("j0", "j1") and seen.positions.tolist() == [0.1, 0.2]
    assert decoded("/prompt", text("go"))[0] == PromptIn(START_NS + 7, "go")
    seen, _ = decoded("/commands", command([1, 2, 3]))
    assert isinstance(seen, Command) and seen.values.tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_compressed_pictures(kind):
    robot = replace(ROBOT, cameras=tuple(replace(c, transport="compressed") for c in ROBOT.cameras))
    out = io.BytesIO()
    smooth = np.asarray(Image.fromarray(PICTURE[:4, :4]).resize((64, 48), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(out, kind, **({"quality": 95} if kind == "jpeg" else {}))
    kind_name = "sensor_msgs/msg/CompressedImage"
    data = cdr(kind_name, header=header(START_NS), format=kind, data=np.frombuffer(out.getvalue(), np.uint8))
    seen, _ = decoded("/front/image", data, robot, kind_name)
    assert seen.fault is None and seen.frame.image.shape == (32, 32, 3)
    assert not seen.frame.image[0].any() and seen.frame.image[16].any()  # 64 x 48 in a square: black above


def test_refused_pictures_carry_their_fault():
    fields = STORE.deserialize_cdr(image(PICTURE, START_NS), KINDS["/front/image"])
    fields.encoding = "bayer_rggb8"
    seen, _ = decoded("/front/image", bytes(STORE.serialize_cdr(fields, KINDS["/front/image"])))
    assert seen.frame is None and seen.fault.id == "F05"


@pytest.mark.parametrize("topic", ["/front/image", "/joint_states", "/prompt"])
def test_bytes_that_are_no_message(topic):
    good = {"/front/image": image(PICTURE, 1), "/joint_states": state(["a"], [1.0], 1), "/prompt": text("go on then")}
    for data in (b"", b"\x00\x01\x00\x00", good[topic][: len(good[topic]) // 2], b"\xff" * 40):
        seen, _ = decoded(topic, data)
        assert isinstance(seen, UnreadableIn) or getattr(seen, "fault", None) is not None


def test_commands_that_are_none_are_counted():
    for data in (b"\x00", command([1.0, 2.0])):
        decoder = Decoder(ROBOT, TOPICS, 32)
        assert list(decoder.messages([BagMessage("/commands", KINDS["/commands"], START_NS, data)])) == []
        assert decoder.unreadable_commands == 1
