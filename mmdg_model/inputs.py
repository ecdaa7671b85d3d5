"""The one path from pixels to network input. Training images and live crops both take it; it needs no torch.

Every plane becomes 8-bit levels 0..255, pixels that are not valid become 0, and levels are normalised per modality.
The `InputSpecification` that says how travels inside the checkpoint, so a network is only ever fed as it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mmdg_model.local_descriptors import CELL_PIXELS, grey_hog_plgf
from mmdg_model.plain_values import from_plain, to_plain
from mmdg_model.scorer import CropPlanes

Levels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class DepthEncoding(StrEnum):
    """How a depth plane becomes 8-bit levels."""

    METRIC_8BIT = "metric_8bit"  # of metric depth: relative to the face, quantised as the data sets' images are
    IDENTITY_8BIT = "identity_8bit"  # of data-set images, whose depth is 8-bit levels already


class InfraredEncoding(StrEnum):
    """What fills the three channels of the infrared input."""

    GREY = "grey"  # the infrared image, three times
    GREY_HOG_PLGF = "grey_hog_plgf"  # the image and two local descriptors of it (`local_descriptors`)


class AbsenceEncoding(StrEnum):
    """What the network is told of a modality that is absent. The paper does not say; each is someone's practice."""

    FLAG = "flag"  # muted by its flag, whatever the plane holds
    BLACK_IMAGE = "black_image"  # a plane of level 0, normalised like any image
    ZEROS = "zeros"  # a plane of zeros after normalisation: mid grey


#: Largest accepted side of a crop in pixels, so that a stranger's checkpoint cannot ask for gigabytes.
LARGEST_IMAGE_SIZE = 1024


class InputError(ValueError):
    """A crop cannot become network input; the message names the crop's index, the plane and the value."""


class SpecificationError(ValueError):
    """An input specification is impossible; the message quotes the key and the value."""


class PreparedInputs(NamedTuple):
    """Network input of a batch.

    Attributes:
        planes: `float32 [b, 3, 3, S, S]`: modality (RGB, depth, infrared), then channel. An absent modality is what
            `InputSpecification.absence` says: black for `black_image`, else 0.
        present: `bool [b, 3]`, True where a sensor measured, whatever the encoding of absence. RGB always is.
    """

    planes: NDArray[np.float32]
    present: Mask


@dataclass(frozen=True, kw_only=True)
class InputSpecification:
    """How pixels become the input of one network.

    Attributes:
        image_size: side S of the crops in pixels; crops of another size are refused, not resized.
        colour_mean, depth_mean, infrared_mean: level subtracted, and
        colour_scale, depth_scale, infrared_scale: level difference that becomes 1. (x - 127.5) / 128 is what the
            authors' line of work uses for all three, roughly -1..1.
        depth_encoding: see `DepthEncoding`.
        depth_near_m, depth_range_m: for `metric_8bit`. A surface `depth_near_m` in front of the face's median depth, or
            nearer, is level 1; one `depth_range_m` behind that, or farther, is 255. 0.10 m holds a nose and a
            forward chin, the other 0.15 m ears and the neck; one level is then about 1 mm.
        infrared_encoding: see `InfraredEncoding`.
        absence: see `AbsenceEncoding`.

    Raises:
        SpecificationError: a value out of range.
    """

    image_size: int = 224
    colour_mean: float = 127.5
    colour_scale: float = 128.0
    depth_mean: float = 127.5
    depth_scale: float = 128.0
    infrared_mean: float = 127.5
    infrared_scale: float = 128.0
    depth_encoding: DepthEncoding = DepthEncoding.METRIC_8BIT
    depth_near_m: float = 0.10
    depth_range_m: float = 0.25
    infrared_encoding: InfraredEncoding = InfraredEncoding.GREY
    absence: AbsenceEncoding = AbsenceEncoding.FLAG

    def __post_init__(self) -> None:
        for name, kind in (("depth_encoding", DepthEncoding), ("infrared_encoding", InfraredEncoding),
                           ("absence", AbsenceEncoding)):
            # A plain string would compare unequal by identity and silently mean another encoding.
            if not isinstance(getattr(self, name), kind):
                raise SpecificationError(f"inputs.{name} is {getattr(self, name)!r}, expected a {kind.__name__}")
        if not 1 <= self.image_size <= LARGEST_IMAGE_SIZE:
            raise SpecificationError(f"inputs.image_size is {self.image_size!r}, expected 1 to {LARGEST_IMAGE_SIZE}")
        if self.infrared_encoding is InfraredEncoding.GREY_HOG_PLGF and self.image_size % CELL_PIXELS:
            raise SpecificationError(f"inputs.image_size is {self.image_size}, expected a multiple of {CELL_PIXELS}: "
                                     f"{self.infrared_encoding} draws cells of {CELL_PIXELS} pixels")
        for name in ("colour_mean", "depth_mean", "infrared_mean"):
            if not math.isfinite(getattr(self, name)):
                raise SpecificationError(f"inputs.{name} is {getattr(self, name)!r}, expected a finite number")
        for name in ("colour_scale", "depth_scale", "infrared_scale", "depth_range_m"):
            if not 0 < getattr(self, name) < math.inf:
                raise SpecificationError(f"inputs.{name} is {getattr(self, name)!r}, expected a positive number")
        if not 0 <= self.depth_near_m < math.inf:
            raise SpecificationError(f"inputs.depth_near_m is {self.depth_near_m!r}, expected at least 0")

    def to_dict(self) -> dict[str, int | float | str]:
        """Plain values under the field names, as JSON stores them."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Reads `to_dict`'s form: every key required, none unknown, no value coerced.

        Raises:
            SpecificationError: naming the key and quoting the value.
        """
        return cls(**from_plain(cls, values, section="inputs", error=SpecificationError))


