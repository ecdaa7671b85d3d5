"""The table of controls names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
SOURCES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
CONTROLS = [line for line in PAGE.splitlines() if line.startswith("|") and line.count("|") == 4]


def test_every_control_names_a_test():
    rows = CONTROLS[CONTROLS.index("| threat | control | shown by |") + 2:]
    assert len(rows) > 15
    assert [row for row in rows if "test_" not in row.split("|")[3] and "`.." not in row.split("|")[3]] == []


def test_every_test_that_is_named_exists():
    files = set(re.findall(r"`(?:[a-z]+/)?(test_\w+\.py)`", PAGE))
    assert files
    assert files - set(SOURCES) == set()
    names = set(re.findall(r"def (test_\w+)", "\n".join(SOURCES.values())))
    fragments = re.findall(r"`\.\.(\w+)(?:\.\.)?`", PAGE)
    assert len(fragments) > 15
    assert [fragment for fragment in fragments if not any(fragment in name for name in names)] == []
