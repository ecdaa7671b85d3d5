"""Projection on planes of numbers: the per-frame twin of `capture.projection`, which defines the semantics.

Registration moves some 50 000 points a plane and frame, so x, y and z are kept as separate float32 arrays (no
`[..., 3]` temporaries), and what depends on the rig alone is computed once: a *ray* is a point at z = 1 m. A test holds
this file to `capture.projection`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capture.projection import deproject
from capture.rig import DistortionModel, Extrinsics, Intrinsics

F32 = NDArray[np.float32]
#: Points a side from which the rays of a grid are interpolated.
KNOTS = 5
_KNOT_SHARES = np.linspace(0.0, 1.0, KNOTS, dtype=np.float32)
#: Off-diagonal terms of a local lens below this move the edge of a face (0.15 off its middle) by less than 0.3 px.
NEGLIGIBLE_SHEAR_PX = 2.0


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
            self._table = self._inverted(np.arange(intrinsics.width), np.arange(intrinsics.height))

    def at(self, columns: F32, rows: F32) -> Rays:
        """Rays of the pixels (columns[c], rows[r]), rising, fractional or beyond the image if need be."""
        if self._table is None:
            i = self.intrinsics
            return Rays(((columns - i.cx) / i.fx).astype(np.float32)[None, :],
                        ((rows - i.cy) / i.fy).astype(np.float32)[:, None])
        if not (0 <= columns[0] <= columns[-1] <= self.intrinsics.width - 1
                and 0 <= rows[0] <= rows[-1] <= self.intrinsics.height - 1):
            return self._inverted(columns, rows)  # beyond the image: slower, a few points only
        first, top = columns.astype(np.intp), rows.astype(np.intp)
        last = np.minimum(first + 1, self.intrinsics.width - 1)
        bottom = np.minimum(top + 1, self.intrinsics.height - 1)
        right, low = (columns - first)[None, :], (rows - top)[:, None]
        x, y = ((upper[:, first] * (1 - right) + upper[:, last] * right) * (1 - low)
                + (lower[:, first] * (1 - right) + lower[:, last] * right) * low
                for upper, lower in ((self._table.x[top], self._table.x[bottom]),
                                     (self._table.y[top], self._table.y[bottom])))
        return Rays(x.astype(np.float32, copy=False), y.astype(np.float32, copy=False))

    def _inverted(self, columns: NDArray[Any], rows: NDArray[Any]) -> Rays:
        """Rays of any grid of pixels; NaN where the lens has no inverse."""
        i = self.intrinsics
        # The SDK declines to invert the modified model, but its forward polynomial is that of the inverse model, and
        # inverting that numerically is well defined.
        invertible = (replace(i, model=DistortionModel.INVERSE_BROWN_CONRADY)
                      if i.model is DistortionModel.MODIFIED_BROWN_CONRADY else i)
        pixels = np.stack(np.meshgrid(columns.astype(np.float64), rows.astype(np.float64)), axis=-1)
        points = deproject(pixels, np.ones(pixels.shape[:2]), invertible)
        return Rays(np.ascontiguousarray(points[..., 0], dtype=np.float32),
                    np.ascontiguousarray(points[..., 1], dtype=np.float32))

    def whole(self) -> Rays:
        """Rays of the whole image."""
        if self._table is not None:
            return self._table
        i = self.intrinsics
        return self.at(np.arange(i.width, dtype=np.float32), np.arange(i.height, dtype=np.float32))


class SmoothRays:
    """Rays of a whole grid from few: over a face crop the lens is a polynomial of low degree.

    `knots` are the exact rays at 5 x 5 points of the grid's square, edges included; anything linear in the rays is done
    on the knots, and `spread` gives all size x size values: two small matrix products (the values at the grid points of
    the fourth-degree polynomial through the knots). Off the exact rays of a D455-like lens by less than
    0.1 px over a crop of two thirds of the image, 0.01 px over a face's (tested).
    """

    def __init__(self, table: RayTable, grid: PixelGrid) -> None:
        edges = _KNOT_SHARES * np.float32(grid.side) - np.float32(0.5)
        self.knots = table.at(edges + np.float32(grid.left), edges + np.float32(grid.top))
        self._basis = _lagrange_basis(grid.size)

    def spread(self, knots: F32) -> F32:
        return (self._basis @ knots @ self._basis.T).astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def _lagrange_basis(size: int) -> F32:
    """(size, KNOTS): Lagrange polynomials over KNOTS even points on [0, 1] at the `size` pixel centres between."""
    at, nodes = (np.arange(size) + 0.5) / size, np.linspace(0.0, 1.0, KNOTS)
    basis = np.ones((size, KNOTS))
    for k in range(KNOTS):
        for other in range(KNOTS):
            if other != k:
                basis[:, k] *= (at - nodes[other]) / (nodes[k] - nodes[other])
    return basis.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Homography:
    """From a grid's rays and z to another sensor's pixels: (u + tu/z, v + tv/z) / (w + tw/z).

    The rotation and the camera matrix are in u, v, w already, the translation in t. `knots`: u, v, w at the knots.
    """

    u: F32
    v: F32
    w: F32
    t: tuple[float, float, float]
    knots: tuple[F32, F32, F32]

    def reach(self, distances_m: tuple[float, ...]) -> tuple[F32, F32]:
        """Pixels of the grid's knots, its edges among them, at each of these z: (distances, KNOTS, KNOTS) each."""
        q = np.reciprocal(np.array(distances_m, np.float32))[:, None, None]
        u, v, w = (plane + np.float32(t) * q for plane, t in zip(self.knots, self.t, strict=True))
        across: F32 = np.divide(u, w, dtype=np.float32)
        down: F32 = np.divide(v, w, dtype=np.float32)
        return across, down

    def z_of(self, target_z: F32) -> F32:
        """z along the grid's rays at which they reach `target_z` of the target sensor."""
        z: F32 = target_z - np.float32(self.t[2])
        z /= self.w
        return z

    def pixels(self, inverse_z: F32) -> tuple[F32, F32]:
        tu, tv, tw = (np.float32(t) for t in self.t)
        scale = inverse_z * tw
        scale += self.w
        np.reciprocal(scale, out=scale)
        x = inverse_z * tu
        x += self.u
        x *= scale
        y = inverse_z * tv
        y += self.v
        y *= scale
        return x, y


