"""YAML that nobody vouches for."""

import pytest

from pipeline.yaml_file import LARGEST_BYTES, YamlFileError, read_yaml, shown


@pytest.mark.parametrize(("data", "words"), [
    (b"a: 2026-13-45", "not YAML: month must be"),
    (b"a: " + b"9" * 5_000, "not YAML: Exceeds the limit"),
    (b"a: [\n", "not YAML"),
    (b"a: !!float ", "not YAML: string index out of range"),
    (b"a: \xff", "not YAML: 'utf-8' codec"),
    (b"a: " * 2_000, "not YAML"),
    (b"- " * 2_000, "nested too deeply"),
    (b"[" * 20_000, "more than 2000 brackets"),
    (b"#" * (LARGEST_BYTES + 1), "more than 1048576 bytes"),
    (b"a: !!python/object:os.system {}", "not YAML: could not determine a constructor"),
])
def test_what_cannot_be_read_is_refused_with_its_name(data, words, tmp_path):
    path = tmp_path / "live.yaml"
    path.write_bytes(data)
    with pytest.raises(YamlFileError, match=words) as refused:
        read_yaml(path)
    assert str(path) in str(refused.value)


def test_what_can_be_read_is_plain_data(tmp_path):
    path = tmp_path / "live.yaml"
    path.write_text("a: &x [1, é]\nb: *x\n", encoding="utf-8")
    assert read_yaml(path) == {"a": [1, "é"], "b": [1, "é"]}


def test_a_value_is_shown_short_however_much_its_aliases_stand_for():
    value: list = ["lol"]
    for _ in range(40):
        value = [value, value]
    assert len(shown(value)) < 10_000
    assert shown("front") == "'front'"
