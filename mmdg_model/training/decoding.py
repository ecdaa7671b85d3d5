"""A sample's files become `CropPlanes`: the form live crops have, so both take the one path of `mmdg_model.inputs`.

The data sets' depth is 8-bit levels already: checkpoints trained on them have `depth_encoding = identity_8bit`. Their
metric unit is lost, so it is NaN here, and a checkpoint that wants metric depth refuses these crops.

Level 0 is taken as "nothing measured there" in every plane: CASIA-SURF and CeFA have black where the face was cut out,
and `inputs` puts 0 into every pixel that is not valid, so the mask changes no level of a plane. It decides two things:
a depth or infrared image that is black all over counts as absent, and is treated as the checkpoint's specification
says; and infrared descriptors (`grey_hog_plgf`) see where the image ends, as they do in a live crop.
Images are resized without regard to their sides' ratio, bilinearly, each by itself, as in the authors' line of work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.padisi import ChannelFileError, read_levels
from mmdg_model.training.samples import Domain, Sample

Levels = NDArray[np.uint8]

#: The trouble of a colour image without anything in it.
BLACK = "black all over; no face is visible"

_END_OF_IMAGE, _START_OF_SCAN, _START_OF_IMAGE = b"\xff\xd9", b"\xff\xda", b"\xff\xd8"


class TroubleKind(StrEnum):
    """What is the matter with a file."""

    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class FileTrouble:
    """One file that could not be used: which, for which modality, and why."""

    path: Path
    modality: Modality
    kind: TroubleKind
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.modality} {self.kind}: {self.reason}"


class SampleError(ValueError):
    """A sample cannot be used, because there is no colour image of it. `trouble` says which file and why."""

    def __init__(self, trouble: FileTrouble) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


class TroubleLog:
    """Keeps each file's trouble once, however many epochs met it, so that a run can go on and still report it.

    It lives in one process: a loader's worker processes must send their troubles home with the samples.
    """

    def __init__(self) -> None:
        self._troubles: dict[tuple[Path, Modality], FileTrouble] = {}

    def __call__(self, trouble: FileTrouble) -> None:
        """Notes one trouble."""
        self._troubles.setdefault((trouble.path, trouble.modality), trouble)

    @property
    def troubles(self) -> tuple[FileTrouble, ...]:
        """All that were noted, first come first."""
        return tuple(self._troubles.values())


def load_sample(sample: Sample, *, image_size: int = 224,
                on_trouble: Callable[[FileTrouble], None] | None = None) -> CropPlanes:
    """The planes of a sample, resized to `image_size` squared.

    A depth or infrared file that is missing or unreadable leaves its plane absent, and is told to `on_trouble`: the
    lists name a few files that do not exist.

    Args:
        sample: of a list.
        image_size: side in pixels; a network's `InputSpecification.image_size`.
        on_trouble: for example a `TroubleLog`; called for each file that could not be used, colour excepted.

    Raises:
        SampleError: the colour image is missing, unreadable or black all over.
    """
    planes: dict[Modality, Levels] = {}
    for modality, levels in read_sample_levels(sample).items():
        if isinstance(levels, FileTrouble):
            if modality is Modality.RGB:
                raise SampleError(levels)
            if on_trouble is not None:
                on_trouble(levels)
        else:
            planes[modality] = _resized(levels, image_size)
    if not planes[Modality.RGB].any():
        raise SampleError(FileTrouble(path=sample.files[Modality.RGB], modality=Modality.RGB,
                                      kind=TroubleKind.UNREADABLE, reason=BLACK))
    return crop_of_levels(planes)


def try_load_sample(sample: Sample, on_trouble: Callable[[FileTrouble], None], *,
                    image_size: int = 224) -> CropPlanes | None:
    """As `load_sample`, but None instead of `SampleError`: for loops that must outlive one file.

    Whoever trains draws another sample instead; whoever evaluates counts the sample as not scored. `on_trouble` is not
    optional, so that what was passed over is told in the end.
    """
    try:
        return load_sample(sample, image_size=image_size, on_trouble=on_trouble)
    except SampleError as error:
        on_trouble(error.trouble)
        return None


def read_sample_levels(sample: Sample) -> dict[Modality, Levels | FileTrouble]:
    """Levels as stored, RGB `[h, w, 3]`, depth and infrared `[h, w]`, or what is wrong with the file."""
    if sample.domain is not Domain.PADISI:
        return {modality: read_image(path, modality) for modality, path in sample.files.items()}
    path = sample.files[Modality.RGB]
    try:
        return {**read_levels(path)}
    except (OSError, ChannelFileError) as error:
        return {modality: _trouble(path, modality, error) for modality in sample.files}


def read_image(path: Path, modality: Modality) -> Levels | FileTrouble:
    """Levels of an image file, or what is wrong with it.

    A JPEG must come to its end marker: a file whose tail was never written decodes, grey from there on. Damage in its
    middle goes unnoticed where the decoder can go on; JPEG carries no checksum.
    """
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        return _trouble(path, modality, error)
    if not data:
        return _trouble(path, modality, ValueError("the file is empty"))
    if data.startswith(_START_OF_IMAGE) and data.rfind(_END_OF_IMAGE) <= data.rfind(_START_OF_SCAN):
        return _trouble(path, modality, ValueError("the JPEG ends before its end marker"))
    colour = modality is Modality.RGB
    flags = (cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        decoded: Any = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as error:
        return _trouble(path, modality, error)
    if decoded is None:
        return _trouble(path, modality, ValueError("not an image that OpenCV can decode"))
    levels: Levels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False) if colour else decoded
    return levels


def _trouble(path: Path, modality: Modality, error: Exception) -> FileTrouble:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return FileTrouble(path=path, modality=modality, reason=" ".join(reason.split()),
                       kind=TroubleKind.MISSING if missing else TroubleKind.UNREADABLE)


def _resized(levels: Levels, size: int) -> Levels:
    if levels.shape[:2] == (size, size):
        return levels
    resized: Levels = cv2.resize(levels, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    return resized


def crop_of_levels(planes: Mapping[Modality, Levels]) -> CropPlanes:
    """The crop of `uint8` planes of one size, colour among them; what is 0 was not measured."""
    colour, depth, infrared = (planes.get(modality) for modality in (Modality.RGB, Modality.DEPTH, Modality.INFRARED))
    assert colour is not None, "load_sample raises without a colour image"
    return CropPlanes(
        colour=colour, colour_valid=np.any(colour > 0, axis=2),
        depth=None if depth is None else depth.astype(np.uint16), depth_valid=None if depth is None else depth > 0,
        depth_unit_m=math.nan,
        infrared=infrared, infrared_valid=None if infrared is None else infrared > 0, infrared_bit_depth=8)
