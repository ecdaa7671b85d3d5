"""A flat settings dataclass to the plain values that JSON stores, and strictly back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from enum import StrEnum
from typing import Any


def to_plain(settings: Any) -> dict[str, int | float | str]:
    """Values of a dataclass of int, float and `StrEnum` fields under the field names."""
    return {key: str(value) if isinstance(value, StrEnum) else value for key, value in asdict(settings).items()}


def from_plain(kind: type[Any], values: Mapping[str, object], *, section: str,
               error: type[ValueError]) -> dict[str, Any]:
    """Constructor arguments of `kind` from `to_plain`'s form: every key required, none unknown, none coerced.

    Args:
        kind: a dataclass whose every field has a default of the field's type.
        values: the stored values.
        section: prefix of keys in messages.
        error: what to raise; its message names the key and quotes the value.
    """
    known = {field.name: type(field.default) for field in fields(kind)}
    if unknown := sorted(str(key) for key in values if key not in known):
        raise error(f"{section}.{unknown[0]} = {values.get(unknown[0])!r} is an unknown key; known keys: "
                    f"{', '.join(known)}")
    if missing := [key for key in known if key not in values]:
        raise error(f"{section}.{missing[0]} is missing; stored settings state every key")
    return {key: _typed(f"{section}.{key}", values[key], wanted, error) for key, wanted in known.items()}


def _typed(place: str, value: object, wanted: type[Any], error: type[ValueError]) -> Any:
    if issubclass(wanted, StrEnum):
        if value not in list(wanted):
            raise error(f"{place} is {value!r}, expected one of {', '.join(wanted)}")
        return wanted(str(value))
    if isinstance(value, bool) or not isinstance(value, (int, float) if wanted is float else wanted):
        raise error(f"{place} is {value!r}, expected {wanted.__name__}")
    try:
        return wanted(value)
    except OverflowError:
        raise error(f"{place} has {len(str(value))} digits, beyond a float") from None
