"""Points to pixels and back for the distortion models of the RealSense SDK (semantics of its `rsutil.h`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from capture.rig import DistortionModel, Extrinsics, Intrinsics

Floats = NDArray[Any]


def _distort(x: Floats, y: Floats, intrinsics: Intrinsics) -> tuple[Floats, Floats]:
    if not intrinsics.is_distorted:
        return x, y
    k1, k2, p1, p2, k3 = intrinsics.coefficients
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    xr, yr = x * radial, y * radial
    if intrinsics.model is DistortionModel.BROWN_CONRADY:
        tx, ty = x, y
    else:
        tx, ty = xr, yr
    return xr + 2 * p1 * tx * ty + p2 * (r2 + 2 * tx * tx), yr + 2 * p2 * tx * ty + p1 * (r2 + 2 * ty * ty)


def project(points_m: Floats, intrinsics: Intrinsics) -> Floats:
    """Points `[..., 3]` in the camera's frame to pixels `[..., 2]`."""
    x, y = points_m[..., 0] / points_m[..., 2], points_m[..., 1] / points_m[..., 2]
    x, y = _distort(x, y, intrinsics)
    return np.stack((x * intrinsics.fx + intrinsics.cx, y * intrinsics.fy + intrinsics.cy), axis=-1)


def deproject(pixels: Floats, depth_m: Floats, intrinsics: Intrinsics) -> Floats:
    """Pixels `[..., 2]` at z `depth_m[...]` to points `[..., 3]`."""
    target_x = (pixels[..., 0] - intrinsics.cx) / intrinsics.fx
    target_y = (pixels[..., 1] - intrinsics.cy) / intrinsics.fy
    x, y = target_x, target_y
    if intrinsics.is_distorted:
        for _ in range(30):
            dx, dy = _distort(x, y, intrinsics)
            x, y = x + (target_x - dx), y + (target_y - dy)
    return np.stack((x * depth_m, y * depth_m, depth_m), axis=-1)


def transform(extrinsics: Extrinsics, points_m: Floats) -> Floats:
    """Points `[..., 3]` through `p_target = R p_source + t`."""
    return points_m @ extrinsics.matrix.T.astype(points_m.dtype) + extrinsics.translation.astype(points_m.dtype)
