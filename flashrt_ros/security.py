"""Whether the DDS under a node that runs with SROS2 is new enough for its security plugins to hold."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

# Fast DDS: the releases of each series from which on the known holes of its security plugins are closed.
FLOORS = ((2, 6, 11), (3, 3, 1), (3, 4, 1))
_LIBRARY = re.compile(r"(?:/\S*/)?libfast(?:dds|rtps)\.so\.(\d+)\.(\d+)(?:\.(\d+))?")
Version = tuple[int, int, int]


def security_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether ROS was told to run with SROS2: its own variable, which nothing of rclpy tells."""
    return environment.get("ROS_SECURITY_ENABLE", "").lower() == "true"


def fast_dds_version(maps: str) -> Version | None:
    """Version of the Fast DDS library that a process has loaded, from the text of its /proc/PID/maps; None if unknown.

    A file named by its series only (the wheels have copies for links) has one with the whole version beside it.
    """
    for found in _LIBRARY.finditer(maps):
        names = [found[0]] if found[3] else sorted(map(str, Path(found[0]).parent.glob(f"{Path(found[0]).name}.*")))
        for match in map(_LIBRARY.search, names):
            if match and match[3]:
                return int(match[1]), int(match[2]), int(match[3])
    return None


def loaded_libraries() -> str:
    """The maps of this process; "" where there is no /proc."""
    try:
        return Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def floor_warning(rmw: str, version: Version | None) -> str | None:
    """What to tell the operator of a secured node, None when nothing. rmw: identifier of the middleware in use.

    A series without a floor, and a version that is not known, count as too old (rule R11); newer ones than all do not.
    """
    if "cyclonedds" in rmw:
        return None
    wanted = " or ".join(".".join(map(str, floor)) for floor in FLOORS)
    if "fastrtps" not in rmw:
        return f"SROS2 is on with {rmw}: known to hold are Cyclone DDS and Fast DDS from {wanted} on"
    if version is None:
        return f"SROS2 is on and the version of Fast DDS is not known: it must be {wanted}"
    of_series = [floor for floor in FLOORS if floor[:2] == version[:2]]
    if version > max(FLOORS) or any(version >= floor for floor in of_series):
        return None
    return f"SROS2 is on with Fast DDS {'.'.join(map(str, version))}: use {wanted} of its series, or Cyclone DDS"