def homography(rays: SmoothRays, move: Extrinsics, intrinsics: Intrinsics) -> Homography:
    """The map from a grid's rays and z to pixels of an *undistorted* sensor; of a distorted one to x/z, y/z."""
    K = np.eye(3) if intrinsics.is_distorted else intrinsics.matrix
    M = (K @ move.matrix).astype(np.float32)
    u, v, w = (M[k, 0] * rays.knots.x + (M[k, 1] * rays.knots.y + M[k, 2]) for k in range(3))
    tu, tv, tw = K @ move.translation
    return Homography(rays.spread(u), rays.spread(v), rays.spread(w), (float(tu), float(tv), float(tw)), (u, v, w))


@dataclass(frozen=True, kw_only=True)
class LocalLens:
    """A lens around one point: pixel = offset + matrix (x/z, y/z). Exact without distortion, first order with."""

    xx: float
    xy: float
    yx: float
    yy: float
    x0: float
    y0: float

    @classmethod
    def around(cls, intrinsics: Intrinsics, x: float, y: float) -> LocalLens:
        """Linearised at the normalised coordinates (x, y) by central differences over about a face's width."""
        if not intrinsics.is_distorted:
            return cls(xx=intrinsics.fx, xy=0.0, yx=0.0, yy=intrinsics.fy, x0=intrinsics.cx, y0=intrinsics.cy)
        step = 0.05
        px, py = to_pixels(np.array([x, x + step, x - step, x, x], np.float32),
                           np.array([y, y, y, y + step, y - step], np.float32), intrinsics)
        xx, yx = float(px[1] - px[2]) / (2 * step), float(py[1] - py[2]) / (2 * step)
        xy, yy = float(px[3] - px[4]) / (2 * step), float(py[3] - py[4]) / (2 * step)
        if max(abs(xy), abs(yx)) < NEGLIGIBLE_SHEAR_PX:
            xy = yx = 0.0
        return cls(xx=xx, xy=xy, yx=yx, yy=yy, x0=float(px[0]) - xx * x - xy * y, y0=float(py[0]) - yx * x - yy * y)

    def to_pixels(self, x: F32, y: F32) -> tuple[F32, F32]:
        across, down = x * np.float32(self.xx), y * np.float32(self.yy)
        if self.xy or self.yx:
            across += y * np.float32(self.xy)
            down += x * np.float32(self.yx)
        across += np.float32(self.x0)
        down += np.float32(self.y0)
        return across, down


def rotated(rays: Rays, transform: Extrinsics) -> tuple[F32, F32, F32]:
    """R times the rays: three float32 planes of the full shape."""
    R = transform.matrix.astype(np.float32)
    x, y, z = (R[k, 0] * rays.x + (R[k, 1] * rays.y + R[k, 2]) for k in range(3))
    return x, y, z


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
