"""`METHODS`: every training method by name. A new method is its file and a row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mmdg_model.training.methods.contract import Method, MethodContext


class MethodError(ValueError):
    """No such method, or settings that it does not have; the message lists what there is."""


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One row.

    Attributes:
        name: as commands and score tables have it, such as `mmdg`.
        title: as a table of a paper has it, such as `ViT + U-Adapter, CE + SSP`.
        summary: one line for `--help`.
        source: paper, section or equation.
        settings: frozen dataclass of what may be set, every field with a default.
        build: from the context and those settings.
        fixed: settings that make this row this row; naming another value is refused.
    """

    name: str
    title: str
    summary: str
    source: str
    settings: type[Any]
    build: Callable[[MethodContext, Any], Method]
    fixed: Mapping[str, Any]


METHODS: dict[str, MethodEntry] = {}


def entry(name: str) -> MethodEntry:
    """By name.

    Raises:
        MethodError: no such method.
    """
    if name not in METHODS:
        raise MethodError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def resolve_settings(name: str, settings: Mapping[str, Any]) -> Any:
    """The method's settings dataclass from plain values, strictly.

    Raises:
        MethodError: an unknown method or key, a wrong type, a value out of range, or another value than the row's own.
    """
    row = entry(name)
    known = msgspec.to_builtins(row.settings())
    for key, value in settings.items():
        if key not in known:
            raise MethodError(f"method {name}: settings.{key} is unknown; known: {', '.join(known) or 'none'}")
        if key in row.fixed and value != msgspec.to_builtins(row.fixed[key]):
            raise MethodError(f"method {name}: settings.{key} is {value!r}, but this row is {row.fixed[key]!r} by "
                              "definition; choose another row")
    try:
        return msgspec.convert(known | msgspec.to_builtins(dict(row.fixed)) | dict(settings), row.settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise MethodError(f"method {name}: settings: {error}") from error


def build(name: str, settings: Mapping[str, Any], context: MethodContext) -> Method:
    """The method, on the context's device.

    Raises:
        MethodError: as `resolve_settings`.
    """
    return entry(name).build(context, resolve_settings(name, settings))
