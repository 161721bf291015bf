"""What a policy sees: the picture's turn, the axis-angle of the references, the 8-d state; and the scripted policy's eye."""

import math

import numpy as np
import pytest

from flashrt_core.errors import ObservationError
from flashrt_ros.sim.libero.observation import axis_angle, policy_state, training_image, upright_image
from flashrt_ros.sim.libero.scripted import CAMERA_AT, CAMERA_AXES, SEEN_X_M, SEEN_Z_M, LiftPolicy, find_cube


def test_picture_is_turned_by_180_degrees():
    raw = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    seen = training_image(raw)
    assert np.array_equal(seen, np.rot90(raw, 2)) and seen.flags.c_contiguous
    assert np.array_equal(upright_image(raw), np.flipud(raw))
    assert np.array_equal(np.fliplr(upright_image(raw)), seen)  # a policy's picture is the upright one, mirrored


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, math.pi / 2, math.pi, 4.0, 6.2])
def test_axis_angle_of_a_turn_about_a_known_axis(angle):
    axis = np.array([1.0, -2.0, 2.0]) / 3
    quaternion = np.append(axis * math.sin(angle / 2), math.cos(angle / 2))
    assert axis_angle(quaternion) == pytest.approx(axis * angle, abs=1e-7)


def test_axis_angle_keeps_the_long_way_round_and_clips():
    assert np.linalg.norm(axis_angle(np.array([math.sin(2.0), 0, 0, math.cos(2.0)]))) == pytest.approx(4.0)
    assert np.array_equal(axis_angle(np.array([0, 0, 0, 1.0000001])), np.zeros(3))


def test_state_is_position_axis_angle_and_fingers():
    state = policy_state(np.array([0.1, 0.2, 0.9]), np.array([1.0, 0, 0, 0]), np.array([0.04, -0.04]))
    assert state.dtype == np.float32
    assert state == pytest.approx([0.1, 0.2, 0.9, math.pi, 0, 0, 0.04, -0.04])


def picture_of(x: float, y: float, side: int = 224, mirrored: bool = False) -> np.ndarray:
    """A white table with a red patch where a point (x, y) of the cube's surface is seen: the projection, done forward."""
    focal = 0.5 / math.tan(math.radians(45) / 2)
    at = CAMERA_AXES.T @ (np.array([x + SEEN_X_M, y, SEEN_Z_M]) - CAMERA_AT)
    right, up = focal * at[0] / -at[2], focal * at[1] / -at[2]
    row, column = round((0.5 - up) * side - 0.5), round((0.5 - right) * side - 0.5)
    picture = np.full((side, side, 3), 240, np.uint8)
    picture[row - 4 : row + 5, column - 4 : column + 5] = (140, 20, 25)
    return picture[:, ::-1] if mirrored else picture


@pytest.mark.parametrize("x, y", [(0.0, 0.0), (0.03, -0.03), (-0.03, 0.02), (0.1, 0.15)])
def test_cube_is_found_where_it_is(x, y):
    assert find_cube(picture_of(x, y)) == pytest.approx([x, y], abs=0.004)


def test_a_mirrored_picture_leads_to_the_wrong_side():
    assert find_cube(picture_of(0.0, 0.1, mirrored=True))[1] == pytest.approx(-0.1, abs=0.008)
    assert find_cube(np.full((224, 224, 3), 240, np.uint8)) is None


def act(hand, opening, cube=(0.0, 0.0)):
    state = np.array([*hand, np.pi, 0, 0, opening / 2, -opening / 2], np.float32)
    return LiftPolicy().predict([picture_of(*cube)], "lift the red cube", state)


def test_scripted_policy_hovers_descends_closes_and_lifts():
    far = act((-0.1, 0.05, 1.0), 0.08)
    assert far.shape == (10, 7) and far.dtype == np.float32
    assert far[0, 0] == 1 and far[0, 1] < 0 and far[0, 2] < 0 and (far[:, 6] == -1).all()
    above = act((0.0, 0.0, 0.88), 0.08)
    assert above[0, 2] == -1 and abs(above[0, :2]).max() < 0.2 and above[0, 6] == -1
    low = act((0.0, 0.0, 0.825), 0.08)
    assert (low[:, :3] == 0).all() and (low[:, 6] == 1).all()
    held = act((0.0, 0.0, 0.825), 0.043)
    assert (held[:, 2] == 1).all() and (held[:, 6] == 1).all()
    corners = act((0.0, 0.0, 0.825), 0.061)
    assert 0 < corners[0, 2] < 0.5 and corners[0, 6] == 1


def test_scripted_policy_needs_a_state():
    with pytest.raises(ObservationError, match="state"):
        LiftPolicy().predict([picture_of(0, 0)], "x")
