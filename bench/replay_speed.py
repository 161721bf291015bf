"""How fast a replay reads, decodes, checks and asks: a generated bag of 224x224 images and a policy that costs nothing.

`python bench/replay_speed.py --out bench/results/replay_speed.json`. An observation is a request to the policy with new
images, state and prompt; here one is made in every control tick. The other run makes them when a node would. CPU time is
given besides wall time: on a shared machine only the former says what the code costs. Starting the reading process (imports)
is measured apart. Peak memory is over all bags, the largest of which is many times as large.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from flashrt_core import __version__
from flashrt_ros.bags.bag import BagWriter, typestore
from flashrt_ros.config.config_file import load_node
from flashrt_ros.config.settings import ActionDim, CameraConfig, RobotConfig, SafetyConfig, StateDim
from flashrt_ros.evaluation.summary import machine
from flashrt_ros.replay.run import Player, check_bags
from flashrt_ros.replay.settings import ReplaySettings
from flashrt_ros.worker.interface import Script

SIDE, JOINTS, HZ, PERIOD_NS, SHORT = 224, 7, 20.0, 50_000_000, 20
IMAGE, STATE, COMMAND, TEXT = (
    "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray", "std_msgs/msg/String",
)  # fmt: skip


def robot(views: int) -> RobotConfig:
    names = [f"joint{i}" for i in range(JOINTS)]
    return RobotConfig(
        name="bench", control_hz=HZ, safety=SafetyConfig(max_state_age_s=0.2),
        cameras=tuple(CameraConfig(view=f"view{i}", topic=f"view{i}/image") for i in range(views)),
        state=tuple(StateDim(name=n, lower=-3.0, upper=3.0) for n in names),
        actions=tuple(ActionDim(name=n, kind="position", lower=-3.0, upper=3.0, v_max=2.0, a_max=20.0) for n in names),
    )  # fmt: skip


def write_bag(path: Path, what: RobotConfig, ticks: int) -> int:
    """Raw images as a camera gives them (noise: nothing compresses). Returns the bytes on disk."""
    store, rng = typestore(), np.random.default_rng(0)
    make = store.types
    frames = rng.integers(0, 255, (16, SIDE * SIDE * 3), dtype=np.uint8)
    topics = {f"/{c.topic}": IMAGE for c in what.cameras}
    topics |= {"/joint_states": STATE, f"/{what.topics.forward}": COMMAND, "/policy_node/prompt": TEXT}
    with BagWriter(path, compress=False) as bag:
        for topic, kind in topics.items():
            bag.add(topic, kind)

        def write(topic: str, at: int, **fields: object) -> None:
            bag.write(topic, at, bytes(store.serialize_cdr(make[topics[topic]](**fields), topics[topic])))

        start = 1_700_000_000_000_000_000
        write("/policy_node/prompt", start - 1, data="put the block into the bowl")
        layout = make["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
        for k in range(ticks):
            at = start + k * PERIOD_NS
            stamp = make["builtin_interfaces/msg/Time"](sec=at // 10**9, nanosec=at % 10**9)
            header, none = make["std_msgs/msg/Header"](stamp=stamp, frame_id=""), np.zeros(0)
            for camera in what.cameras:
                write(f"/{camera.topic}", at, header=header, height=SIDE, width=SIDE, encoding="rgb8", is_bigendian=0,
                      step=3 * SIDE, data=frames[k % 16])  # fmt: skip
            values = np.sin(k / 40 + np.arange(JOINTS))
            write("/joint_states", at, header=header, name=list(what.state_names), position=values, velocity=none, effort=none)
            write(f"/{what.topics.forward}", at, layout=layout, data=values)
    return sum(f.stat().st_size for f in path.iterdir())


def measure(bag: Path, short: Path, what: RobotConfig, replan_ticks: int, repeats: int) -> dict[str, object]:
    """The best of `repeats` replays, after one to warm up. short: a bag of SHORT ticks, whose CPU time is that of starting."""
    script = Script(horizon=50, action_dim=JOINTS, state_dim=JOINTS, views=what.views, image_size=SIDE, constant=0.0)
    node = load_node(control_hz=HZ, worker="inprocess", replan_ticks=replan_ticks)
    settings = ReplaySettings(what, node=node, script=script)
    player = Player(settings)

    def best(path: Path) -> tuple[float, float, float, object]:
        """(wall, CPU of control, CPU of reading, outcome); each of the three its smallest: others only ever add to it."""
        (job,) = check_bags([path], settings, None)
        runs = []
        for _ in range(repeats + 1):
            wall, own, others = time.perf_counter(), time.process_time(), _children_s()
            outcome = player.play(job)
            runs.append((time.perf_counter() - wall, time.process_time() - own, _children_s() - others))
        return *(min(column) for column in zip(*runs[1:], strict=True)), outcome

    _, start_own, start_reading, _ = best(short)
    wall, own, reading, outcome = best(bag)
    ticks = outcome.ticks - SHORT
    control_ms, reading_ms = 1e3 * (own - start_own) / ticks, 1e3 * (reading - start_reading) / ticks
    return {
        "views": len(what.cameras), "replan_ticks": replan_ticks, "ticks": outcome.ticks, "requests": outcome.requests,
        "wall_s": round(wall, 3), "ticks_per_s": round(outcome.ticks / wall, 1),
        "observations_per_s": round(outcome.requests / wall, 1),
        "cpu_ms_per_tick": {"control": round(control_ms, 3), "reading": round(reading_ms, 3)},
        "ticks_per_s_by_cpu": round(1e3 / max(control_ms, reading_ms)), "start_cpu_s": round(start_reading, 3),
    }  # fmt: skip


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(result: dict) -> str:
    """The rows of docs/replay.md."""
    lines = ["| cameras | asked | ticks/s, wall | CPU ms a tick: control, reading | ticks/s by CPU time | bag |", "|---" * 6 + "|"]
    for r in result["runs"]:
        asked, cpu = "every tick" if r["replan_ticks"] == 1 else "as a node", r["cpu_ms_per_tick"]
        lines.append(
            f"| {r['views']} | {asked} | {r['ticks_per_s']:,.0f} | {cpu['control']:.2f}, {cpu['reading']:.2f} | "
            f"{r['ticks_per_s_by_cpu']:,} | {r['bag_mb']:,} MB |"
        )
    peak, where = result["peak_memory"], result["machine"]
    lines.append("")
    lines.append(
        f"{where['cpu']}, 2 cores, load average {result['load_average']:.1f} from other work at the start: the wall time is "
        "that of a busy machine, the last column what the CPU time of the slower process allows on two free cores. Peak memory "
        f"{peak['control_mb']} MB (control) and {peak['reading_mb']} MB (reading) over all runs."
    )
    return "\n".join(lines) + "\n"


def fill(text: str, result: dict) -> str:
    """The page with the figures of `result` between its marks."""
    begin, end = "<!-- figures replay_speed -->\n", "<!-- end figures -->"
    head, _, rest = text.partition(begin)
    return head + begin + table(result) + end + rest.partition(end)[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ticks", type=int, default=3000, help="of the bag (default 3000, 150 s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write JSON here")
    parser.add_argument("--docs", action="store_true", help="only put the figures of --out into docs/replay.md")
    args = parser.parse_args()
    page = Path(__file__).resolve().parents[1] / "docs" / "replay.md"
    if args.docs:
        page.write_text(fill(page.read_text(encoding="utf-8"), json.loads(args.out.read_text())), encoding="utf-8")
        return 0
    rows, load = [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for views in (1, 2):
            what, bag = robot(views), Path(folder) / f"bag{views}"
            size = write_bag(bag, what, args.ticks)
            write_bag(short := Path(folder) / f"short{views}", what, SHORT)
            for replan_ticks in (1, 0):
                rows.append({**measure(bag, short, what, replan_ticks, args.repeats), "bag_mb": round(size / 1e6)})
                sys.stdout.write(json.dumps(rows[-1]) + "\n")
    peak = {
        "control_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "reading_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
    }
    result = {
        "version": __version__, "machine": machine(), "load_average": round(load, 2), "side_px": SIDE, "peak_memory": peak,
        "runs": rows,
    }  # fmt: skip
    sys.stdout.write(json.dumps(peak) + "\n")
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
