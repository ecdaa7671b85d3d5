"""Reading a foreign weight file: safetensors, or a pickle that PyTorch wrote, opened with `weights_only=True`.

This is the only module that opens pickles. PyTorch's restricted unpickler rebuilds tensors and plain containers and
refuses everything else, so code inside a file does not run.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mmdg_model.weights.layout import WeightImportError

#: Keys under which training programs keep the state dict beside other things.
CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net")

#: Prefixes that wrappers (DataParallel, torch.compile, a training module) put before every name.
WRAPPERS = ("module.", "_orig_mod.", "model.", "network.", "net.")

#: Larger files are refused unread: a ViT-B/16 with an optimiser's state takes 1 GB in float32.
LARGEST_FILE_BYTES = 8 * 2**30

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceFile:
    """A foreign state dict.

    Attributes:
        path, sha256: of the file; the bytes hashed are the bytes read.
        weights: by the file's names, without wrappers' prefixes.
        prefix: what was taken off every name.
        container: the key the weights were under; empty if they were the whole file.
    """

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    prefix: str
    container: str


def read_source(path: Path, *, trusted_torchscript: Callable[[str], bool] = lambda sha256: False) -> SourceFile:
    """Reads a state dict.

    Args:
        path: a safetensors file or a `torch.save` file.
        trusted_torchscript: whether a TorchScript archive of this SHA-256 may be opened. Such a file is a program; the
            restricted unpickler cannot read it.

    Raises:
        WeightImportError: unreadable, of another type, truncated, holding code or anything but weights.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_FILE_BYTES:
            raise WeightImportError(f"weights {path}: {size} bytes, expected a regular file of at most "
                                    f"{LARGEST_FILE_BYTES}; save model.state_dict() alone")
        blob = path.read_bytes()
    except OSError as error:
        raise WeightImportError(f"weights {path}: cannot be read ({error.strerror}); give the path of a weight file "
                                "that this user may read") from error
    sha256 = hashlib.sha256(blob).hexdigest()
    content = _parse(blob, str(path), sha256, trusted_torchscript)
    named, container = _state_dict(content, str(path))
    weights, prefix = _unwrapped(named)
    return SourceFile(path=path, sha256=sha256, weights=weights, prefix=prefix, container=container)


def _parse(blob: bytes, place: str, sha256: str, trusted_torchscript: Callable[[str], bool]) -> object:
    if _is_safetensors(blob):
        try:
            return safetensors.torch.load(blob)
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise WeightImportError(f"weights {place}: not a whole safetensors file ({error}); it is truncated or "
                                    "damaged: copy or download it again") from error
    if not blob.startswith((b"PK\x03\x04", b"\x80")):
        raise WeightImportError(f"weights {place}: begins with {blob[:8]!r}, neither a safetensors file nor one that "
                                "torch.save wrote; convert it to one of them")
    if _is_torchscript(blob):
        if not trusted_torchscript(sha256):
            raise WeightImportError(f"weights {place}: a TorchScript archive, which is a program, with SHA-256 {sha256}"
                                    "; only official ones are opened. Where it came from, save model.state_dict() with "
                                    "safetensors and import that")
        return _torchscript_weights(blob)
    try:
        return torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged pickle may raise anything, and all of it means the same here.
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            reason = next((line.strip() for line in str(error).splitlines() if "nsupported" in line), "refused")
            raise WeightImportError(f"weights {place}: holds objects other than weights, whose code would run if they "
                                    f"were opened ({reason}); nothing was run. Where it came from, save "
                                    "model.state_dict() alone, best as safetensors") from error
        raise WeightImportError(f"weights {place}: not a whole file of torch.save ({type(error).__name__}: "
                                f"{str(error).splitlines()[0] if str(error) else 'no message'}); it is truncated or "
                                "damaged: copy or download it again") from error


def _is_safetensors(blob: bytes) -> bool:
    """Eight bytes of header length, then a JSON object."""
    return blob[8:9] == b"{" and int.from_bytes(blob[:8], "little") < 100_000_000


def _is_torchscript(blob: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    # Damage to the directory shows as any of these. `torch.load` then judges it, and it too opens no program.
    except (zipfile.BadZipFile, ValueError, LookupError, NotImplementedError, OverflowError, OSError, struct.error):
        return False


def _torchscript_weights(blob: bytes) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # PyTorch deprecates TorchScript; OpenAI's files stay what they are.
        warnings.simplefilter("ignore")
        program: Any = torch.jit.load(io.BytesIO(blob), map_location="cpu")  # type: ignore[no-untyped-call]
    return dict(program.state_dict())


def _state_dict(content: object, place: str) -> tuple[dict[str, Tensor], str]:
    if _is_state_dict(content):
        return _plain(content, place), ""
    if not isinstance(content, Mapping):
        raise WeightImportError(f"weights {place}: holds a {type(content).__name__}, expected a mapping of names to "
                                "tensors; save model.state_dict()")
    found = [key for key in CONTAINERS if _is_state_dict(content.get(key))]
    if len(found) != 1:
        what = f"several state dicts ({', '.join(found)})" if found else "no state dict"
        raise WeightImportError(f"weights {place}: holds {what} under the keys "
                                f"{', '.join(map(str, list(content)[:12]))}; save the one model.state_dict() alone")
    return _plain(content[found[0]], place), found[0]


def _is_state_dict(content: object) -> bool:
    return (isinstance(content, Mapping) and bool(content)
            and all(isinstance(name, str) and isinstance(weight, Tensor) for name, weight in content.items()))


def _plain(content: Any, place: str) -> dict[str, Tensor]:
    for name, weight in content.items():
        if weight.layout is not torch.strided or weight.is_quantized or weight.dtype not in _DTYPES:
            raise WeightImportError(f"weights {place}: {name} is {weight.dtype}, {weight.layout}; expected dense "
                                    "float32, float16, bfloat16 or float64: save the model unquantised")
        # A few bytes may claim to be a huge tensor by repeating themselves.
        if weight.untyped_storage().nbytes() < weight.numel() * weight.element_size():
            raise WeightImportError(f"weights {place}: {name} claims {weight.numel()} elements, more than the file "
                                    "stores for it; save a contiguous copy")
    return dict(content)


def _unwrapped(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    taken = ""
    while prefix := next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in weights)), ""):
        weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
        taken += prefix
    return weights, taken
