"""Event files: one JSON object a line, written by one process while another follows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


class EventWriter:
    """Appends events; each line is complete when it is there."""

    def __init__(self, path: Path):
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def write(self, event: str, **fields: object) -> None:
        self._file.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")

    def close(self) -> None:
        self._file.close()


class EventFollower:
    """What has been written since the last look. A file that does not exist yet has no events."""

    def __init__(self, path: Path):
        self._path, self._at = path, 0

    def news(self) -> Iterator[dict[str, object]]:
        """The events whose line is complete."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        end = data.rfind(b"\n") + 1
        self._at += end
        for line in data[:end].splitlines():
            yield json.loads(line)
