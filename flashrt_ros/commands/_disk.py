"""What the operating system refuses about a file, said as an input error of one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flashrt_core.errors import ConfigError, FlashRTError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """ConfigError in the place of an OSError: it names the file, or `out` where a write says no name."""
    try:
        yield
    except (FlashRTError, BrokenPipeError):  # some typed errors are OSErrors too; a closed pipe is the command line's
        raise
    except OSError as error:
        found = error.strerror or type(error).__name__
        if error.errno in FULL:
            raise ConfigError(f"output {error.filename or out}", expected="room on the disk", found=found) from error
        name = error.filename if isinstance(error.filename, (str, Path)) else out
        raise ConfigError(str(name), expected="a file or folder that can be read or written", found=found) from error
