"""What a model at rest wants to eat, read from its header alone. Needs no torch: the processes that crop have none."""

from __future__ import annotations

import json
from pathlib import Path

from mmdg_model.backends.exported_model import MANIFEST_NAME, file_hash
from mmdg_model.inputs import LARGEST_IMAGE_SIZE, InputSpecification
from mmdg_model.operating_point import OperatingPoint, OperatingPointError
from mmdg_model.safetensors_header import METADATA_KEY, read_header_metadata

#: What crops measure when the model does not say: ViT's usual size.
DEFAULT_IMAGE_SIZE = InputSpecification().image_size


def stored_image_size(model: Path) -> int:
    """Side in pixels of the crops that a checkpoint or an exported model takes.

    A file that does not say (damaged, foreign, missing) gives the default: whoever loads the network refuses the file
    then, and says why.

    Args:
        model: checkpoint file, or folder of an exported model.
    """
    try:
        stated = ((model / MANIFEST_NAME).read_bytes() if model.is_dir()
                  else read_header_metadata(model)[METADATA_KEY])
        size = json.loads(stated)["inputs"]["image_size"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return DEFAULT_IMAGE_SIZE
    valid = isinstance(size, int) and not isinstance(size, bool) and 16 <= size <= LARGEST_IMAGE_SIZE
    return size if valid else DEFAULT_IMAGE_SIZE


def stored_operating_point(model: Path) -> OperatingPoint | None:
    """The operating point that a checkpoint or an exported model carries; None without one.

    Raises:
        OperatingPointError: what it carries is none, or the file does not describe itself.
    """
    try:
        stated = ((model / MANIFEST_NAME).read_bytes() if model.is_dir()
                  else read_header_metadata(model)[METADATA_KEY])
        values = json.loads(stated).get("operating_point")
    except (OSError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise OperatingPointError(f"{model}: no checkpoint or exported model that describes itself: {error}") from error
    return None if values is None else OperatingPoint.from_dict(values, place=f"{model}: operating_point")


def stored_model_hash(model: Path) -> str:
    """What the scorer will call its `model_hash`: SHA-256 of the checkpoint, or of an exported model's manifest.

    Raises:
        OSError: no such file.
    """
    return file_hash(model / MANIFEST_NAME if model.is_dir() else model)
