"""YAML of people's files, read so that no text can do more than be refused."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any

import yaml

#: A configuration has a few kilobytes.
LARGEST_BYTES = 1024 * 1024
#: PyYAML takes minutes over thousands of brackets that nobody closes.
_MOST_BRACKETS = 2_000

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200


class YamlFileError(ValueError):
    """Not YAML that can be read; the message quotes the file."""


def read_yaml(path: Path) -> Any:
    """The plain data in a file.

    Raises:
        YamlFileError: larger than `LARGEST_BYTES`, not UTF-8, not YAML, nested too deeply, or with a value that is
            none, such as the date 2026-13-45. OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise YamlFileError(f"{path}: more than {LARGEST_BYTES} bytes is no file of settings")
    if data.count(b"[") + data.count(b"{") > _MOST_BRACKETS:
        raise YamlFileError(f"{path}: more than {_MOST_BRACKETS} brackets is no file of settings")
    try:
        return yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, LookupError, TypeError) as error:
        # PyYAML lets its own constructors raise: dates that are none, numbers of too many digits, an empty !!float.
        raise YamlFileError(f"{path}: not YAML: {error}") from error
    except RecursionError:
        raise YamlFileError(f"{path}: not YAML: nested too deeply") from None


def shown(value: object) -> str:
    """A value for an error message, cut short: aliases can make a few lines stand for gigabytes."""
    return _SHORT.repr(value)
