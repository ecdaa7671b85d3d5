"""The log of openings of a test set: one JSON line each, appended before any figure of it is computed.

A test set answers honestly once. Whoever looks, changes something and looks again has chosen by it; the log cannot
prevent that, but it shows it.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from pipeline.simulated_trees.domains import SimulationError

LOG = "openings.jsonl"


class Opening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One look at a test set. `checkpoint`: SHA-256; `operating_point`: id of what made logits evidence,
    16 hexadecimal digits or `none`; `sessions`: of which sessions they are."""

    when: str
    checkpoint: str
    operating_point: str
    sessions: str
    number: int
    command: str


def open_test_set(folder: Path, *, checkpoint: str, operating_point: str, sessions: str, number: int,
                  command: str) -> list[Opening]:
    """Appends one opening and returns all of this folder's, the new one last.

    Args:
        folder: of the sessions. number: how many they are. command: as typed.

    Raises:
        SimulationError: the log holds something else.
    """
    before = read_openings(folder)
    new = Opening(when=datetime.now(UTC).isoformat(timespec="seconds"), checkpoint=checkpoint,
                  operating_point=operating_point, sessions=sessions, number=number, command=command)
    with (folder / LOG).open("ab") as file:
        file.write(msgspec.json.encode(new) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return [*before, new]


def read_openings(folder: Path) -> list[Opening]:
    """All openings, oldest first; none where there is no log.

    Raises:
        SimulationError: a line is no opening.
    """
    path = folder / LOG
    if not path.exists():
        return []
    try:
        return [msgspec.json.decode(line, type=Opening) for line in path.read_bytes().splitlines() if line]
    except msgspec.MsgspecError as error:
        raise SimulationError(f"{path}: {error}; it is appended to by mmdg simulate evaluate alone") from error
