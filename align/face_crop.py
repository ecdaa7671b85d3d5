"""`FaceCrop`: three planes of one tracked face, of one size, registered to one common view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capture.frames import Pixels, StreamKind

#: Metres per unit of `FaceCrop.depth`: 0.1 mm, range 6.55 m.
CROP_DEPTH_UNIT_M = 1e-4


class FaceCropError(ValueError):
    """A crop breaks its contract; the message names the plane and the value."""


@dataclass(frozen=True, kw_only=True)
class CropQuality:
    """Measures of one crop, each with its unit; None where its sensor is absent. They gate evidence, never raise it."""

    face_width_px: float  # width of the face box in the source image
    distance_m: float | None  # median depth of the face's interior
    sharpness: float  # variance of the Laplacian of the face's grey interior, 8-bit scale
    brightness: float  # mean grey level of the face's interior, 0..255
    depth_fill: float | None  # share of the interior with a depth measurement, 0..1
    infrared_brightness: float | None  # mean infrared level of the interior, 0..1 of full scale
    infrared_saturation: float | None  # share of the interior at full scale, 0..1
    yaw_deg: float  # from the keypoints; 0 = facing the camera, positive = turned to the person's left
    pitch_deg: float
    roll_deg: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceCrop:
    """One face, registered.

    Attributes:
        view: the sensor whose geometry the planes share (colour or depth).
        track_id: of the tracked face; sequence: of the frame set.
        colour: `uint8 SxSx3` RGB.
        depth: `uint16 SxS` in units of `CROP_DEPTH_UNIT_M`, z in the common view; 0 = none. None when absent.
        infrared: `uint8|uint16 SxS`, None when absent; `infrared_bit_depth` its significant bits.
        colour_valid, depth_valid, infrared_valid: `bool SxS`, True where the plane shows the surface that the common
            view sees there (not occluded, inside the sensor's image, measured). Pixels that are not valid are 0.
        quality: measures for gating and guidance.

    Raises:
        FaceCropError: planes of different sizes or dtypes, or a plane without its mask.
    """

    view: StreamKind
    track_id: int
    sequence: int
    colour: NDArray[np.uint8]
    colour_valid: NDArray[np.bool_]
    depth: NDArray[np.uint16] | None
    depth_valid: NDArray[np.bool_] | None
    infrared: Pixels | None
    infrared_valid: NDArray[np.bool_] | None
    infrared_bit_depth: int = 8
    quality: CropQuality

    def __post_init__(self) -> None:
        size = self.size
        if self.colour.shape != (size, size, 3) or self.colour.dtype != np.uint8:
            raise FaceCropError(f"colour plane is {self.colour.dtype} {self.colour.shape}, expected uint8 SxSx3")
        for name, plane, mask in (("colour", self.colour, self.colour_valid), ("depth", self.depth, self.depth_valid),
                                  ("infrared", self.infrared, self.infrared_valid)):
            if (plane is None) != (mask is None):
                raise FaceCropError(f"{name}: plane and validity mask must be present or absent together")
            if plane is not None and mask is not None:
                if plane.shape[:2] != (size, size) or mask.shape != (size, size):
                    raise FaceCropError(f"{name} plane {plane.shape} with mask {mask.shape}, expected {size}x{size}")
                if mask.dtype != np.bool_:
                    raise FaceCropError(f"{name} mask is {mask.dtype}, expected bool")
        if self.depth is not None and self.depth.dtype != np.uint16:
            raise FaceCropError(f"depth plane is {self.depth.dtype}, expected uint16")
        if self.infrared is not None and self.infrared.dtype not in (np.uint8, np.uint16):
            raise FaceCropError(f"infrared plane is {self.infrared.dtype}, expected uint8 or uint16")

    @property
    def size(self) -> int:
        """S, the side of the square planes in pixels."""
        return int(self.colour.shape[0])
