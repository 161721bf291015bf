"""Files for their owner only: written whole or not at all, never through a symbolic link.

The directory is opened once, without following a link, and checked; every later step is relative to that descriptor, so
a link that appears afterwards changes nothing. All failures are OSError; the caller decides what a lost file means.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = ".tmp-"
_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def open_private_dir(path: Path, *, create: bool = False) -> Iterator[int]:
    """Descriptor of `path`, a real directory that this user owns and nobody else can write.

    create: make it and its missing parents with mode 0700. OSError when it is missing, a link, someone else's, writable
    by others, or reached through a link that belongs to another user.
    """
    path = Path(os.path.abspath(path))
    for parent in reversed(path.parents):
        _refuse_foreign_link(parent)
        if create:
            _mkdir(parent)
    if create:
        _mkdir(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _refuse_shared(descriptor, path.name)
        yield descriptor
    finally:
        os.close(descriptor)


def read_private(dir_fd: int, name: str, max_bytes: int) -> bytes:
    """Content of a regular file that this user owns and nobody else can write; OSError otherwise or above max_bytes."""
    # O_NONBLOCK: a FIFO put in place of the file must not block the open.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=dir_fd)
    with os.fdopen(descriptor, "rb") as file:
        status = _refuse_shared(descriptor, name)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", name)
    return data


def write_private(dir_fd: int, name: str, data: bytes) -> None:
    """Put `data` in place under `name`, mode 0600, atomically and durably; after an OSError the old file is intact."""
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(OSError):  # the first failure is the one to report
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    os.fsync(dir_fd)  # the rename itself must survive a power cut


def is_temporary(name: str) -> bool:
    """Whether `name` is what an interrupted write_private leaves behind."""
    return name.startswith(_TEMPORARY)


def _mkdir(path: Path) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass  # what is there is checked when it is opened
    except OSError:
        if not path.is_dir():  # a read-only or foreign parent that exists is no obstacle
            raise


def _refuse_foreign_link(path: Path) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode) and status.st_uid not in (0, os.geteuid()):
        raise OSError(errno.ELOOP, "is a link that belongs to another user", path.name)


def _refuse_shared(descriptor: int, name: str) -> os.stat_result:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "belongs to another user", name)
    if status.st_mode & _OTHERS_CAN_WRITE:
        raise PermissionError(errno.EPERM, "can be written by others (chmod go-w)", name)
    return status
