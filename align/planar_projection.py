"""Projection on planes of numbers: the per-frame twin of `capture.projection`, which defines the semantics.

Registration moves some 50 000 points a plane and frame, so x, y and z are kept as separate float32 arrays (no
`[..., 3]` temporaries), and what depends on the rig alone is computed once: a *ray* is a point at z = 1 m. A test holds
this file to `capture.projection`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.projection import deproject
from capture.rig import DistortionModel, Extrinsics, Intrinsics

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Rays:
    """x and y of rays (z = 1) as two float32 arrays that broadcast to one shape (of an undistorted grid: a row and a
    column, which makes all that follows cheaper)."""

    x: F32
    y: F32


@dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """`size` x `size` sample points over a square of `side` view pixels whose first pixel is (left, top).

    Pixel centres are integers on both sides: column c lies at `left + (c + 0.5) * side / size - 0.5`.
    """

    left: int
    top: int
    side: int
    size: int

    @property
    def scale(self) -> float:
        """View pixels per crop pixel."""
        return self.side / self.size

    def columns(self) -> F32:
        return ((np.arange(self.size) + 0.5) * self.scale - 0.5 + self.left).astype(np.float32)

    def rows(self) -> F32:
        return ((np.arange(self.size) + 0.5) * self.scale - 0.5 + self.top).astype(np.float32)


class RayTable:
    """Rays of every pixel of one stream, inverted once per rig when the lens distorts."""

    def __init__(self, intrinsics: Intrinsics) -> None:
        self.intrinsics = intrinsics
        self._table: Rays | None = None
        if intrinsics.is_distorted:
            # The SDK declines to invert the modified model, but its forward polynomial is that of the inverse model,
            # and inverting that numerically is well defined.
            invertible = (replace(intrinsics, model=DistortionModel.INVERSE_BROWN_CONRADY)
                          if intrinsics.model is DistortionModel.MODIFIED_BROWN_CONRADY else intrinsics)
            columns, rows = np.meshgrid(np.arange(intrinsics.width, dtype=np.float64),
                                        np.arange(intrinsics.height, dtype=np.float64))
            points = deproject(np.stack((columns, rows), axis=-1), np.ones(columns.shape), invertible)
            self._table = Rays(np.ascontiguousarray(points[..., 0], dtype=np.float32),
                               np.ascontiguousarray(points[..., 1], dtype=np.float32))

    def at(self, columns: F32, rows: F32) -> Rays:
        """Rays of the pixels (columns[c], rows[r]), which may be fractional; beyond the image the border's ray."""
        if self._table is None:
            i = self.intrinsics
            return Rays(((columns - i.cx) / i.fx).astype(np.float32)[None, :],
                        ((rows - i.cy) / i.fy).astype(np.float32)[:, None])
        across, down = np.meshgrid(columns, rows)
        x = cv2.remap(self._table.x, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        y = cv2.remap(self._table.y, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return Rays(x, y)  # type: ignore[arg-type]

    def whole(self) -> Rays:
        """Rays of the whole image."""
        if self._table is not None:
            return self._table
        i = self.intrinsics
        return self.at(np.arange(i.width, dtype=np.float32), np.arange(i.height, dtype=np.float32))


def rotated(rays: Rays, transform: Extrinsics) -> tuple[F32, F32, F32]:
    """R times the rays: three float32 planes of the full shape."""
    R = transform.matrix.astype(np.float32)
    planes = tuple(R[k, 0] * rays.x + (R[k, 1] * rays.y + R[k, 2]) for k in range(3))
    return planes[0], planes[1], planes[2]


def distorted(x: F32, y: F32, intrinsics: Intrinsics) -> tuple[F32, F32]:
    """Normalised coordinates (x/z, y/z) as the lens shows them: librealsense `rs2_project_point_to_pixel`."""
    if not intrinsics.is_distorted:
        return x, y
    k1, k2, p1, p2, k3 = (np.float32(c) for c in intrinsics.coefficients)
    r2 = x * x + y * y
    radial = ((k3 * r2 + k2) * r2 + k1) * r2 + np.float32(1)
    x_radial, y_radial = x * radial, y * radial
    # Brown-Conrady takes its tangential term from the undistorted point, the two others from the radially distorted.
    tx, ty = (x, y) if intrinsics.model is DistortionModel.BROWN_CONRADY else (x_radial, y_radial)
    product = np.float32(2) * tx * ty
    return (x_radial + p1 * product + p2 * (r2 + np.float32(2) * tx * tx),
            y_radial + p2 * product + p1 * (r2 + np.float32(2) * ty * ty))


def to_pixels(x: F32, y: F32, intrinsics: Intrinsics, *, left: float = 0.0, top: float = 0.0) -> tuple[F32, F32]:
    """Normalised coordinates (x/z, y/z) to pixels, counted from (left, top)."""
    x, y = distorted(x, y, intrinsics)
    return (x * np.float32(intrinsics.fx) + np.float32(intrinsics.cx - left),
            y * np.float32(intrinsics.fy) + np.float32(intrinsics.cy - top))


def rays_of_points(turned: tuple[F32, F32, F32], move: Extrinsics, z_m: F32) -> Rays:
    """Rays, in the target's frame, of points at z `z_m` of the source, whose source rays R has `turned` already.

    The point is `turned * z + t`; divided by z, so that one reciprocal serves three coordinates.
    """
    x, y, z = (np.float32(t) for t in move.translation_m)
    inverse: F32 = np.reciprocal(z_m)
    forward: F32 = np.reciprocal(turned[2] + z * inverse)
    return Rays((turned[0] + x * inverse) * forward, (turned[1] + y * inverse) * forward)
