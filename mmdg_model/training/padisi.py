"""PADISI-Face (P): where its files lie, what its ground-truth table tells, and how a file is read.

A list names `<trial>.npz`; the data set itself names its files `ID_<transaction>_<trial>_<trial name>.npz`. Either is
found, so nothing needs renaming. The names tell neither subject nor attack: both come from the data set's public
`padisi_USC_FACE_ground_truth.csv` (github.com/vimal-isi-edu/PADISI_USC_Dataset), or stay unknown.

A file holds one entry, `data`: floats `[1, 22, height, width]` in 0..1, of which channels 0-2 are blue, green and red,
3 is near infrared and 4 is depth. It is read without pickle, and its header is believed only where the bytes bear it
out.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mmdg_model.scorer import Modality
from mmdg_model.training.samples import BONA_FIDE, UNKNOWN, ListCounts, ManifestError, Presentation, Split

COUNTS = {
    Split.TRAIN: ListCounts(lines=1090, live=597, spoof=493),
    Split.VALIDATION: ListCounts(lines=272, live=145, spoof=127),
    Split.TEST: ListCounts(lines=667, live=363, spoof=304),
}

#: Attack code of the ground truth: `m5`, these two digits, and two of the variant.
SPECIES = {"01": "funny_eyes", "02": "paper", "03": "mannequin", "04": "half_mask", "05": "transparent_mask",
           "06": "makeup", "07": "silicone_mask", "08": "paper_glasses", "09": "tattoo"}

#: Folders of a data root that are searched, the root itself first.
FOLDERS = (".", "PADISI-Face", "PADISI")

NUM_CHANNELS = 22
INFRARED_CHANNEL, DEPTH_CHANNEL = 3, 4

#: Largest believed height or width; the data set's are 320 x 256.
_LARGEST_SIDE = 1024
#: More than any header numpy writes needs.
_HEADER_BYTES = 16_384

_LISTED = re.compile(r"([0-9a-z]{8})\.npz")
_ORIGINAL = re.compile(r"ID_[^_]+_([0-9a-z]{8})_.*\.npz")
_ATTACK = re.compile(r"m5(\d\d)\d\d")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class ChannelFileError(ValueError):
    """A channel file cannot be used; the message says what is wrong with it, the caller knows which it is."""


def trial_of(name: str) -> str | None:
    """The trial that a listed or an original file name carries, or None."""
    match = _LISTED.fullmatch(name) or _ORIGINAL.fullmatch(name)
    return match.group(1) if match else None


def find_files(root: Path) -> dict[str, Path]:
    """Trial -> file, of the folders `FOLDERS` below `root`. A trial under its listed name wins over its original name.

    Raises:
        ManifestError: two original files carry one trial.
    """
    found: dict[str, Path] = {}
    for folder in FOLDERS:
        directory = root / folder
        for path in sorted(directory.glob("*.npz")) if directory.is_dir() else ():
            if (trial := trial_of(path.name)) is None:
                continue
            other = found.get(trial)
            if other is None or _LISTED.fullmatch(path.name):
                found[trial] = path
            elif _ORIGINAL.fullmatch(other.name):
                raise ManifestError(f"{other} and {path} both carry trial {trial}; keep the right one")
    return found


def ground_truth(row: Mapping[str, str], place: str) -> tuple[str, Presentation]:
    """The listed name and the presentation of one row of the ground-truth table.

    Raises:
        ManifestError: a code that is neither `m00000` nor `m5` and four digits of a known attack.
    """
    code, name = row["ground_truth"], f"{row['trial_id']}.npz"
    subject = row["participant_id"] or UNKNOWN
    if code == "m00000":
        return name, Presentation(bona_fide=True, species=BONA_FIDE, subject=subject)
    match = _ATTACK.fullmatch(code)
    if match is None or match.group(1) not in SPECIES:
        raise ManifestError(f"{place}: ground_truth is {code!r}, expected m00000 or m5 with a code from 01 to 09 and "
                            "two digits more")
    return name, Presentation(bona_fide=False, species=SPECIES[match.group(1)], subject=subject)


def read_levels(path: Path) -> dict[Modality, NDArray[np.uint8]]:
    """8-bit levels of a file: RGB `[height, width, 3]`, depth and infrared `[height, width]`.

    A level is the value times 255, rounded up, as the authors' line of work exports the data set: only what was 0 stays
    0. The thousandth taken off first keeps a value stored as k/255 at level k, which floats alone would not.

    Raises:
        FileNotFoundError, OSError: no file, or none that can be read.
        ChannelFileError: no archive, no entry `data`, another dtype or shape, fewer or more bytes than the header
            claims, or values that are not finite numbers from 0 to 1.
    """
    channels = _read_channels(path)[[0, 1, 2, INFRARED_CHANNEL, DEPTH_CHANNEL]].astype(np.float64)
    if not np.isfinite(channels).all() or channels.min() < 0 or channels.max() > 1:
        raise ChannelFileError(f"values from {channels.min()} to {channels.max()}, expected 0 to 1")
    levels = np.ceil(channels * 255 - 1e-3).astype(np.uint8)
    return {Modality.RGB: np.ascontiguousarray(levels[2::-1].transpose(1, 2, 0)),
            Modality.DEPTH: levels[4], Modality.INFRARED: levels[3]}


def _read_channels(path: Path) -> NDArray[Any]:
    """`[22, height, width]`."""
    try:
        with zipfile.ZipFile(path) as archive:
            try:
                info = archive.getinfo("data.npy")
            except KeyError:
                names = ", ".join(archive.namelist()[:5]) or "nothing"
                raise ChannelFileError(f"no entry 'data', but {names}") from None
            with archive.open(info) as entry:
                return _parse(entry.read(_HEADER_BYTES), info, entry)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ChannelFileError(f"not a readable .npz archive ({error})") from error


def _parse(head: bytes, info: zipfile.ZipInfo, entry: IO[bytes]) -> NDArray[Any]:
    """Reads on only as far as a header of the one known form, which the archive's own size confirms, allows."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = _HEADERS[version](stream)
    except (ValueError, KeyError, RecursionError) as error:
        raise ChannelFileError(f"entry 'data' is no .npy array ({error})") from error
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ChannelFileError(f"entry 'data' is {dtype}, expected float16, float32 or float64")
    if len(shape) != 4 or shape[:2] != (1, NUM_CHANNELS) or not all(1 <= side <= _LARGEST_SIDE for side in shape[2:]):
        raise ChannelFileError(f"entry 'data' has shape {shape}, expected (1, {NUM_CHANNELS}, height, width) of at "
                               f"most {_LARGEST_SIDE} pixels a side")
    num_bytes = math.prod(shape) * dtype.itemsize
    if info.file_size != stream.tell() + num_bytes:
        raise ChannelFileError(f"entry 'data' claims shape {shape} of {dtype}, {num_bytes} bytes, but holds "
                               f"{info.file_size - stream.tell()}")
    values = head[stream.tell():] + entry.read(info.file_size - len(head) if info.file_size > len(head) else 0)
    if len(values) != num_bytes:
        raise ChannelFileError(f"entry 'data' ends after {len(values)} of {num_bytes} bytes")
    flat: NDArray[Any] = np.frombuffer(values, dtype=dtype)
    channels: NDArray[Any] = flat.reshape(shape, order="F" if fortran_order else "C")[0]
    return channels.astype(dtype.newbyteorder("="))
