"""A `Film`: what the live camera process made of one session, kept so that any number of networks can score it.

Filming is dear and scoring cheap, so the crops are stored as the network's input path takes them (metric depth, masks),
before anything that a checkpoint's input specification decides but its side in pixels.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from align.crop import CropSettings
from capture.camera import Camera, CameraDescription, EndOfStreamError
from detect.faces import Detector
from mmdg_model.scorer import CropPlanes
from pipeline import messages
from pipeline.bundle import unpack
from pipeline.camera_stage import CameraStep
from pipeline.messages import Observation
from pipeline.simulated_sessions.presentation import SessionCamera, Truth
from pipeline.simulated_trees.files import write_whole

#: Camera's name in the observations.
CAMERA = "simulated"
_READ_TIMEOUT_S = 60.0


class FilmError(ValueError):
    """A stored film cannot be used; the message quotes the file and the remedy."""


class FilmRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a film but its pixels.

    Attributes:
        truth: of the session. crop_size: side of the crops. observations: of every frame, as the camera process
            reports them. crop_sequences: of the frames that gave a crop.
    """

    truth: Truth
    crop_size: int
    observations: list[Observation]
    crop_sequences: list[int]
    depth_unit_m: float
    infrared_bit_depth: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """One session as filmed. `crops`: as many as `record.crop_sequences`, in that order."""

    record: FilmRecord
    crops: tuple[CropPlanes, ...]


def film_session(camera: Camera, truth: Truth, detector: Detector, *, crop_size: int) -> Film:
    """Runs the live camera step on every set of a camera until its stream ends.

    Args:
        camera: not yet opened; closed at the end. truth: of its session. detector: the live one.
        crop_size: side of the crops in pixels: what the networks take.

    Raises:
        CameraError, DetectorError: as the live path.
    """
    _, observations, crops = film_frames(camera, detector, crop_size=crop_size)
    first = next(iter(crops.values()), None)
    return Film(record=FilmRecord(
        truth=truth, crop_size=crop_size, observations=observations, crop_sequences=list(crops),
        depth_unit_m=first.depth_unit_m if first else 1e-4,
        infrared_bit_depth=first.infrared_bit_depth if first else 8), crops=tuple(crops.values()))


def film_frames(camera: Camera, detector: Detector, *,
                crop_size: int) -> tuple[CameraDescription, list[Observation], dict[int, CropPlanes]]:
    """The camera, what the live camera step observed of every set, and the crops by sequence. Closes the camera.

    Raises:
        CameraError, DetectorError: as the live path.
    """
    observations: list[Observation] = []
    crops: dict[int, CropPlanes] = {}
    try:
        description = camera.open()
        step = CameraStep(CAMERA, description, detector, CropSettings(size=crop_size), lockstep=True)
        while True:
            try:
                frame_set = camera.read(_READ_TIMEOUT_S)
            except EndOfStreamError:
                break
            result = step.step(frame_set, {})
            # The epoch is random in each process; equal seeds shall give equal films.
            observations.append(messages.replace(result.observation, epoch=0))
            if result.bundle is not None:
                crops[frame_set.sequence] = unpack(result.bundle)[1]
    finally:
        camera.close()
    return description, observations, crops


def camera_kind_of(record: FilmRecord) -> str:
    """The kind of camera that filmed; of films made before observations carried it, what the index says."""
    stated = next((seen.camera_kind for seen in record.observations if seen.camera_kind), "")
    if stated:
        return stated
    own = record.truth.renderer == SessionCamera.__module__
    return f"simulated-{record.truth.profile if own else record.truth.renderer.rpartition('.')[2].lower()}"


_PLANES = ("colour", "depth", "infrared")


def save_film(path: Path, film: Film) -> int:
    """Writes one film whole or not at all; equal films give equal bytes. Returns their number.

    The file holds faces: keep it as such.
    """
    arrays: dict[str, NDArray[Any]] = {"record": np.frombuffer(msgspec.json.encode(film.record), np.uint8)}
    for name in _PLANES:
        planes = [getattr(crop, name) for crop in film.crops]
        masks = [getattr(crop, f"{name}_valid") for crop in film.crops]
        if planes and all(plane is not None for plane in planes):
            stack = np.stack(planes)
            # Along a row, a surface's depth changes little: differences pack well. They wrap, and so back.
            arrays[name] = np.diff(stack, axis=2, prepend=stack.dtype.type(0)) if name != "colour" else stack
            arrays[f"{name}_valid"] = np.packbits(np.stack(masks), axis=-1)
        elif any(plane is not None for plane in planes):
            raise FilmError(f"{path}: {name} is absent in some frames of the film only")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, array, allow_pickle=False)
            # numpy would stamp the entry with the time of day, and equal films would give unequal files.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), entry.getvalue(),
                             zipfile.ZIP_DEFLATED)
    write_whole(path, stream.getvalue())
    return len(stream.getvalue())


def load_record(path: Path) -> FilmRecord:
    """All of a stored film but its pixels.

    Raises:
        FilmError: unreadable, or not a film.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return msgspec.json.decode(stored["record"].tobytes(), type=FilmRecord)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError) as error:
        raise FilmError(f"film {path}: {error}; delete it and film again") from error


def load_film(path: Path) -> Film:
    """A stored film with its crops.

    Raises:
        FilmError: unreadable, not a film, or planes that do not fit its record.
    """
    record = load_record(path)
    size, number = record.crop_size, len(record.crop_sequences)
    planes: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            for name in _PLANES:
                if name not in stored:
                    continue
                planes[name] = stored[name]
                masks = np.unpackbits(stored[f"{name}_valid"], axis=-1, count=size).astype(np.bool_)
                planes[f"{name}_valid"] = masks
                if planes[name].shape[:3] != (number, size, size) or masks.shape != (number, size, size):
                    raise FilmError(f"film {path}: {name} is {planes[name].shape}, its record says {number} crops of "
                                    f"{size} pixels; delete it and film again")
                if name != "colour":
                    planes[name] = np.cumsum(planes[name], axis=2, dtype=planes[name].dtype)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise error if isinstance(error, FilmError) else FilmError(f"film {path}: {error}; film again") from error
    if number and "colour" not in planes:
        raise FilmError(f"film {path}: no colour planes; delete it and film again")

    def plane(name: str, index: int) -> Any:
        return planes[name][index] if name in planes else None

    return Film(record=record, crops=tuple(CropPlanes(
        colour=plane("colour", index), colour_valid=plane("colour_valid", index), depth=plane("depth", index),
        depth_valid=plane("depth_valid", index), depth_unit_m=record.depth_unit_m,
        infrared=plane("infrared", index), infrared_valid=plane("infrared_valid", index),
        infrared_bit_depth=record.infrared_bit_depth) for index in range(number)))
