"""robosuite's demonstrations as a recording: with a simulator that is played, and with the real one where it is installed."""

import numpy as np
import pytest

from flashrt_core.errors import ConfigError
from flashrt_ros.bags.conversion import Target, convert_frames
from flashrt_ros.bags.episodes import BagFrames, FrameOptions
from flashrt_ros.bags.reading import BagReader
from flashrt_ros.bags.robosuite_demo import DemoFrames, check_robot, convert_demonstrations
from flashrt_ros.config.config_file import load_robot
from flashrt_ros.sim.libero.env_client import checkout


class PlayedSimulator:
    """Answers as the simulator process does: two short demonstrations whose numbers say where they come from."""

    lengths = (5, 3)

    def call(self, do, timeout_s, arrays=None, **fields):
        assert timeout_s > 0
        if do == "recorded":
            out = {}
            for i, n in enumerate(self.lengths):
                actions = np.zeros((n, 7))
                actions[:, 0], actions[:, 6] = 3.75 * (-1) ** np.arange(n), -1
                out |= {f"actions{i}": actions, f"times{i}": np.arange(n) * 0.05}
            return {"count": len(self.lengths), "prompt": "lift the red cube"}, out
        assert do == "recorded_frame"
        number, step = fields["demonstration"], fields["step"]
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[0, 0] = 10 * number + step  # MuJoCo's bottom left
        return {}, {
            "eef_pos": np.array([0.1 * step, 0.0, 1.0]), "eef_quat": np.array([1.0, 0, 0, 0]),
            "gripper_qpos": np.array([0.02, -0.02]), "joint_pos": np.zeros(7), "picture0": picture, "picture1": picture + 1,
        }  # fmt: skip


def test_frames_keep_state_action_and_time_and_turn_the_pictures(tmp_path):
    robot = load_robot("panda_lift")
    frames = DemoFrames(PlayedSimulator())
    assert frames.total == 8
    done = convert_frames(frames, robot, Target(tmp_path / "bag", "bag"), fps=20.0, total=8, node="policy_node")
    assert done.frames == 8 and done.counts["/policy_node/prompt"] == 2 and done.counts["/wrist/image"] == 8
    with BagReader(tmp_path / "bag") as bag:
        got = list(BagFrames(bag, robot, FrameOptions()))
        assert bag.findings == [] and bag.verified
    assert [f.episode for f in got] == [0] * 5 + [1] * 3 and {f.task for f in got} == {"lift the red cube"}
    for i, f in enumerate(got[:5]):
        assert (
            f.state[:3].tolist() == np.float32([0.1 * i, 0, 1]).tolist()
            and f.state[6:].tolist() == np.float32([0.02, -0.02]).tolist()
        )
        assert f.action.tolist() == [(-1.0) ** i, 0, 0, 0, 0, 0, -1], "the controller's input range"
        assert f.images[0][-1, -1].tolist() == [i] * 3 and f.images[1][0, 0].tolist() == [1] * 3
        assert f.times_ns[0] - got[0].times_ns[0] == i * 50_000_000
    assert got[5].times_ns[0] - got[4].times_ns[0] == 2_000_000_000


def test_robots_that_do_not_fit_are_refused(tmp_path):
    check_robot(load_robot("panda_lift"))
    with pytest.raises(ConfigError, match="--robot panda_lift"):
        check_robot(load_robot("panda"))
    with pytest.raises(ConfigError, match="--size"):
        convert_demonstrations(load_robot("panda_lift"), Target(tmp_path / "b", "bag"), size=9, node="n")
    with pytest.raises(ConfigError, match="make libero"):
        convert_demonstrations(
            load_robot("panda_lift"), Target(tmp_path / "b", "bag"), python=tmp_path / "none", node="n"
        )


@pytest.mark.long
@pytest.mark.skipif(not (checkout() / ".venv-libero/bin/python").exists(), reason="no simulator: make libero")
def test_the_first_frames_of_the_real_demonstrations(tmp_path):
    from flashrt_ros.bags.robosuite_demo import SUITE
    from flashrt_ros.sim.libero.env_client import SimulatorProcess, SimulatorSpec
    from flashrt_ros.sim.libero.protocol import Protocol

    process = SimulatorProcess(
        SimulatorSpec(SUITE, Protocol("demo", 64, 0, 1, {SUITE: 1}, 1, 0, False)), tmp_path / "log"
    )
    try:
        frames = DemoFrames(process)
        assert frames.total == 1384 and [len(a) for a, _ in frames.recordings] == [482, 510, 392]
        first = next(iter(frames))
        last = frames._frame(0, 481, frames.recordings[0][0][481], 0)
    finally:
        process.close()
    assert first.images[0].shape == (64, 64, 3) and first.images[0].std() > 20 and first.state[2] > 0.9
    assert last.state[2] > first.state[2] - 0.2 and abs(last.state[6]) < abs(first.state[6]), "the gripper has closed"