def prepare(crops: list[CropPlanes], specification: InputSpecification) -> PreparedInputs:
    """Turns registered crops into network input, in order.

    A depth or infrared plane that is None, or has not one valid pixel, is absent: it carries no measurement.

    Raises:
        InputError: an empty list, a plane or mask of the wrong size or dtype, a plane without its mask, a value
            beyond its bit depth, or a colour plane without a valid pixel.
    """
    if not crops:
        raise InputError("no crops to prepare: the list is empty")
    size = specification.image_size
    planes = np.zeros((len(crops), 3, 3, size, size), dtype=np.float32)
    present = np.zeros((len(crops), 3), dtype=np.bool_)
    colour_table, depth_table, infrared_table = _normalisation_tables(specification)
    if specification.absence is AbsenceEncoding.BLACK_IMAGE:
        planes[:] = black_levels(specification)[:, None, None, None]
    for index, crop in enumerate(crops):
        planes[index, 0] = colour_table[_colour_levels(crop, index, size)].transpose(2, 0, 1)
        present[index, 0] = True
        if (depth := _depth_levels(crop, index, specification)) is not None:
            planes[index, 1] = depth_table[depth]  # one grey plane, broadcast over three channels
            present[index, 1] = True
        if (infrared := _infrared_levels(crop, index, specification)) is not None:
            planes[index, 2] = infrared_table[infrared]
            present[index, 2] = True
    return PreparedInputs(planes, present)


def crop_levels(crop: CropPlanes, specification: InputSpecification) -> tuple[Levels, Levels | None, Levels | None]:
    """The 8-bit levels that `prepare` normalises: colour `[S, S, 3]`, depth `[S, S]` and infrared `[S, S]`.

    Infrared is `[3, S, S]` with descriptors. Depth or infrared is None where it is absent.

    Whoever writes crops as images writes these, so that read back as `identity_8bit` they are what a live crop is.

    Raises:
        InputError: see `prepare`.
    """
    return (_colour_levels(crop, 0, specification.image_size), _depth_levels(crop, 0, specification),
            _infrared_levels(crop, 0, specification))


def black_levels(specification: InputSpecification) -> NDArray[np.float32]:
    """What level 0 becomes in each modality: `float32 [3]`, about -1 by default."""
    return np.stack([table[0] for table in _normalisation_tables(specification)])


def _normalisation_tables(specification: InputSpecification) -> list[NDArray[np.float32]]:
    levels = np.arange(256, dtype=np.float64)
    pairs = ((specification.colour_mean, specification.colour_scale),
             (specification.depth_mean, specification.depth_scale),
             (specification.infrared_mean, specification.infrared_scale))
    return [((levels - mean) / scale).astype(np.float32) for mean, scale in pairs]


