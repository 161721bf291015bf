"""Owner-only files: modes, links, atomic replacement."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from flashrt_core.core.utils.private_file import is_temporary, open_private_dir, read_private, write_private


def test_creates_missing_parents_with_mode_0700_whatever_the_umask(tmp_path: Path):
    old = os.umask(0)
    try:
        with open_private_dir(tmp_path / "a" / "b", create=True) as fd:
            write_private(fd, "x", b"data")
    finally:
        os.umask(old)
    for path, mode in ((tmp_path / "a", 0o700), (tmp_path / "a" / "b", 0o700), (tmp_path / "a" / "b" / "x", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_replaces_whole_files_and_leaves_no_temporary(tmp_path: Path):
    with open_private_dir(tmp_path) as fd:
        write_private(fd, "x", b"old" * 1000)
        write_private(fd, "x", b"new")
        assert read_private(fd, "x", 10) == b"new"
    assert os.listdir(tmp_path) == ["x"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch):
    with open_private_dir(tmp_path) as fd:
        write_private(fd, "x", b"old")
        real = os.write
        written = []

        def disk_full(descriptor, data):
            if written:
                raise OSError(28, "No space left on device")
            written.append(real(descriptor, bytes(data)[:2]))
            return written[0]

        monkeypatch.setattr(os, "write", disk_full)
        with pytest.raises(OSError, match="No space"):
            write_private(fd, "x", b"new content")
        monkeypatch.undo()
        assert read_private(fd, "x", 10) == b"old"
    assert os.listdir(tmp_path) == ["x"] and not is_temporary("x")


def test_a_link_in_place_of_the_file_is_replaced_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "cache"
    with open_private_dir(folder, create=True) as fd:
        (folder / "x").symlink_to(victim)
        with pytest.raises(OSError):
            read_private(fd, "x", 100)
        write_private(fd, "x", b"data")
    assert victim.read_text() == "precious"
    assert not (folder / "x").is_symlink() and (folder / "x").read_bytes() == b"data"


def test_a_directory_that_is_a_link_or_open_to_others_is_refused(tmp_path: Path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(OSError), open_private_dir(tmp_path / "link", create=True):
        pass
    for mode in (0o770, 0o707, 0o1777):
        real.chmod(mode)
        with pytest.raises(PermissionError, match="written by others"), open_private_dir(real, create=True):
            pass


def test_a_directory_swapped_for_a_link_after_opening_changes_nothing(tmp_path: Path):
    folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with open_private_dir(folder, create=True) as fd:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(elsewhere)
        write_private(fd, "x", b"data")
    assert os.listdir(elsewhere) == [] and os.listdir(tmp_path / "moved") == ["x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make files of another user")
def test_what_belongs_to_another_user_is_refused(tmp_path: Path):
    folder = tmp_path / "cache"
    with open_private_dir(folder, create=True) as fd:
        write_private(fd, "x", b"data")
        os.chown(folder / "x", 65534, 65534)
        with pytest.raises(PermissionError, match="another user"):
            read_private(fd, "x", 100)
    os.chown(folder, 65534, 65534)
    with pytest.raises(PermissionError, match="another user"), open_private_dir(folder):
        pass
    (tmp_path / "link").symlink_to(tmp_path)
    os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)
    with pytest.raises(OSError, match="link"), open_private_dir(tmp_path / "link" / "new", create=True):
        pass


def test_other_kinds_of_file_and_large_ones_are_refused_without_blocking(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "big").write_bytes(b"x" * 11)
    (tmp_path / "shared").write_bytes(b"x")
    (tmp_path / "shared").chmod(0o666)
    with open_private_dir(tmp_path) as fd:
        for name in ("fifo", "folder", "big", "shared"):
            with pytest.raises(OSError):
                read_private(fd, name, 10)
