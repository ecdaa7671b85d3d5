"""The infrared dot projector of an active stereo camera."""

from __future__ import annotations

import cv2
import numpy as np

from capture.simulated.meshes import Float32
from capture.simulated.view import View

#: Place of the projector beside the left imager, metres (chosen), and half its field, as tangents: 90 by 63 degrees
#: (D400 data sheet, docs/simulator-sources.md).
PROJECTOR_OFFSET_M = np.array([0.021, 0.0, 0.0])
_HALF_FIELD = (1.0, 0.613)
_PATTERN = (1280, 924)  # width, height
#: Light between the dots and in a dot's middle, as multiples of the even flood it replaces.
_BETWEEN, _DOT = 0.30, 2.6


def dot_pattern(dots: int, rng: np.random.Generator) -> Float32:
    """A pseudo-random pattern of dots over the projector's field, (rows, columns), multiples of even light."""
    width, height = _PATTERN
    # One dot a cell of a jittered grid: pseudo-random, with no two dots on top of each other.
    columns = round(np.sqrt(dots * width / height))
    rows = round(dots / columns)
    x = (np.arange(columns)[None, :] + rng.uniform(0.15, 0.85, (rows, columns))) * width / columns
    y = (np.arange(rows)[:, None] + rng.uniform(0.15, 0.85, (rows, columns))) * height / rows
    pattern = np.zeros((height, width), np.float32)
    pattern[np.clip(y, 0, height - 1).astype(int), np.clip(x, 0, width - 1).astype(int)] = 1
    spot = 1.6
    pattern = np.asarray(cv2.GaussianBlur(pattern, (0, 0), spot), np.float32) * np.float32(2 * np.pi * spot ** 2)
    return np.asarray(_BETWEEN + (_DOT - _BETWEEN) * np.minimum(pattern, 1.2), np.float32)


def projected_dots(pattern: Float32, view: View, depth_m: Float32) -> Float32:
    """The pattern as `view` sees it on surfaces at `depth_m` (H, W): dots shift with depth, as stereo needs them to."""
    height, width = depth_m.shape
    points = view.directions * depth_m[..., None] - PROJECTOR_OFFSET_M.astype(np.float32)
    column = (points[..., 0] / points[..., 2] / _HALF_FIELD[0] + 1) * np.float32(pattern.shape[1] / 2)
    row = (points[..., 1] / points[..., 2] / _HALF_FIELD[1] + 1) * np.float32(pattern.shape[0] / 2)
    return np.asarray(cv2.remap(pattern, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
                                borderValue=_BETWEEN), np.float32).reshape(height, width)
