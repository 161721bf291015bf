"""Tests over real DDS, on this machine only: each pytest process has a ROS domain of its own.

Collected only where rclpy is installed; `make ros-test` and CI run them in .venv-ros and fail without it.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("rclpy") is None:
    collect_ignore_glob = ["*"]
else:
    from flashrt_ros.ros_demo.domain import free_domain

    # Given by the test, never read by the code under test.
    os.environ["ROS_DOMAIN_ID"] = str(free_domain())
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"  # a field of the wrong type is an error
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    os.environ["ROS_LOG_DIR"] = os.environ.get("ROS_LOG_DIR", os.path.join("/tmp", f"flashrt-ros-log-{os.getpid()}"))
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import flashrt_ros.msg  # noqa: F401
    except ImportError as error:
        raise pytest.UsageError(
            f"{error}: the messages are not built (make ros-build), or the source folder hides the install "
            "(run pytest itself, not `python -m pytest`)"
        ) from None


@pytest.fixture(scope="module")
def probe():
    """One rclpy context with an executor thread for the tests of a module."""
    from rig_ros import Probe

    with Probe() as p:
        yield p


def pytest_collection_modifyitems(config, items):
    """Without an own choice (-m) the long tests are left out, also under `colcon test`."""
    if not config.option.markexpr:
        items[:] = [item for item in items if "long" not in item.keywords]
