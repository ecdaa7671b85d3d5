"""`View`: one sensor's pinhole in the world. `Rays`: what is cast from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.rig import Extrinsics, Intrinsics
from capture.simulated.meshes import Float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Rays:
    """Rays (N, 3) from one point of the world; a multiple of a direction is a depth along the view's axis."""

    origin: NDArray[np.float64]
    directions: Float32

    @cached_property
    def lengths(self) -> Float32:
        """Length of each direction, (N,)."""
        return np.asarray(np.linalg.norm(self.directions, axis=-1), np.float32)

    @cached_property
    def unit_directions(self) -> Float32:
        """Directions scaled to length 1, (N, 3)."""
        return np.asarray(self.directions / self.lengths[:, None])


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One sensor's pinhole (with Brown-Conrady distortion where its intrinsics say so) and its place in the world."""

    intrinsics: Intrinsics
    from_world: Extrinsics

    @cached_property
    def origin(self) -> NDArray[np.float64]:
        """The pinhole in the world, (3,)."""
        return np.asarray(self.from_world.inverse().translation)

    @cached_property
    def directions(self) -> Float32:
        """World directions (H, W, 3) of all pixels, scaled so that a multiple of one is a depth along the axis."""
        i = self.intrinsics
        column, row = np.meshgrid(np.arange(i.width, dtype=np.float64), np.arange(i.height, dtype=np.float64))
        if i.is_distorted:
            pixels = np.stack([column, row], axis=-1).reshape(-1, 1, 2)
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-12)
            plane = cv2.undistortPointsIter(pixels, i.matrix, np.array(i.coefficients), np.eye(3), np.eye(3), criteria)
            x, y = plane[:, 0, 0].reshape(column.shape), plane[:, 0, 1].reshape(column.shape)
        else:
            x, y = (column - i.cx) / i.fx, (row - i.cy) / i.fy
        local = np.empty((*x.shape, 3))
        local[..., 0], local[..., 1], local[..., 2] = x, y, 1.0
        return np.asarray(local @ self.from_world.matrix, np.float32)  # rows: R^T d

    @cached_property
    def rays(self) -> Rays:
        """One ray through the centre of every pixel, row by row."""
        return Rays(origin=self.origin, directions=self.directions.reshape(-1, 3))

    def _step(self, pixels: NDArray[np.intp], axis: int) -> Float32:
        """How a direction changes by one row (`axis` 0) or one column (1) at the given pixels, (N, 3)."""
        before, after = (list(np.unravel_index(pixels, self.directions.shape[:2])) for _ in range(2))
        before[axis] = np.maximum(before[axis] - 1, 0)
        after[axis] = np.minimum(after[axis] + 1, self.directions.shape[axis] - 1)
        apart = (after[axis] - before[axis]).astype(np.float32)[:, None]
        return np.asarray((self.directions[tuple(after)] - self.directions[tuple(before)]) / apart)

    def rays_within(self, pixels: NDArray[np.intp]) -> Rays:
        """Four rays inside each of the given pixels (flat indices), pixel by pixel: a rotated square grid."""
        across, down = self._step(pixels, 1), self._step(pixels, 0)
        middle = self.directions.reshape(-1, 3)[pixels]
        offsets = np.array([[-0.125, -0.375], [0.375, -0.125], [0.125, 0.375], [-0.375, 0.125]], np.float32)
        spread = middle[:, None] + offsets[None, :, :1] * across[:, None] + offsets[None, :, 1:] * down[:, None]
        return Rays(origin=self.origin, directions=np.ascontiguousarray(spread.reshape(-1, 3), np.float32))

    def points(self, world: NDArray[np.floating]) -> NDArray[np.float64]:
        """World points (N, 3) in this view's frame."""
        return np.asarray(world @ self.from_world.matrix.T + self.from_world.translation)

    def project(self, world: NDArray[np.floating]) -> NDArray[np.float64]:
        """World points (N, 3) to pixels (N, 2); NaN behind the pinhole."""
        p, i = self.points(world), self.intrinsics
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = p[:, 0] / p[:, 2], p[:, 1] / p[:, 2]
            if i.is_distorted:
                k1, k2, p1, p2, k3 = i.coefficients
                r2 = x * x + y * y
                radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
                x, y = (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                        y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y))
            pixels = np.stack([x * i.fx + i.cx, y * i.fy + i.cy], axis=1)
        pixels[~(p[:, 2] > 1e-6)] = np.nan
        return pixels

    def mark(self, mask: NDArray[np.uint8], world: NDArray[np.floating]) -> None:
        """Sets `mask` (H, W) to 1 wherever the convex hull of world points (N, 3) may show; if one lies behind the
        pinhole, everywhere."""
        pixels = self.project(world)
        if not np.isfinite(pixels).all() or np.abs(pixels).max() > 30_000:
            mask[:] = 1
            return
        hull = cv2.convexHull(np.rint(pixels).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 1)
        # The outline, 5 px thick, makes up for rounding and for straight edges that distortion bends.
        cv2.polylines(mask, [hull], True, 1, 5)
