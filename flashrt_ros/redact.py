"""Text that may leave the process on a topic: file names without folders, no environment, one bounded line (F90)."""

from __future__ import annotations

import re

MAX_CHARS = 300
# A quoted path may hold spaces; an unquoted one ends at the first. Relative paths count when they climb or start at ~.
_QUOTED = re.compile(r"(['\"])(?:[A-Za-z]:[\\/]|[~.]{0,2}[\\/])[^'\"\n]*\1")
_BARE = re.compile(r"(?<![\w.~/\\])(?:[A-Za-z]:\\|~[\w.-]*/|\.{0,2}/)[^\s'\",;:()\[\]{}<>|]+")
_VARIABLE = re.compile(r"\b([A-Z][A-Z0-9_]{2,})=(\S+)")


def file_names_only(text: str) -> str:
    """`text` with every path cut to its last part."""

    def quoted(match: re.Match[str]) -> str:
        return match[1] + _last_part(match[0][1:-1]) + match[1]

    return _BARE.sub(lambda m: _last_part(m[0]), _QUOTED.sub(quoted, text))


def _last_part(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "/"


def public_error(error: BaseException) -> str:
    """Type and message of an error as one line without folders and environment values; never a traceback."""
    text = _VARIABLE.sub(r"\1=...", file_names_only(str(error)))
    return one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def one_line(text: str) -> str:
    """`text` without control characters and line breaks, at most 300 characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_CHARS]).split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 3] + "..."
