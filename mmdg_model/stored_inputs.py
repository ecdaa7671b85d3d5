"""What a model at rest wants to eat, read from its header alone. Needs no torch: the processes that crop have none."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from mmdg_model.backends.exported_model import MANIFEST_NAME
from mmdg_model.inputs import LARGEST_IMAGE_SIZE, InputSpecification

#: What crops measure when the model does not say: ViT's usual size.
DEFAULT_IMAGE_SIZE = InputSpecification().image_size

_METADATA_KEY = "mmdg_live"
_LARGEST_HEADER_BYTES = 100 * 2**20


def stored_image_size(model: Path) -> int:
    """Side in pixels of the crops that a checkpoint or an exported model takes.

    A file that does not say (damaged, foreign, missing) gives the default: whoever loads the network refuses the file
    then, and says why.

    Args:
        model: checkpoint file, or folder of an exported model.
    """
    try:
        inputs = _manifest_inputs(model) if model.is_dir() else _checkpoint_inputs(model)
        size = inputs["image_size"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, struct.error):
        return DEFAULT_IMAGE_SIZE
    valid = isinstance(size, int) and not isinstance(size, bool) and 16 <= size <= LARGEST_IMAGE_SIZE
    return size if valid else DEFAULT_IMAGE_SIZE


def _manifest_inputs(folder: Path) -> Any:
    return json.loads((folder / MANIFEST_NAME).read_bytes())["inputs"]


def _checkpoint_inputs(path: Path) -> Any:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _LARGEST_HEADER_BYTES:
            raise ValueError(f"header of {length} bytes")
        return json.loads(json.loads(file.read(length))["__metadata__"][_METADATA_KEY])["inputs"]
