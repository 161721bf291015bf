"""The page is one file that shows every figure, with whatever names the bag and the robot have."""

import re
from dataclasses import replace

import numpy as np
import pytest
from support.replay_bags import PROMPT_TOPIC, START_NS, TEXT, arm_recording, arm_robot, scripted_settings, text

from flashrt_ros.replay.first_frames import overlay_svg
from flashrt_ros.replay.outcome import BagOutcome, Excerpt, FirstFrame
from flashrt_ros.replay.page import _curves
from flashrt_ros.replay.replay import replay


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    robot = arm_robot(14)
    recording = arm_recording(robot, 60, offset=0.05)
    recording.add(START_NS - 1, PROMPT_TOPIC, TEXT, text("put <b>it</b> & go"))
    folder = tmp_path_factory.mktemp("page")
    bag = recording.write(folder / "a<bag>")
    replay([bag], scripted_settings(robot, latency="100"), folder / "out", command="flashrt replay 'a<bag>'")
    return (folder / "out" / "report.html").read_text()


def test_everything_is_there(page):
    for words in (
        "Replay of a&lt;bag&gt;", "Error of served commands", "Predicted and recorded", "The first requests", "MAE",
        "Error over the chunk", "CB1", "CB6", "temporal_fusion", "rows outside the range", "Model latency", "timing.json",
    ):
        assert words in page, words
    assert page.count("data:image/jpeg") == 4 and page.count("<polyline") > 30


def test_it_is_one_file_and_data_is_no_html(page):
    assert not re.search(r"<script|(?:src|href)=\"(?!data:)", page)
    assert "<b>it</b>" not in page and "put &lt;b&gt;it&lt;/b&gt; &amp; go" in page and "<bag>" not in page
    tags = "(?:section|div|table|tr|td|svg)"
    assert len(re.findall(rf"<{tags}\b", page)) == len(re.findall(f"</{tags}>", page))


def test_many_joints_are_the_ones_that_move(page):
    assert page.count("<h3>") == 12 and "2 joint(s)" in page


def test_a_tick_without_a_command_is_a_gap_and_no_motion():
    nan, robot = np.nan, arm_robot(2)
    recorded = [np.array([1.0, 5.0]), np.array([nan, nan]), np.array([3.0, 5.0]), np.array([2.0, 5.0])]
    served = [np.array([nan, nan])] * 2 + [np.array([1.5, 5.0])] * 2
    total = BagOutcome("b", None, {}, {}, np.zeros(2), excerpt=Excerpt(recorded, served, []))
    html = _curves(total, robot)
    assert "<h3>j0</h3>" in html and "<h3>j1</h3>" not in html, "j1 stands still at 5, also where nothing was recorded"
    found = re.findall(r'<polyline class="line s\d" points="([^"]*)"', html)
    curves = [[p.split(",")[0] for p in points.split()] for points in found]
    assert [len(points) for points in curves] == [2, 2, 2] and curves[1] == curves[2], "served begins at its first command"


def test_names_over_a_picture_do_not_overlap():
    robot = arm_robot(3)
    robot = replace(robot, actions=tuple(replace(d, name=f"left_arm_shoulder_joint_{i}") for i, d in enumerate(robot.actions)))
    moving = np.arange(15.0).reshape(5, 3)
    svg = overlay_svg(FirstFrame({}, "go", 0.0, 0.0, moving, np.full((5, 3), np.nan)), robot)
    places = re.findall(r'<text class="c\d" x="(\d+)" y="(\d+)">…_shoulder_joint_\d<', svg)
    assert len(places) == 3 and len({y for _, y in places}) == 3


def test_overlay_without_a_record_and_without_motion():
    robot = arm_robot(2)
    moving = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    frame = FirstFrame({}, "go", 0.0, 0.0, moving, np.full((5, 2), np.nan))
    assert overlay_svg(frame, robot).count("<polyline") == 1
    assert overlay_svg(replace(frame, recorded=moving), robot).count("<polyline") == 2
    assert overlay_svg(replace(frame, predicted=np.zeros((5, 2))), robot).count("<polyline") == 0