def _colour_levels(crop: CropPlanes, index: int, size: int) -> Levels:
    _check_plane(crop.colour, (size, size, 3), (np.uint8,), f"crop {index}: colour")
    valid = _checked_mask(crop.colour_valid, size, f"crop {index}: colour")
    if not valid.any():
        raise InputError(f"crop {index}: colour has no valid pixel; a crop without a visible face cannot be scored")
    return np.where(valid[:, :, None], crop.colour, np.uint8(0))


def _depth_levels(crop: CropPlanes, index: int, specification: InputSpecification) -> Levels | None:
    place, size = f"crop {index}: depth", specification.image_size
    if crop.depth is None:
        return None
    _check_plane(crop.depth, (size, size), (np.uint16,), place)
    valid = _checked_mask(crop.depth_valid, size, place)
    if specification.depth_encoding is DepthEncoding.IDENTITY_8BIT:
        if crop.depth.max() > 255:
            raise InputError(f"{place} holds {crop.depth.max()}, but this checkpoint takes 8-bit depth levels "
                             "(identity_8bit); metric depth needs a checkpoint with metric_8bit")
        return np.where(valid, crop.depth, 0).astype(np.uint8) if valid.any() else None
    valid = valid & (crop.depth > 0)
    if not valid.any():
        return None
    if not 0 < crop.depth_unit_m < math.inf:
        raise InputError(f"{place} has depth_unit_m {crop.depth_unit_m!r}, expected a positive number of metres")
    return _face_relative_levels(crop.depth, valid, crop.depth_unit_m, specification)


def _face_relative_levels(depth: NDArray[np.uint16], valid: Mask, unit_m: float,
                          specification: InputSpecification) -> Levels:
    """Levels 1..255 of the distance behind a plane in front of the face; 0 where not valid."""
    quarter = len(depth) // 4
    centre = (slice(quarter, len(depth) - quarter),) * 2
    # The middle of a face crop is face; its border is background, which would drag the reference away.
    face = depth[centre][valid[centre]] if valid[centre].any() else depth[valid]
    nearest_m = float(np.median(face)) * unit_m - specification.depth_near_m
    share = (depth.astype(np.float32) * np.float32(unit_m) - np.float32(nearest_m)) / specification.depth_range_m
    levels = np.rint(1.0 + 254.0 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
    return np.where(valid, levels, np.uint8(0))


def _infrared_levels(crop: CropPlanes, index: int, specification: InputSpecification) -> Levels | None:
    """`[S, S]` for plain infrared, `[3, S, S]` with descriptors."""
    place, size = f"crop {index}: infrared", specification.image_size
    if crop.infrared is None:
        return None
    _check_plane(crop.infrared, (size, size), (np.uint8, np.uint16), place)
    valid = _checked_mask(crop.infrared_valid, size, place)
    available_bits = 8 * crop.infrared.dtype.itemsize
    if not 1 <= crop.infrared_bit_depth <= available_bits:
        raise InputError(f"{place} has bit depth {crop.infrared_bit_depth!r}, expected 1 to {available_bits} for "
                         f"{crop.infrared.dtype}")
    full_scale = 2**crop.infrared_bit_depth - 1
    if crop.infrared.max() > full_scale:
        raise InputError(f"{place} holds {crop.infrared.max()}, more than {crop.infrared_bit_depth} bits can; "
                         "state the plane's true bit depth")
    if not valid.any():
        return None
    levels = (crop.infrared.astype(np.uint32) * 255 + full_scale // 2) // full_scale
    seen = np.where(valid, levels, 0).astype(np.uint8)
    return seen if specification.infrared_encoding is InfraredEncoding.GREY else grey_hog_plgf(seen, valid)


def _check_plane(plane: NDArray[Any], shape: tuple[int, ...], dtypes: tuple[type, ...], place: str) -> None:
    if plane.dtype.type not in dtypes or plane.shape != shape:
        names = " or ".join(dtype.__name__ for dtype in dtypes)
        raise InputError(f"{place} is {plane.dtype} {plane.shape}, expected {names} {shape}")


def _checked_mask(mask: Mask | None, size: int, place: str) -> Mask:
    if mask is None:
        raise InputError(f"{place} has no validity mask; pass an array of True where every pixel is valid")
    if mask.dtype != np.bool_ or mask.shape != (size, size):
        raise InputError(f"{place} mask is {mask.dtype} {mask.shape}, expected bool {(size, size)}")
    return mask
