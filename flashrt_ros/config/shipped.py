"""Where the files lie that ship beside the Python packages: configuration, messages, launch files."""

from __future__ import annotations

import sys
from pathlib import Path

from flashrt_core.errors import ConfigError

_PACKAGE = "flashrt_ros"


def shipped_folder(name: str, marker: str) -> Path:
    """The folder `name` that holds `marker`: `name/` of a checkout, else `share/flashrt_ros/name` of the install.

    The install is the nearest prefix above this package (ROS 2 and pip both put it there), then Python's own prefix.
    ConfigError when there is none.
    """
    package = Path(__file__).absolute().parents[1]
    linked = package.resolve()  # a package linked into an install still finds its checkout
    prefixes = [*package.parents[1:5], Path(sys.prefix)]
    shares = [prefix / "share" / _PACKAGE / name for prefix in prefixes]
    for folder in (package.parent / name, *shares, linked.parent / name):
        if (folder / marker).exists():
            return folder
    raise ConfigError(f"folder {name}/ of the package", expected=f"share/{_PACKAGE}/{name} in the install", found="none")
