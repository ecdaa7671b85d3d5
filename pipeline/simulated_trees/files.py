"""Writes samples and lists in the data sets' own forms. A file is there whole or not at all, whenever one is killed."""

from __future__ import annotations

import fcntl
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath

import cv2
import numpy as np

from mmdg_model.training.padisi import DEPTH_CHANNEL, INFRARED_CHANNEL, NUM_CHANNELS
from mmdg_model.training.samples import Domain
from pipeline.simulated_trees.domains import SimulationError
from pipeline.simulated_trees.presentation import SampleLevels


def write_whole(path: Path, content: bytes) -> None:
    """Under another name first: a file of this name is complete. A run that goes on replaces what a killed one left.

    For the thousands of pictures of a tree, which can be rendered again: not flushed to the disk one by one, as
    `mmdg_model.whole_file.write_whole` does for what cannot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


@contextmanager
def alone_in(folder: Path, root: Path) -> Iterator[None]:
    """Holds a lock on a folder: two runs in one would replace each other's half-written files. It ends with us.

    Args:
        folder: that is locked. root: as the user named it.

    Raises:
        SimulationError: another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SimulationError(f"another run is at work in {root}; wait for it, or name another folder") from None
    finally:
        os.close(descriptor)


def write_sample(root: Path, names: Sequence[str], levels: SampleLevels, jpeg_quality: int | None) -> int:
    """Three images as their names end, or one channel file for one name. Returns the number of bytes."""
    if len(names) == 1:
        contents = [channel_file(levels)]
    else:
        colour = cv2.cvtColor(levels.colour, cv2.COLOR_RGB2BGR)
        how = [] if jpeg_quality is None else [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
        contents = [cv2.imencode(PurePath(name).suffix, plane, how)[1].tobytes()
                    for name, plane in zip(names, (colour, levels.depth, levels.infrared), strict=True)]
    for name, content in zip(names, contents, strict=True):
        write_whole(root / name, content)
    return sum(map(len, contents))


def channel_file(levels: SampleLevels) -> bytes:
    """PADISI-Face's form: float32 `[1, 22, h, w]` in 0..1; blue, green, red, infrared, depth, and 17 empty channels."""
    data = np.zeros((1, NUM_CHANNELS, *levels.depth.shape), np.float32)
    data[0, :3] = levels.colour[..., ::-1].transpose(2, 0, 1)
    data[0, INFRARED_CHANNEL], data[0, DEPTH_CHANNEL] = levels.infrared, levels.depth
    data /= 255
    array, stream = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array(array, data, allow_pickle=False)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        # numpy would stamp the entry with the time of day, and equal seeds would give unequal files.
        archive.writestr(zipfile.ZipInfo("data.npy", (1980, 1, 1, 0, 0, 0)), array.getvalue(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def list_bytes(domain: Domain, samples: Sequence[tuple[Sequence[str], bool]]) -> bytes:
    """A list in its public form: CRLF, spaces and no last line end; for P tabs and LF."""
    if domain is Domain.PADISI:
        return "".join(f"{names[0]}\t{label:d}\n" for names, label in samples).encode()
    return "\r\n".join(" ".join((*names, str(int(label)))) for names, label in samples).encode()
