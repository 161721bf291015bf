"""The bond to a lifecycle manager: optional, because bondpy is part of a ROS install and not of the wheels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from flashrt_core.errors import ConfigError

TOPIC = "/bond"  # nav2_lifecycle_manager's; the id is the node's name


class ManagerBond:
    """Forms the bond that the manager offers and remembers whether it broke (F73)."""

    def __init__(self, node: Node, on_broken: Callable[[], None]):
        """Raises ConfigError without bondpy."""
        try:
            bondpy = importlib.import_module("bondpy.bondpy")
        except ImportError:
            raise ConfigError(
                "hold_on_bond_loss", expected="bondpy", found="not installed", hint="install ros-<distro>-bondpy"
            ) from None
        self.broken = False
        self._closed = False
        self._on_broken = on_broken
        self._bond: Any = bondpy.Bond(TOPIC, node.get_name(), node, on_broken=self._broke)
        self._bond.start()

    def _broke(self) -> None:
        if not self._closed:
            self.broken = True
            self._on_broken()

    def close(self) -> None:
        self._closed = True
        self._bond.shutdown()
