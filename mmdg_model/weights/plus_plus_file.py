"""Released MMDG++ weights at rest, under our names. A file of its own kind: no scorer takes it.

One safetensors file; the metadata key `mmdg_live_mmdg_plus_plus` holds sorted JSON with the sizes, the stated purpose
and where the weights came from. CLIP's text tower is not in it: it is frozen, and the same as in OpenAI's file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mmdg_model.safetensors_header import PLUS_PLUS_KEY, header_metadata
from mmdg_model.scorer import Purpose
from mmdg_model.weights.released_mmdg_plus_plus import plus_plus_shapes
from mmdg_model.whole_file import write_whole

FORMAT_VERSION = 1

#: What the shapes of an MMDG++ follow from, and the number of heads, which they do not tell.
PLUS_PLUS_SIZES = ("width", "heads", "depth", "patch_size", "image_size", "mlp_ratio", "adapter_width",
                   "projection_width", "domains", "prompt_tokens", "prompt_width")


class PlusPlusFileError(ValueError):
    """MMDG++ weights cannot be used; the message quotes the file, the value and the remedy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlusPlusWeights:
    """A released MMDG++.

    Attributes:
        sizes: a number for each of `PLUS_PLUS_SIZES`.
        weights: float32, names and shapes of `plus_plus_shapes(sizes)`.
        purpose: what may be done with scores of these weights.
        source_sha256: of the file they were imported from.
        hash: SHA-256 of our file in hexadecimal; empty before it is saved.
    """

    sizes: dict[str, int]
    weights: dict[str, Tensor] = field(repr=False)
    purpose: Purpose
    source_sha256: str
    hash: str = ""


def save_plus_plus(released: PlusPlusWeights, path: Path) -> str:
    """Writes the file whole or not at all, and returns its SHA-256."""
    about = {"format_version": FORMAT_VERSION, "sizes": released.sizes, "purpose": str(released.purpose),
             "source_sha256": released.source_sha256}
    blob = safetensors.torch.save(released.weights, metadata={PLUS_PLUS_KEY: json.dumps(about, sort_keys=True)})
    write_whole(path, blob)
    return hashlib.sha256(blob).hexdigest()


def load_plus_plus(path: Path) -> PlusPlusWeights:
    """Reads and checks released MMDG++ weights.

    Raises:
        PlusPlusFileError: unreadable, damaged, another kind of file, or weights that do not fit the stated sizes.
    """
    try:
        blob = path.read_bytes()
        weights = safetensors.torch.load(blob)
        metadata = header_metadata(blob)
        about = json.loads(metadata[PLUS_PLUS_KEY])
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise PlusPlusFileError(f"MMDG++ weights {path}: not a file of mmdg import-weights --layout mmdg_plus_plus "
                                f"({type(error).__name__}: {error}); import them again") from error
    sizes = about.get("sizes") if isinstance(about, dict) else None
    if not isinstance(sizes, dict) or set(sizes) != set(PLUS_PLUS_SIZES) or about.get("purpose") not in list(Purpose) \
            or about.get("format_version") != FORMAT_VERSION or not isinstance(about.get("source_sha256"), str):
        raise PlusPlusFileError(f"MMDG++ weights {path}: metadata is {about!r}; this program reads format_version "
                                f"{FORMAT_VERSION} with sizes {', '.join(PLUS_PLUS_SIZES)}: import them again")
    if not all(type(size) is int and 0 < size <= 65536 for size in sizes.values()) or sizes["depth"] > len(weights):
        raise PlusPlusFileError(f"MMDG++ weights {path}: sizes are {sizes!r}, expected whole numbers of at least 1 "
                                "that the weights bear out; import them again")
    expected = plus_plus_shapes(sizes)
    found = {name: tuple(weight.shape) for name, weight in weights.items()}
    if found != expected or any(weight.dtype is not torch.float32 or not bool(torch.isfinite(weight).all())
                                for weight in weights.values()):
        odd = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise PlusPlusFileError(f"MMDG++ weights {path}: {odd[0] if odd else 'a weight'} is not as its sizes say, or "
                                "not finite float32; import them again")
    return PlusPlusWeights(sizes=sizes, weights=weights, purpose=Purpose(about["purpose"]),
                           source_sha256=about["source_sha256"], hash=hashlib.sha256(blob).hexdigest())
