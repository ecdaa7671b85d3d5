"""One stored crop becomes numbers: what a probe may read of it, and the single cues that must not decide alone.

Everything is measured on the files as training reads them. The face is where the *detector's* box is: a crop is a
square of `face_scale` times the box's side around the box's middle, so the box is the middle `1 / face_scale` of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Levels = NDArray[np.uint8]

#: Sides of what the linear probes and the small network read.
THUMBNAIL, PLANES = 8, 32
#: Channels of `planes`: red, green, blue, depth, infrared, share of depth that was not measured.
CHANNELS = ("red", "green", "blue", "depth", "infrared", "holes")
#: Fewer pixels than these tell nothing of a plane, or of a wall.
_FEWEST_PIXELS = 30
_FEWEST_SAMPLES_OF_A_PLANE = 60

#: Single cues, in the order of `Description.cues`; their units are in the names.
CUES = ("plane_residual_mm", "depth_mean_mm", "depth_relief_mm", "hole_fraction", "infrared_mean",
        "infrared_colour_ratio", "infrared_texture", "colour_texture", "colour_saturation")
#: Of `Description.noise`: noise levels in codes and exponents of the power spectrum.
NOISE = ("noise colour", "noise depth", "noise infrared", "slope colour", "slope depth", "slope infrared")


@dataclass(frozen=True, kw_only=True, eq=False)
class Description:
    """Numbers of one crop; NaN where there was nothing to measure.

    Attributes:
        probes: name of a group of features -> `float32 [k]`; one group is what one linear probe reads.
        cues: `[len(CUES)]`. noise: `[len(NOISE)]`.
        planes: `uint8 [PLANES, PLANES, len(CHANNELS)]`.
    """

    probes: dict[str, Float32]
    cues: Float32
    noise: Float32
    planes: Levels


def describe(colour: Levels, depth: Levels, infrared: Levels, *, face_scale: float,
             metres_a_level: float) -> Description:
    """Describes a crop.

    Args:
        colour: `[h, w, 3]`. depth, infrared: `[h, w]`; depth 0 is not measured.
        face_scale: side of the crop over the side of the detector's box. metres_a_level: of depth.
    """
    inside, face = _regions(depth.shape, face_scale)
    residuals = {"colour": _residual(_grey(colour)), "depth": _residual(depth), "infrared": _residual(infrared)}
    planes = np.dstack([_small(colour, PLANES), _small(depth, PLANES), _small(infrared, PLANES),
                        _small((depth == 0).astype(np.uint8) * np.uint8(255), PLANES)])
    probes = {
        "borders": _borders(colour, depth, infrared),
        "background outside the box": _outside(colour, depth, infrared, ~inside),
        "wall behind the face": _wall(colour, infrared, (depth == 255) & ~inside),
        "thumbnail colour": _small(colour, THUMBNAIL).ravel().astype(np.float32),
        "thumbnail depth": _small(depth, THUMBNAIL).ravel().astype(np.float32),
        "thumbnail infrared": _small(infrared, THUMBNAIL).ravel().astype(np.float32),
        **{f"high-pass {name}": _energy(residual) for name, residual in residuals.items()},
    }
    noise = [_noise_level(plane, face) for plane in (_grey(colour), depth, infrared)]
    noise += [_spectrum_slope(plane) for plane in (_grey(colour), depth, infrared)]
    return Description(probes=probes, cues=_cues(colour, depth, infrared, face, metres_a_level),
                       noise=np.array(noise, np.float32), planes=planes)


def file_features(paths: Sequence[Path]) -> Float32:
    """Of each file its size and, of a JPEG, the length of what precedes the picture and the sum of its tables."""
    values: list[float] = []
    for path in paths:
        data = path.read_bytes()
        start = data.find(b"\xff\xda") if data.startswith(b"\xff\xd8") else -1
        header = data[:start] if start >= 0 else b""
        tables = header.split(b"\xff\xdb")[1:]
        values += [float(len(data)), float(len(header)), float(sum(sum(table[:67]) for table in tables))]
    return np.array(values, np.float32)


def _regions(shape: tuple[int, ...], face_scale: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The detector's box within the crop, and the oval of the face within that."""
    height, width = shape[:2]
    half = max(height, width) / face_scale / 2
    rows, columns = np.abs(np.arange(height) - (height - 1) / 2), np.abs(np.arange(width) - (width - 1) / 2)
    inside = (rows[:, None] <= half) & (columns[None, :] <= half)
    face = (rows[:, None] / (0.80 * half)) ** 2 + (columns[None, :] / (0.65 * half)) ** 2 <= 1
    return inside, face


def _small(plane: Levels, side: int) -> Levels:
    return np.asarray(cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA), np.uint8)


def _grey(colour: Levels) -> Levels:
    return np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), np.uint8)


