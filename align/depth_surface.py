"""The surface that depth measured, as another sensor sees it: z-buffer, occlusion, and bridges over small holes.

Everywhere here z is float32 metres and 0 means "nothing known".
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from align.planar_projection import F32

Mask = NDArray[np.bool_]

#: Two depths on one line of sight that differ by less show one surface. A cell of the z-buffer on a cheek that slopes
#: by 75 degrees spans 7 mm at 0.5 m, and stereo noise is about 4 mm at 1 m; a background is 10 cm behind or more.
SAME_SURFACE_M = 0.02
#: ... plus this much for each square metre of distance squared: stereo noise grows with z squared.
SAME_SURFACE_PER_M2 = 0.01
#: A hole is bridged only where the known depths around it lie within twice that: one surface, not a contour.
BRIDGE_RANGE = 2.0
#: Half-widths in cells of the neighbourhoods that bridge a hole, tried in this order: small gaps, then larger holes.
BRIDGE_RADII = (1, 6)
MINIMUM_SHARE = 0.2  # of the neighbourhood must be known
#: A patch of far cells amid near ones is a leak when it is narrower than this many cells and that much farther.
LEAK_CELLS, LEAK_STEP_M = 9, 0.1
_FAR_M = np.float32(1e3)


@dataclass(frozen=True, kw_only=True, eq=False)
class ZBuffer:
    """Smallest z per cell, over a rectangle of a sensor's image.

    `z_m`: float32 rows x columns. `left`, `top`: image coordinates of the first cell's first corner;
    `cell_px`: side of a cell in image pixels.
    """

    z_m: F32
    left: float
    top: float
    cell_px: float

    def cells(self, columns: F32, rows: F32) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Cell columns and cell rows of a grid of pixel positions (one array a side)."""
        return (_cells(columns, self.left, self.cell_px, self.z_m.shape[1]),
                _cells(rows, self.top, self.cell_px, self.z_m.shape[0]))

    def shows(self, x: F32, y: F32, z_m: F32) -> Mask:
        """Which points, at pixels (x, y) and z of this sensor, are not behind something nearer.

        A point within one cell of a nearer surface's silhouette counts as hidden: near a contour the cell cannot tell.
        """
        nearest = cv2.erode(np.where(self.z_m == 0, _FAR_M, self.z_m), np.ones((3, 3), np.uint8))
        scale = 1.0 / self.cell_px
        cells = cv2.remap(nearest, (x - np.float32(self.left + self.cell_px / 2)) * np.float32(scale),
                          (y - np.float32(self.top + self.cell_px / 2)) * np.float32(scale), cv2.INTER_NEAREST,
                          borderMode=cv2.BORDER_REPLICATE)
        visible: Mask = z_m - cells < tolerance_m(z_m)
        return visible


def _cells(pixels: F32, origin: float, cell_px: float, count: int) -> NDArray[np.intp]:
    cells: NDArray[np.intp] = np.clip((pixels - origin) / cell_px, 0, count - 1).astype(np.intp)
    return cells


def splat(x: F32, y: F32, z_m: F32, *, left: float, top: float, width: float, height: float,
          cell_px: float) -> ZBuffer:
    """z-buffer of points at the pixels (x, y): per cell the nearest point wins (forward warping).

    Args:
        x, y, z_m: same shape, any; z in the target's frame, 0 where nothing was measured.
        left, top, width, height: the rectangle in target pixels. cell_px: at least the spacing of the points, so that
            a surface leaves no gaps.
    """
    columns, rows = max(int(np.ceil(width / cell_px)), 1), max(int(np.ceil(height / cell_px)), 1)
    # One ring of cells around the rectangle takes what lies outside: cheaper than selecting what lies inside.
    cell = _ringed(y, top, cell_px, rows)
    cell *= columns + 2
    cell += _ringed(x, left, cell_px, columns)
    buffer = np.full((rows + 2) * (columns + 2), _FAR_M)
    np.minimum.at(buffer, cell.ravel(), np.where(z_m > 0, z_m, _FAR_M).ravel())
    buffer[buffer == _FAR_M] = 0
    inner = buffer.reshape(rows + 2, columns + 2)[1:-1, 1:-1]
    return ZBuffer(z_m=np.ascontiguousarray(inner), left=left, top=top, cell_px=cell_px)


def _ringed(pixels: F32, origin: float, cell_px: float, count: int) -> NDArray[np.intp]:
    """Cell numbers 1..count along one axis, 0 and count + 1 for what lies outside."""
    cells = pixels * np.float32(1 / cell_px)
    cells += np.float32(1 - origin / cell_px)
    np.maximum(cells, np.float32(0), out=cells)
    np.minimum(cells, np.float32(count + 1), out=cells)
    return cells.astype(np.intp)


def without_leaks(z_m: F32) -> F32:
    """Empty the cells in which a far surface shows through a near one, or may.

    Two sensors look past each other: where the face has a hole in depth, background that only the depth sensor sees
    behind the head's edge lands in the hole. A grey-scale opening finds such narrow far patches and leaves contours
    where they are. A far cell that touches a near one is emptied as well: it lies on a contour, where the cell cannot
    tell which of both the pixel shows.
    """
    filled = np.where(z_m == 0, _FAR_M, z_m)
    touching: F32 = cv2.erode(filled, np.ones((3, 3), np.uint8))  # type: ignore[assignment]
    doubtful = filled - touching > tolerance_m(touching)
    if doubtful.any():
        opened = cv2.morphologyEx(filled, cv2.MORPH_OPEN, np.ones((LEAK_CELLS, LEAK_CELLS), np.uint8))
        doubtful |= filled - opened > LEAK_STEP_M
    return np.where(doubtful, np.float32(0), z_m).astype(np.float32, copy=False)


def bridged(z_m: F32) -> F32:
    """Empty cells whose surroundings are one surface get the mean z around them; the rest stays 0.

    Only to know *where to look* in the other planes: a bridged z never enters a depth plane.
    """
    for radius in BRIDGE_RADII:
        empty = z_m == 0
        if not empty.any():
            return z_m
        side = 2 * radius + 1
        kernel = np.ones((side, side), np.uint8)
        share = cv2.boxFilter((~empty).astype(np.float32), -1, (side, side), borderType=cv2.BORDER_CONSTANT)
        total = cv2.boxFilter(z_m, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
        mean: F32 = np.divide(total, np.maximum(share, 1e-6), dtype=np.float32)
        nearest = cv2.erode(np.where(empty, _FAR_M, z_m), kernel)
        farthest = cv2.dilate(z_m, kernel)
        fillable = empty & (share >= MINIMUM_SHARE) & (farthest - nearest < BRIDGE_RANGE * tolerance_m(mean))
        z_m = np.where(fillable, mean, z_m).astype(np.float32, copy=False)
    return z_m


def tolerance_m(z_m: F32) -> F32:
    """How far two depths of one surface may be apart at this distance, metres."""
    allowed: F32 = np.minimum(z_m * z_m, 16) * np.float32(SAME_SURFACE_PER_M2) + np.float32(SAME_SURFACE_M)
    return allowed
