"""The checksum that a cache file carries over its own content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping


def checksum(body: Mapping[str, object]) -> str:
    """sha256 (hex) of the canonical JSON of `body`. TypeError or ValueError for what JSON cannot hold."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
