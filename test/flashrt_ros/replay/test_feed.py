"""The reading process gives exactly what reading here gives, is bounded, and says how it ended."""

import subprocess
import sys

import numpy as np
import pytest
from support.replay_bags import arm_recording, arm_robot, scripted_settings

from flashrt_core.errors import DeviceError
from flashrt_ros.replay import feed as feed_module
from flashrt_ros.replay.decode import ImageIn
from flashrt_ros.replay.feed import BagEnd, FeedPlan, InlineFeed, ProcessFeed
from flashrt_ros.replay.run import check_bags
from flashrt_ros.replay.timeline import Tick

ROBOT = arm_robot(views=("front", "wrist"))


@pytest.fixture
def plan(tmp_path):
    settings = scripted_settings(ROBOT)
    (job,) = check_bags([arm_recording(ROBOT, 150).write(tmp_path / "bag")], settings, None)
    return FeedPlan(job.path, job.topics, settings, 32)


def test_process_gives_what_inline_gives(plan, monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_SLOTS", 8)  # a ring much smaller than the bag: slots are used again and again
    here = list(InlineFeed(plan))
    with ProcessFeed(plan) as feed:
        there = list(feed)
    assert len(here) == len(there) and isinstance(there[-1], BagEnd)
    for a, b in zip(here, there, strict=True):
        assert type(a) is type(b)
        if isinstance(a, ImageIn):
            assert np.array_equal(a.frame.image, b.frame.image) and not b.frame.image.flags.writeable
            assert (a.frame.seq, a.frame.digest, a.frame.stamp_ns) == (b.frame.seq, b.frame.digest, b.frame.stamp_ns)
        elif isinstance(a, Tick):
            assert (a.at_ns, a.tick) == (b.at_ns, b.tick) and np.array_equal(a.command, b.command)
    assert here[-1] == there[-1]


def test_leaving_early_ends_the_process(plan, monkeypatch):
    monkeypatch.setattr(feed_module, "MAX_SLOTS", 8)
    with ProcessFeed(plan) as feed:
        next(iter(feed))
        process = feed._process
    assert not process.is_alive()


def test_a_dead_process_is_said(plan):
    with ProcessFeed(plan) as feed:
        feed._process.terminate()
        feed._process.join()
        with pytest.raises(DeviceError, match="reading"):
            list(feed)


def test_a_bag_that_vanishes_is_said(plan):
    for file in plan.bag.iterdir():
        file.unlink()
    with ProcessFeed(plan) as feed, pytest.raises(DeviceError, match="reading the bag"):
        list(feed)


def test_a_script_without_a_guard_is_told_so(tmp_path):
    """Reading runs in a process that imports the script first: without `if __name__` it would replay there too."""
    arm_recording(ROBOT, 20).write(tmp_path / "bag")
    script = tmp_path / "script.py"
    words = "from support.replay_bags import arm_robot, scripted_settings\nfrom flashrt_ros.replay.replay import replay\n"
    words += f"replay([Path({str(tmp_path / 'bag')!r})], scripted_settings(arm_robot(views=('front', 'wrist'))), Path('out'))\n"
    script.write_text(f"import sys\nfrom pathlib import Path\nsys.path[:0] = {sys.path!r}\n{words}")
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 1 and "under `if __name__ == '__main__':`" in ended.stderr.splitlines()[-1]
