"""The robot's messages to values and back without ROS: images, joint states, commands and prompts as CDR."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from flashrt_core.errors import ObservationError
from flashrt_core.runtime.clock import NS

from ..config.settings import CameraConfig, RobotConfig
from ..inputs.image_decode import MAX_BYTES, MAX_SIDE, Rejected, decode_compressed, decode_raw
from .bag import typestore
from .source import BagMessage

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINTS, COMMAND, TEXT = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray", "std_msgs/msg/String"
MAX_MESSAGE = MAX_BYTES + (1 << 20)  # bytes of one message of these types


def image_type(camera: CameraConfig) -> str:
    """Message type of a camera's topic."""
    return IMAGE if camera.transport == "raw" else COMPRESSED


def state_values(robot: RobotConfig, names: Sequence[str], fields: dict[str, np.ndarray]) -> np.ndarray:
    """float32 [S]: the policy's state from a joint state's fields. ObservationError names what is missing or no number."""
    at = {name: i for i, name in enumerate(names)}
    values = np.empty(len(robot.state))
    for i, dim in enumerate(robot.state):
        readings = fields[dim.field]
        index = at.get(dim.source)
        if index is None or index >= len(readings):
            raise ObservationError(f"joint {dim.source}", expected=f"a {dim.field} in the joint state", found="none")
        values[i] = readings[index] * dim.scale + dim.offset
    out = values.astype(np.float32)
    if not np.isfinite(out).all():
        raise ObservationError("joint state", expected="finite numbers", found="NaN or infinity")
    return out


class MessageCodec:
    """Reads and writes the message types of one robot. Every decode raises ObservationError for what is damaged."""

    def __init__(self, robot: RobotConfig):
        self.robot = robot
        self._store = typestore()
        self._cameras = {camera.view: camera for camera in robot.cameras}

    # ---- in

    def _decode(self, message: BagMessage) -> Any:
        if len(message.data) > MAX_MESSAGE:
            raise ObservationError(message.topic, expected=f"at most {MAX_MESSAGE} bytes", found=len(message.data))
        try:
            return self._store.deserialize_cdr(message.data, message.type)
        except Exception as error:  # the deserializer trusts its input: bytes of another type fail in many ways
            raise ObservationError(message.topic, expected=message.type, found=f"{type(error).__name__}") from None

    def image(self, message: BagMessage, view: str) -> tuple[np.ndarray, int]:
        """(uint8 RGB [H, W, 3], stamp in ns) of a camera's message."""
        camera, m = self._cameras[view], self._decode(message)
        try:
            if camera.transport == "raw":
                picture = decode_raw(m.height, m.width, m.encoding, m.step, m.data, camera.encodings)
            else:
                picture = decode_compressed(m.data, camera.encodings)
        except Rejected as rejected:
            raise ObservationError(message.topic, found=f"{rejected.report.id}: {rejected.report.reason}") from None
        return picture, _stamp_ns(m.header.stamp)

    def state(self, message: BagMessage) -> tuple[np.ndarray, int]:
        """(float32 [S] in the policy's units, stamp in ns)."""
        m = self._decode(message)
        fields = {"position": m.position, "velocity": m.velocity, "effort": m.effort}
        return state_values(self.robot, m.name, fields), _stamp_ns(m.header.stamp)

    def command(self, message: BagMessage) -> np.ndarray:
        """float32 [A]."""
        values = np.asarray(self._decode(message).data, np.float32)
        if values.shape != (len(self.robot.actions),) or not np.isfinite(values).all():
            expected = f"{len(self.robot.actions)} finite numbers"
            raise ObservationError(message.topic, expected=expected, found=f"{values.size} numbers")
        return values

    def text(self, message: BagMessage) -> str:
        return str(self._decode(message).data)

    # ---- out

    def _encode(self, type_name: str, **fields: object) -> bytes:
        return bytes(self._store.serialize_cdr(self._store.types[type_name](**fields), type_name))

    def _header(self, stamp_ns: int) -> Any:
        stamp_ns = min(max(stamp_ns, 0), (2**31 - 1) * NS)
        stamp = self._store.types["builtin_interfaces/msg/Time"](sec=stamp_ns // NS, nanosec=stamp_ns % NS)
        return self._store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=self.robot.name)

    def put_image(self, view: str, picture: np.ndarray, stamp_ns: int) -> bytes:
        """uint8 RGB [H, W, 3] as the camera's message: rgb8, or PNG, which loses nothing."""
        height, width = picture.shape[:2]
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            raise ObservationError(f"image of {view}", expected=f"1..{MAX_SIDE} px", found=f"{width} x {height}")
        header = self._header(stamp_ns)
        if image_type(self._cameras[view]) == IMAGE:
            data = np.ascontiguousarray(picture).reshape(-1)
            return self._encode(IMAGE, header=header, height=height, width=width, encoding="rgb8", is_bigendian=0,
                                step=3 * width, data=data)  # fmt: skip
        return self._encode(COMPRESSED, header=header, format="png", data=np.frombuffer(png_bytes(picture), np.uint8))

    def put_state(self, values: np.ndarray, stamp_ns: int) -> bytes:
        """float32 [S] in the policy's units as a joint state whose readings give exactly these values."""
        names = list(dict.fromkeys(dim.source for dim in self.robot.state))
        at = {name: i for i, name in enumerate(names)}
        fields = {field: np.full(len(names), np.nan) for field in ("position", "velocity", "effort")}
        for dim, value in zip(self.robot.state, np.asarray(values, np.float64), strict=True):
            fields[dim.field][at[dim.source]] = (value - dim.offset) / dim.scale
        used = {dim.field for dim in self.robot.state}
        fields = {k: np.nan_to_num(v) if k in used else np.empty(0) for k, v in fields.items()}
        return self._encode(JOINTS, header=self._header(stamp_ns), name=names, **fields)

    def put_command(self, values: np.ndarray) -> bytes:
        """float [A] as the forward controller's message."""
        kinds = self._store.types
        dim = kinds["std_msgs/msg/MultiArrayDimension"](label="action", size=len(values), stride=len(values))
        layout = kinds["std_msgs/msg/MultiArrayLayout"](dim=[dim], data_offset=0)
        return self._encode(COMMAND, layout=layout, data=np.asarray(values, np.float64))

    def put_text(self, text: str) -> bytes:
        return self._encode(TEXT, data=text)


def png_bytes(picture: np.ndarray) -> bytes:
    """A PNG file of uint8 RGB [H, W, 3]."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _stamp_ns(stamp: Any) -> int:
    return int(stamp.sec) * NS + int(stamp.nanosec)
