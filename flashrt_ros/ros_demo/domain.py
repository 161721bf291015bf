"""A ROS domain that nobody on this machine uses: two runs on one domain would hear each other's clock and commands."""

from __future__ import annotations

import random
from pathlib import Path

DOMAINS = range(1, 102)  # above, the ports are those that Linux hands out
_FIRST_PORT, _PORTS = 7400, 250  # DDS-RTPS 9.6.1.1: port base, and ports of one domain
_TABLES = ("/proc/net/udp", "/proc/net/udp6")


def used_ports(tables: tuple[str, ...] = _TABLES) -> set[int]:
    """UDP ports that are bound on this machine; none where the kernel does not tell."""
    ports = set()
    for table in tables:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        ports |= {int(line.split()[1].rsplit(":", 1)[1], 16) for line in lines}
    return ports


def free_domain(used: set[int] | None = None) -> int:
    """A number drawn from the domains without a bound port; from all of them when every one is in use."""
    taken = {(port - _FIRST_PORT) // _PORTS for port in (used_ports() if used is None else used)}
    return random.SystemRandom().choice([d for d in DOMAINS if d not in taken] or list(DOMAINS))
