"""Durations as they are typed: `90s`, `20m`, `1.5h`."""

from __future__ import annotations

import re

import typer

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str, option: str) -> float:
    """Raises `typer.BadParameter`, naming the option, for anything that is no duration."""
    if not (match := re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())):
        raise typer.BadParameter(f"{text!r}, expected a number with s, m or h, such as 20m", param_hint=option)
    return float(match[1]) * _UNITS_S[match[2]]