def _residual(plane: Levels) -> Float32:
    values = plane.astype(np.float32)
    return np.asarray(values - cv2.GaussianBlur(values, (0, 0), 1.0), np.float32)


def _energy(residual: Float32) -> Float32:
    mean = cv2.resize(np.abs(residual), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.log1p(np.asarray(mean, np.float32)).ravel()


def _borders(colour: Levels, depth: Levels, infrared: Levels) -> Float32:
    """How many rows and columns at each edge are black in each plane, as a share of the side."""
    values = []
    for plane in (colour.max(axis=2), depth, infrared):
        for axis in (0, 1):
            filled = np.flatnonzero((plane > 0).any(axis=1 - axis))
            size = plane.shape[axis]
            values += [filled[0] / size, 1 - (filled[-1] + 1) / size] if len(filled) else [1.0, 1.0]
    return np.array(values, np.float32)


def _outside(colour: Levels, depth: Levels, infrared: Levels, outside: NDArray[np.bool_]) -> Float32:
    """Mean levels of what lies outside the box, cell by cell; cells within the box are left out."""
    weight = cv2.resize(outside.astype(np.float32), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    seen = np.dstack([colour, depth, infrared]).astype(np.float32) * outside[..., None]
    small = cv2.resize(seen, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    cells = weight > 0.05
    return np.asarray((small[cells] / weight[cells][:, None]).ravel(), np.float32)


def _wall(colour: Levels, infrared: Levels, wall: NDArray[np.bool_]) -> Float32:
    """Mean and spread of what is measured to be far behind the face; where it is says nothing here."""
    if wall.sum() < _FEWEST_PIXELS:
        return np.full(8, np.nan, np.float32)
    pixels = np.dstack([colour, infrared])[wall].astype(np.float32)
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)]).astype(np.float32)


def _cues(colour: Levels, depth: Levels, infrared: Levels, face: NDArray[np.bool_], metres_a_level: float) -> Float32:
    grey = _grey(colour).astype(np.float32)
    seen = face & (grey > 0)
    measured = face & (depth > 0)
    millimetres = 1000 * metres_a_level * (depth[measured].astype(np.float64) - 1)
    residual = mean = relief = np.nan
    if len(millimetres) >= _FEWEST_SAMPLES_OF_A_PLANE:
        rows, columns = np.nonzero(measured)
        design = np.stack([rows, columns, np.ones(len(rows))], axis=1) / len(depth)
        fit = np.linalg.lstsq(design, millimetres, rcond=None)[0]
        residual = float(np.sqrt(np.mean((millimetres - design @ fit) ** 2)))
        mean = float(millimetres.mean())
        relief = float(np.subtract(*np.percentile(millimetres, (95, 5))))
    if not seen.any():
        return np.array([residual, mean, relief, 1 - measured.sum() / face.sum(), *[np.nan] * 5], np.float32)
    infrared_mean, colour_mean = float(infrared[seen].mean()), float(grey[seen].mean())
    pixels = colour[seen].astype(np.float32)
    return np.array([
        residual, mean, relief, 1 - measured.sum() / face.sum(), infrared_mean, infrared_mean / colour_mean,
        float(np.abs(_residual(infrared))[seen].mean()) / max(infrared_mean, 1.0),
        float(np.abs(_residual(_grey(colour)))[seen].mean()) / colour_mean,
        float((1 - pixels.min(axis=1) / np.maximum(pixels.max(axis=1), 1)).mean())], np.float32)


def _noise_level(plane: Levels, face: NDArray[np.bool_]) -> float:
    """Standard deviation of white noise, from the Laplacian difference that cancels linear shading (Immerkaer, 1996).

    Measured on the flatter half of the face, so that features do not count as noise.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    values = plane.astype(np.float32)
    smooth = cv2.GaussianBlur(values, (0, 0), 2.0)
    slope = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))
    where = face & (plane > 0)
    if where.sum() < _FEWEST_PIXELS:
        return float("nan")
    flat = where & (slope <= np.median(slope[where]))
    return float(np.abs(cv2.filter2D(values, -1, kernel))[flat].mean()) * math.sqrt(math.pi / 2) / 6


def _spectrum_slope(plane: Levels) -> float:
    """Exponent of the power spectrum's fall between 1/16 and 1/3 cycles a pixel: steeper is blurrier."""
    side = min(plane.shape)
    top, left = (plane.shape[0] - side) // 2, (plane.shape[1] - side) // 2
    values = plane[top:top + side, left:left + side].astype(np.float64)
    window = np.hanning(side)
    power = np.abs(np.fft.rfft2((values - values.mean()) * window[:, None] * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    band = (frequency > 1 / 16) & (frequency < 1 / 3)
    return float(np.polyfit(np.log(frequency[band]), np.log(power[band] + 1e-3), 1)[0])
