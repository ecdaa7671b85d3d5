"""The text in the header of a safetensors file, read without loading a tensor. Needs no torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

#: Keys under which our kinds of files describe themselves.
METADATA_KEY = "mmdg_live"  # a checkpoint
BACKBONE_KEY = "mmdg_live_backbone"
PLUS_PLUS_KEY = "mmdg_live_mmdg_plus_plus"

#: The format's own limit.
_LARGEST_HEADER_BYTES = 100_000_000


def header_metadata(blob: bytes) -> dict[str, Any]:
    """The header's free text entries; empty where there are none.

    Args:
        blob: the file, or as much of its beginning as holds the header.

    Raises:
        ValueError: it is no such header.
    """
    try:
        (length,) = struct.unpack_from("<Q", blob)
        if length > min(_LARGEST_HEADER_BYTES, len(blob) - 8):
            raise ValueError(f"a header of {length} bytes in {len(blob)}")
        header = json.loads(blob[8:8 + length])
    except (struct.error, RecursionError) as error:
        raise ValueError(f"no header of a safetensors file: {error}") from error
    found = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"no header of a safetensors file: {str(header)[:80]!r}")
    return found


def read_header_metadata(path: Path) -> dict[str, Any]:
    """As `header_metadata`, of a file, of which no more than the header is read.

    Raises:
        OSError: it cannot be read. ValueError: it is no such file.
    """
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        return header_metadata(start + file.read(min(length, _LARGEST_HEADER_BYTES)))
