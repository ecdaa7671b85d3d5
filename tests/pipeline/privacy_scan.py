"""Looks for images and embeddings in what a run wrote and sent.

The rule is strict: whatever leaves the engine is text without long encoded runs or lists of numbers. Hashes (64
hexadecimal digits), signatures (88 characters of base64) and ids are the longest runs that belong there.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SHINGLE = 16
_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"PK\x03\x04": "zip or npz", b"\x93NUMPY": "npy", b"RIFF": "WebP",
          b"GIF8": "GIF", b"\x89MCAP": "MCAP", b"\x28\xb5\x2f\xfd": "Zstandard", b"II*\0": "TIFF", b"BM6": "BMP"}
#: Longer runs of one alphabet are encoded data; an embedding of 64 bytes would already show.
_ENCODED = re.compile(rb"[0-9A-Za-z+/_=-]{129,}")
_NUMBERS = re.compile(rb"(?:-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?[\s,;\[\]()]+){16,}")


def shingles(planes: Iterable[NDArray[np.generic]]) -> frozenset[bytes]:
    """Pieces of pictures that have enough of a pattern not to occur by chance."""
    found = set()
    for plane in planes:
        raw = plane.tobytes()
        pieces = (raw[i:i + _SHINGLE] for i in range(0, len(raw) - _SHINGLE, _SHINGLE))
        found |= {piece for piece in pieces if len(set(piece)) >= 6}
    return frozenset(found)


def _decoded(data: bytes) -> Iterator[bytes]:
    yield data
    for run in re.findall(rb"[0-9A-Za-z+/_-]{32,}", data):
        for offset in range(2):
            try:
                yield bytes.fromhex(run[offset:len(run) - (len(run) - offset) % 2].decode())
            except ValueError:
                break
        for offset in range(4):
            piece = run[offset:].translate(bytes.maketrans(b"-_", b"+/"))
            try:
                yield base64.b64decode(piece[:len(piece) // 4 * 4], validate=True)
            except binascii.Error:
                break


def findings(name: str, data: bytes, known: frozenset[bytes] = frozenset()) -> list[str]:
    """What in `data` is, or may be, an image or an embedding. known: `shingles` of the pictures that were seen."""
    found = [f"{name}: {kind} data" for magic, kind in _MAGIC.items() if magic in data]
    for blob in _decoded(data):
        if any(blob[i:i + _SHINGLE] in known for i in range(len(blob) - _SHINGLE + 1)):
            found.append(f"{name}: pixels of a picture that was seen")
            break
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        found.append(f"{name}: bytes that are no text")
    if b"\0" in data:
        found.append(f"{name}: bytes that are no text")
    found += [f"{name}: {len(run)} characters of encoded data" for run in _ENCODED.findall(data)]
    found += [f"{name}: a list of numbers ({run[:40].decode()}…)" for run in _NUMBERS.findall(data)]
    return found


def files_below(folder: Path) -> dict[str, bytes]:
    """Content of every regular file; sockets and what vanishes meanwhile are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(folder))] = path.read_bytes()
        except OSError:
            continue
    return found
