"""One face crop in a file: an `.npz` of its planes, as `mmdg explain` and the reports read it. Nothing can execute.

| entry | array | needed |
|---|---|---|
| `colour`, `colour_valid` | `uint8 [S, S, 3]` RGB, `bool [S, S]` | always |
| `depth`, `depth_valid` | `uint16 [S, S]`, `bool [S, S]` | both or neither |
| `depth_unit_m` | a number: metres a unit | with depth |
| `infrared`, `infrared_valid` | `uint8` or `uint16 [S, S]`, `bool [S, S]` | both or neither |
| `infrared_bit_depth` | a whole number: significant bits | with infrared |
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdg_model.inputs import LARGEST_IMAGE_SIZE
from mmdg_model.scorer import CropPlanes

_DTYPES: dict[str, tuple[str, ...]] = {
    "colour": ("uint8",), "colour_valid": ("bool",), "depth": ("uint16",), "depth_valid": ("bool",),
    "depth_unit_m": ("float64", "float32"), "infrared": ("uint8", "uint16"), "infrared_valid": ("bool",),
    "infrared_bit_depth": ("int64", "int32"),
}
_GROUPS = (("colour", "colour_valid"), ("depth", "depth_valid", "depth_unit_m"),
           ("infrared", "infrared_valid", "infrared_bit_depth"))

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

#: Largest entry: a colour plane of the largest accepted size and its header.
_LARGEST_ENTRY_BYTES = 3 * LARGEST_IMAGE_SIZE**2 + 4096


class CropFileError(ValueError):
    """A crop file cannot be used; the message quotes the file, the entry and what is expected."""


def save_crop(path: Path, crop: CropPlanes) -> None:
    """Writes the planes that are present, compressed. The file holds a face: keep it as such."""
    entries: dict[str, Any] = {"colour": crop.colour, "colour_valid": crop.colour_valid}
    if crop.depth is not None:
        entries |= {"depth": crop.depth, "depth_valid": crop.depth_valid, "depth_unit_m": np.float64(crop.depth_unit_m)}
    if crop.infrared is not None:
        entries |= {"infrared": crop.infrared, "infrared_valid": crop.infrared_valid,
                    "infrared_bit_depth": np.int64(crop.infrared_bit_depth)}
    with path.open("wb") as file:
        np.savez_compressed(file, **entries)


def load_crop(path: Path) -> CropPlanes:
    """Reads `save_crop`'s form, or the same entries from `numpy.savez`.

    Raises:
        CropFileError: unreadable, no archive, an unknown or missing entry, a wrong dtype or shape, objects instead of
            numbers, or an entry that does not fill its shape or is larger than any crop. Sizes are checked before
            they are allocated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {_entry_name(info, path): _read_entry(archive, info, path) for info in archive.infolist()}
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise CropFileError(f"crop {path}: not a readable .npz archive ({error}); write one with "
                            "mmdg_model.crop_file.save_crop") from error
    for group in _GROUPS:
        present = [name for name in group if name in entries]
        if 0 < len(present) < len(group) or (not present and group[0] == "colour"):
            missing = next(name for name in group if name not in entries)
            raise CropFileError(f"crop {path}: entry {missing!r} is missing; {', '.join(group)} belong together, and "
                                "colour is always needed")
    _check_shapes(entries, path)
    optional: dict[str, Any] = {name: entries[name] for name in ("depth", "depth_valid", "infrared", "infrared_valid")
                                if name in entries}
    if "depth" in entries:
        optional["depth_unit_m"] = float(entries["depth_unit_m"])
    if "infrared" in entries:
        optional["infrared_bit_depth"] = int(entries["infrared_bit_depth"])
    return CropPlanes(colour=entries["colour"], colour_valid=entries["colour_valid"], **optional)


def _entry_name(info: zipfile.ZipInfo, path: Path) -> str:
    name = info.filename.removesuffix(".npy")
    if name not in _DTYPES:
        raise CropFileError(f"crop {path}: unknown entry {info.filename!r}; known: {', '.join(_DTYPES)}")
    if info.file_size > _LARGEST_ENTRY_BYTES:
        raise CropFileError(f"crop {path}: entry {name} has {info.file_size} bytes, expected at most "
                            f"{_LARGEST_ENTRY_BYTES}: crops are at most {LARGEST_IMAGE_SIZE} pixels wide")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CropFileError(f"crop {path}: entry {name} has compression method {info.compress_type}, expected stored "
                            "or deflated, as numpy writes")
    return name


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    """Parses the header by itself: numpy would allocate whatever shape a header claims."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as entry:
        data = entry.read(info.file_size)  # no more is ever unpacked, whatever the stream would grow to
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = _HEADERS[version](stream)
    except (ValueError, KeyError) as error:
        raise CropFileError(f"crop {path}: entry {name} is no .npy array ({error})") from error
    if dtype.name not in _DTYPES[name]:
        raise CropFileError(f"crop {path}: entry {name} is {dtype.name}, expected {' or '.join(_DTYPES[name])}")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise CropFileError(f"crop {path}: entry {name} claims shape {shape} of {dtype.name} but holds "
                            f"{len(data) - stream.tell()} bytes")
    flat = np.frombuffer(data, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran_order else "C").astype(dtype.newbyteorder("="))


def _check_shapes(entries: dict[str, NDArray[Any]], path: Path) -> None:
    side = entries["colour"].shape[0] if entries["colour"].ndim else 0
    expected = {"colour": (side, side, 3), "depth_unit_m": (), "infrared_bit_depth": ()}
    for name, entry in entries.items():
        if entry.shape != expected.get(name, (side, side)):
            raise CropFileError(f"crop {path}: entry {name} has shape {entry.shape}, expected "
                                f"{expected.get(name, (side, side))}")
    if not 1 <= side <= LARGEST_IMAGE_SIZE:
        raise CropFileError(f"crop {path}: planes are {side} pixels wide, expected 1 to {LARGEST_IMAGE_SIZE}")
