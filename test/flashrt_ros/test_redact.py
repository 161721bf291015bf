"""What may leave the process: file names, no folders, no environment."""

import pytest

from flashrt_ros.redact import MAX_CHARS, file_names_only, one_line, public_error


@pytest.mark.parametrize("text, wanted", [
    ("cannot read /home/jane/models/model.safetensors", "cannot read model.safetensors"),
    ("'/home/jane doe/x y/a.yaml': no", "'a.yaml': no"),
    ("~/secret/a.yaml and ~jane/b.yaml", "a.yaml and b.yaml"),
    ("../../etc/passwd", "passwd"),
    ("./a/b.json:12", "b.json:12"),
    (r"C:\Users\jane\a.txt", "a.txt"),
    ("speed 3 m/s, 5 rad/s^2, 1/2", "speed 3 m/s, 5 rad/s^2, 1/2"),
    ("front (front/image): 3 Hz", "front (front/image): 3 Hz"),
    ("/", "/"),
])  # fmt: skip
def test_file_names_only(text, wanted):
    assert file_names_only(text) == wanted


def test_public_error():
    error = public_error(FileNotFoundError(2, "No such file or directory", "/srv/robot/keys/a.key"))
    assert error == "FileNotFoundError: [Errno 2] No such file or directory: 'a.key'"
    assert public_error(RuntimeError("TOKEN=abc123 rest")) == "RuntimeError: TOKEN=... rest"
    assert public_error(KeyError()) == "KeyError"
    assert "\n" not in public_error(ValueError("a\nb\x1b[31m"))


def test_one_line_is_bounded():
    assert one_line(" a\n\tb\0c ") == "a b c"
    assert len(one_line("x" * 10_000_000)) == MAX_CHARS
