"""Logs of whole JSON lines: `metrics.jsonl`, `timing.jsonl`, `troubles.jsonl`.

`metrics.jsonl` holds nothing that differs between two equal runs, so that a run that was killed and went on can be
compared with one that was not, byte by byte:

    {"kind": "epoch_start", "epoch": 0, "update": 0, ...}         what the method says of the epoch's preparation
    {"kind": "update", "epoch": 0, "update": 1, "learning_rate": 5e-05, "loss/total": 0.7, ...}
    {"kind": "epoch_end", "epoch": 0, "update": 381, "source_validation/hter": 0.2, ...}

Updates count from 1: `update` is how many are done. A number that does not exist (NaN) is null.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdg_model.training.run_directory import RunDirectoryError


class LineLog:
    """A file of JSON lines that only grows. Lines reach the system at once, the disk at `sync`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("ab")

    def write(self, line: Mapping[str, Any]) -> None:
        """Appends one line; NaN and infinities become null."""
        plain = {key: _plain(value) for key, value in line.items()}
        self._file.write(json.dumps(plain, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Brings all to the disk; returns the file's length in bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def cut_back(self, length: int) -> None:
        """Drops what is behind `length` bytes.

        Raises:
            RunDirectoryError: the file is shorter.
        """
        if (found := os.fstat(self._file.fileno()).st_size) < length:
            raise RunDirectoryError(f"{self._path} has {found} bytes, the saved run had written {length}; the file was "
                                    "altered: put it back, or train anew in another directory")
        self._file.truncate(length)

    def cut_back_to_whole_lines(self) -> None:
        """Drops a last line that a kill cut off."""
        self.cut_back(self._path.read_bytes().rfind(b"\n") + 1)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log; a last line that was cut off by a kill is left out.

    Raises:
        RunDirectoryError: missing, or a whole line that is no JSON object.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error.strerror})") from error
    found = []
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise RunDirectoryError(f"{path}, line {number}: not JSON ({error})") from error
    return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
