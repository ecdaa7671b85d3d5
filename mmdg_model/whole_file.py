"""A file is there whole or not at all: the one way in which weights and records are written."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, blob: bytes) -> None:
    """Writes a file under another name first, flushes it to the disk, and renames it: also through a power cut.

    Folders are made. A killed process may leave `<name>.<pid>.unfinished` behind, never a half file of the name.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
