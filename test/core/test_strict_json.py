"""JSON and YAML from untrusted files: what is refused, and that plain content is read."""

from __future__ import annotations

import pytest

from flashrt_core.core.strict_json import parse_json, read_json
from flashrt_core.core.strict_yaml import MAX_YAML, parse_yaml, read_yaml
from flashrt_core.errors import CheckpointError, CheckpointNotFound, ConfigError

BAD_JSON = {
    "syntax": b"{",
    "duplicate": b'{"a": 1, "a": 1}',
    "nested duplicate": b'{"x": [{"a": 1, "a": 2}]}',
    "nan": b"[NaN]",
    "infinity": b"[-Infinity]",
    "overflow": b"[1e400]",
    "digits": b"[" + b"1" * 5000 + b"]",
    "latin-1": b'{"a": "\xe9"}',
    "bom": b"\xef\xbb\xbf{}",
    "deep": b"[" * 100_000,
    "trailing": b"{} {}",
    "empty": b"",
    "large": b" " * 200_001,
}
BAD_YAML = {
    "syntax": b"a: [",
    "alias": b"a: &x [1]\nb: *x",
    "anchor": b"a: &x 1",
    "tag": b"a: !!python/object/apply:os.system ['true']",
    "local tag": b"a: !thing 1",
    "safe tag": b"a: !!set {x, y}",
    "duplicate": b"a: 1\na: 2",
    "nested duplicate": b"x: [{a: 1, a: 2}]",
    "latin-1": b"a: \xe9",
    "control": b"a: \x00",
    "two documents": b"a: 1\n---\nb: 2",
    "large": b"#" * (MAX_YAML + 1),
    "bad date": b"a: 2020-99-99",
    "deep": b"[" * 5000,
}


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize("error", [CheckpointError, ConfigError])
def test_json_is_refused_with_the_name_of_the_file(name, error):
    with pytest.raises(error, match=r"thing\.json"):
        parse_json(BAD_JSON[name], name="thing.json", max_bytes=200_000, error=error)


def test_json_is_read():
    text = '{"a": [1, -2.5, "é", null, true], "b": {"c": 18446744073709551615}}'
    want = {"a": [1, -2.5, "é", None, True], "b": {"c": 2**64 - 1}}
    assert parse_json(text.encode(), name="x", max_bytes=1000) == want


def test_json_file_is_not_read_beyond_the_cap(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[" + b" " * 1000 + b"]")
    with pytest.raises(CheckpointError, match="101 bytes"):
        read_json(tmp_path / "a.json", max_bytes=100)
    with pytest.raises(CheckpointNotFound):
        read_json(tmp_path / "b.json", max_bytes=100)


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_is_refused_with_the_name_of_the_file(name):
    with pytest.raises(ConfigError, match=r"thing\.yaml"):
        parse_yaml(BAD_YAML[name], name="thing.yaml")


def test_yaml_errors_say_what_and_where():
    for name, word in (("deep", "32 levels"), ("alias", "without aliases"), ("safe tag", "without tags")):
        with pytest.raises(ConfigError) as caught:
            parse_yaml(BAD_YAML[name], name="thing.yaml")
        assert word in caught.value.expected  # and not wrapped a second time as "plain YAML"


def test_yaml_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("# c\na: {b: [1, 2.5, true, null, text]}\nd: 'e'\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"b": [1, 2.5, True, None, "text"]}, "d": "e"}
