"""What the doctor reads from disk with the standard library alone: the asset folder and a checkpoint's header."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: A safetensors header is JSON of a few hundred kB; more is damage, not a model.
MAX_HEADER_BYTES = 100 << 20
#: What runs where no checkpoint is named (`mmdg_model.shipped_weights`), spelled without loading anything.
SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "mmdg_model" / "shipped" / "default.safetensors"
PURPOSES = ("test", "simulated", "release")


@dataclass(frozen=True)
class CheckpointDescription:
    """What a checkpoint file says of itself. `problem` is one line when it cannot be used, else empty."""

    path: Path | None = None
    purpose: str = ""
    sha256: str = ""
    problem: str = ""


def asset_directory() -> Path:
    """`$MMDG_ASSETS`, else `mmdg-live` under `$XDG_CACHE_HOME` or `~/.cache`."""
    named = os.environ.get("MMDG_ASSETS")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmdg-live"


def describe_checkpoint(path: Path | None = None, *, shipped: Path = SHIPPED_WEIGHTS) -> CheckpointDescription:
    """Read purpose and hash of a checkpoint; without `path`, of the shipped one, else of the one that set-up made.

    Never raises for a bad file: the problem is in the answer. It proves that the header is well formed and says what
    the file claims; the known-answer test of the scorer proves the weights.
    """
    if path is None and shipped.is_file():
        path = shipped
    if path is None:
        found = sorted(asset_directory().rglob("*.safetensors"))
        if not found:
            return CheckpointDescription(problem=f"no checkpoint under {asset_directory()}")
        if len(found) > 1:
            return CheckpointDescription(problem=f"{len(found)} checkpoints under {asset_directory()}: "
                                                 f"{', '.join(one.name for one in found)}; name one")
        path = found[0]
    try:
        header = read_header(path)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError) as error:
        return CheckpointDescription(path=path, problem=f"{path}: {error}")
    purposes = {value for value in _values_of(header.get("__metadata__", {}), "purpose") if value in PURPOSES}
    if len(purposes) != 1:
        return CheckpointDescription(path=path, sha256=digest.hexdigest(), problem=(
            f"{path}: states {'no purpose' if not purposes else 'several purposes'}; one of {', '.join(PURPOSES)} "
            "is needed"))
    return CheckpointDescription(path=path, purpose=purposes.pop(), sha256=digest.hexdigest())


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file, its tensors' byte ranges checked against the file's size.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a complete safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{size} bytes: too short for a safetensors file")
        length = struct.unpack("<Q", prefix)[0]
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length} bytes in a file of {size}: truncated, or not safetensors")
        try:
            header = json.loads(file.read(length).decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"its header is not JSON, so it is not safetensors: {error}") from error
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object: not safetensors")
    ends = [entry["data_offsets"][1] for name, entry in header.items()
            if name != "__metadata__" and isinstance(entry, dict) and isinstance(entry.get("data_offsets"), list)]
    expected = 8 + length + max(ends, default=0)
    if expected != size:
        raise ValueError(f"{size} bytes where its header tells {expected}: truncated or damaged")
    return header


def _values_of(metadata: Any, key: str) -> Iterator[str]:
    """Values of `key` in the metadata, also inside values that are JSON objects themselves."""
    if not isinstance(metadata, dict):
        return
    for name, value in metadata.items():
        if name == key and isinstance(value, str):
            yield value
        elif isinstance(value, str) and value.startswith("{"):
            try:
                nested = json.loads(value)
            except ValueError:
                continue
            if isinstance(nested, dict) and isinstance(nested.get(key), str):
                yield nested[key]
