"""Two local descriptors of an infrared image as extra input channels: HOG, drawn, and PLGF.

The authors' line of work stacks grey, HOG and PLGF where it computes prototypes; here it is an input specification of
its own (`InfraredEncoding.GREY_HOG_PLGF`). What the sources leave open, and what was chosen: docs/model.md.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: Side of a HOG cell in pixels.
CELL_PIXELS = 8

#: Orientation bins over half a turn.
ORIENTATIONS = 9

#: Side of the PLGF masks in pixels.
PLGF_PIXELS = 5

#: PLGF divides by the level; darker pixels count as this bright.
PLGF_DARKEST = 2.0


def grey_hog_plgf(levels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Three channels of one infrared image.

    Args:
        levels: `uint8 [S, S]`, S a multiple of `CELL_PIXELS`; 0 where not valid, so that hidden content cannot act.
        valid: `bool [S, S]`.

    Returns:
        `uint8 [3, S, S]`: the levels, the drawn HOG, PLGF; each 0 where not valid.
    """
    channels = np.stack([levels, hog_drawing(levels), plgf(levels)])
    return np.where(valid, channels, np.uint8(0))


def hog_drawing(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Histogram of oriented gradients (Dalal and Triggs, CVPR 2005) drawn as one star a cell: `uint8 [S, S]`.

    Each cell's histogram is the mean gradient magnitude by orientation (9 bins over 180 degrees). Each bin is a
    line through the cell's centre *along* the edge, as bright as the bin; the brightest point of the image is 255. The
    2x2 block normalisation of HOG belongs to its feature vector and is not drawn.
    """
    histogram = orientation_histogram(levels)
    drawing = np.einsum("ijo,orc->irjc", histogram, _strokes()).reshape(levels.shape)
    peak = drawing.max()
    return np.rint(drawing * (255.0 / peak)).astype(np.uint8) if peak > 0 else np.zeros_like(levels)


def orientation_histogram(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean gradient magnitude of each cell by orientation of the gradient: `float64 [S/8, S/8, 9]`.

    Gradients are central differences, 0 on the image's border; bin i holds angles from 20 i to 20 (i + 1) degrees.
    """
    image = levels.astype(np.float64)
    down, right = np.zeros_like(image), np.zeros_like(image)
    down[1:-1] = image[2:] - image[:-2]
    right[:, 1:-1] = image[:, 2:] - image[:, :-2]
    magnitude = np.hypot(down, right)
    turn = np.rad2deg(np.arctan2(down, right)) % 180.0
    # % may return 180 itself for a tiny negative angle.
    bins = np.minimum((turn * ORIENTATIONS / 180.0).astype(np.int64), ORIENTATIONS - 1)
    by_orientation = np.where(bins[:, :, None] == np.arange(ORIENTATIONS), magnitude[:, :, None], 0.0)
    rows, columns = (side // CELL_PIXELS for side in levels.shape)
    cells = by_orientation.reshape(rows, CELL_PIXELS, columns, CELL_PIXELS, ORIENTATIONS)
    return np.asarray(cells.mean(axis=(1, 3)))


def plgf(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pattern of local gravitational force (Bhattacharjee and Roy, 2019) as an image: `uint8 [S, S]`, 1..255.

    Every neighbour in a 5x5 window pulls with its level over its squared distance. The pull, relative to the pixel's
    own level so that illumination cancels, gives arctan(|pull|), stretched linearly to 1..255 (an even image is 1).
    """
    image = np.maximum(levels.astype(np.float64), PLGF_DARKEST)
    across, down = _plgf_masks()
    pull = np.hypot(ndimage.correlate(image, across, mode="nearest"), ndimage.correlate(image, down, mode="nearest"))
    angle = np.arctan(pull / image)
    span = angle.max() - angle.min()
    if span < 1e-9:  # nothing but rounding
        return np.ones_like(levels)
    return np.asarray(np.rint(1.0 + 254.0 * (angle - angle.min()) / span), dtype=np.uint8)


@functools.cache
def _plgf_masks() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """cos(phi) / r² and sin(phi) / r² around the centre, whose own weight is 0."""
    reach = PLGF_PIXELS // 2
    row, column = np.mgrid[-reach:reach + 1, -reach:reach + 1].astype(np.float64)
    radius = np.hypot(row, column)
    radius[reach, reach] = np.inf
    return column / radius**3, row / radius**3


@functools.cache
def _strokes() -> NDArray[np.float64]:
    """One line a bin through the cell's centre, at right angles to the bin's gradient: `[9, 8, 8]` of 0 and 1."""
    strokes = np.zeros((ORIENTATIONS, CELL_PIXELS, CELL_PIXELS))
    centre, reach = CELL_PIXELS // 2, CELL_PIXELS // 2 - 1
    for index in range(ORIENTATIONS):
        gradient = np.pi * (index + 0.5) / ORIENTATIONS
        for step in np.linspace(-reach, reach, 4 * CELL_PIXELS + 1):
            row, column = centre + step * np.cos(gradient), centre - step * np.sin(gradient)
            strokes[index, round(row), round(column)] = 1.0
    return strokes
