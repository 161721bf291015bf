"""Messages read per second on one core, and memory, for bags of 224 x 224 raw images: bench/results/bag_reading.json.

python bench/bag_reading.py                 measures, about a minute and 3 GB of disk for a while
python bench/bag_reading.py --docs          puts the table of the results into docs/bags.md
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from flashrt_ros.bags.bag import BagWriter, typestore
from flashrt_ros.bags.reading import BagReader

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOC = ROOT / "bench/results/bag_reading.json", ROOT / "docs/bags.md"
MARKED = re.compile(r"(<!-- bag figures -->\n)(.*?)(<!-- end bag figures -->)", re.DOTALL)
IMAGE, JOINTS = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState"
SIDE, COUNTS, RUNS = 224, (500, 4000), 3
KINDS = {"MCAP, CRC": ("mcap", False), "MCAP, zstd chunks, CRC": ("mcap", True), "sqlite3": ("sqlite3", False)}


def write(path: Path, storage: str, compress: bool, count: int) -> None:
    """`count` images, smooth with noise as a camera's, and as many joint states."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIDE)[None, :, None] + np.zeros((SIDE, SIDE, 3))
    pictures = [np.clip(ramp + rng.normal(0, 3, ramp.shape), 0, 255).astype(np.uint8).tobytes() for _ in range(8)]
    rows = ((t, i * 33_000_000 + k, b"\0\1\0\0" + (pictures[i % 8] if t == "/image" else bytes(300)))
            for i in range(count) for k, t in enumerate(("/image", "/joint_states")))  # fmt: skip
    kinds = {"/image": IMAGE, "/joint_states": JOINTS}
    if storage == "mcap":
        with BagWriter(path, compress=compress) as bag:
            for topic, kind in kinds.items():
                bag.add(topic, kind)
            for row in rows:
                bag.write(*row)
        return
    from rosbags.rosbag2 import StoragePlugin, Writer

    store = typestore()
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as bag:
        topics = {t: bag.add_connection(t, k, typestore=store) for t, k in kinds.items()}
        for topic, at, data in rows:
            bag.write(topics[topic], at, data)


def read(path: str, answer) -> None:
    """In a process of its own, on one core: best of RUNS by processor time; growth of memory over the first message."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    best = None
    with BagReader(path) as bag:
        next(iter(bag))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(RUNS):
            start, cpu = time.perf_counter(), time.process_time()
            count = size = 0
            for message in bag:
                count += 1
                size += len(message.data)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - start
            best = min(best or (cpu, wall), (cpu, wall))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    answer.send({"messages": count, "messages_per_s": count / best[0], "mb_per_s": size / 1e6 / best[0],
                 "wall_messages_per_s": count / best[1], "memory_growth_mb": grown / 1024})  # fmt: skip


def measure() -> dict[str, object]:
    context, out = multiprocessing.get_context("spawn"), {}
    for name, (storage, compress) in KINDS.items():
        for count in COUNTS:
            with tempfile.TemporaryDirectory(prefix="bag-reading-") as folder:
                write(Path(folder) / "bag", storage, compress, count)
                ours, theirs = context.Pipe()
                process = context.Process(target=read, args=(f"{folder}/bag", theirs))
                process.start()
                out.setdefault(name, {})[f"{count} images"] = ours.recv()
                process.join()
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    return {"image": f"{SIDE} x {SIDE} x 3 uint8", "kinds": out, "machine": machine}


def table(data: dict) -> str:
    """The figures as Markdown."""
    few, many = (f"{n} images" for n in COUNTS)
    lines = [
        "| bag | messages/s | MB/s | memory above the first message: " + f"{COUNTS[0]}, {COUNTS[1]} images |",
        "| --- | --- | --- | --- |",
    ]
    for name, runs in data["kinds"].items():
        a, b = runs[few], runs[many]
        lines.append(f"| {name} | {b['messages_per_s']:,.0f} | {b['mb_per_s']:,.0f} "
                     f"| {a['memory_growth_mb']:.0f}, {b['memory_growth_mb']:.0f} MB |")  # fmt: skip
    return "\n".join(lines) + "\n"


def fill(text: str, data: dict) -> str:
    """The page with the table of `data` between its marks."""
    return MARKED.sub(lambda found: found[1] + "\n" + table(data) + found[3], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="only write the page anew")
    if not parser.parse_args().docs:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    DOC.write_text(fill(DOC.read_text(encoding="utf-8"), data), encoding="utf-8")
    print(table(data))


if __name__ == "__main__":
    main()
