"""Which names a checkpoint may use for its files."""

from __future__ import annotations

import pytest

from flashrt_core.core.paths import confined
from flashrt_core.errors import CheckpointError


@pytest.mark.parametrize("name", ["a", "a/b.json", "a.b/..c", "not/there/yet", "dots...ok"])
def test_names_inside(tmp_path, name):
    assert confined(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", ["a/../b", "..", "../x", "/etc/passwd", "\\\\host\\x", "a\\..\\b"])
def test_dots_and_absolute_names_are_refused_even_if_they_end_inside(tmp_path, name):
    with pytest.raises(CheckpointError, match="a path outside it"):
        confined(tmp_path, name)


@pytest.mark.parametrize("name", ["", "a\0b", None, 3, ["a"]])
def test_what_is_not_a_name(tmp_path, name):
    with pytest.raises(CheckpointError, match="a relative path"):
        confined(tmp_path, name)


def test_links(tmp_path):
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "f").write_text("x")
    (tmp_path / "root2").mkdir()
    (root / "ok").symlink_to("in/f")
    (root / "sibling").symlink_to("../root2")  # a neighbour whose name starts like the root
    (root / "chain").symlink_to("sibling/x")
    (tmp_path / "alias").symlink_to(root)
    assert confined(root, "ok").read_text() == "x"
    assert confined(tmp_path / "alias", "ok").read_text() == "x"  # the folder itself may be a link
    for name in ("sibling", "sibling/x", "chain"):
        with pytest.raises(CheckpointError, match="symbolic link"):
            confined(root, name)
