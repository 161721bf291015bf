"""The fenced blocks of a Markdown file."""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = re.compile(
    r"(?P<mark><!-- not run: (?P<why>[^>]+) -->\s*\n)?^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """kind: the word after the fence. why_not: the reason in a `<!-- not run: reason -->` before it, or None."""

    file: str
    line: int
    kind: str
    body: str
    why_not: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def blocks(file: str, text: str) -> list[Block]:
    """Every fenced block that names its language, in order."""
    found = []
    for m in FENCE.finditer(text):
        line = text.count("\n", 0, m.start("kind")) + 1
        found.append(Block(file, line, m["kind"], m["body"], m["why"]))
    return found
