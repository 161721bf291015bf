"""`replay.rrd`: the beginning of a replay for the Rerun viewer: images of the first requests, recorded and served commands."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from flashrt_core.errors import ConfigError

from ..config.settings import RobotConfig
from .outcome import BagOutcome


def check_rerun() -> None:
    """ConfigError with what to install when there is no Rerun."""
    if find_spec("rerun") is None:
        raise ConfigError(
            "rerun", expected="the package of the rerun extra", found="none", hint="In the checkout, run: pip install -e '.[rerun]'"
        )


def write_rerun(path: Path, total: BagOutcome, robot: RobotConfig) -> Path:
    """Write the recording; timelines are `tick` (control periods of the first episode) and `time` (s since the bag began)."""
    check_rerun()
    import rerun as rr

    stream = rr.RecordingStream("flashrt_replay")
    stream.save(str(path))
    for frame in total.first_frames:
        stream.set_time("time", duration=frame.at_s)
        stream.log("prompt", rr.TextLog(frame.prompt))
        for view, image in frame.images.items():
            stream.log(f"camera/{view}", rr.Image(image))
        for i, name in enumerate(robot.action_names):
            stream.log(f"chunk/{name}/predicted", rr.Scalars(frame.predicted[:, i].astype(np.float64)))
    excerpt = total.excerpt
    for tick, (recorded, served) in enumerate(zip(excerpt.recorded, excerpt.served, strict=True)):
        stream.set_time("tick", sequence=tick)
        for kind, values in (("recorded", recorded), ("served", served)):
            for i in np.flatnonzero(np.isfinite(values)):
                stream.log(f"joint/{robot.action_names[i]}/{kind}", rr.Scalars(float(values[i])))
    stream.flush()
    return path
