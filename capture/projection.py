"""Points to pixels and back for the four distortion models of the RealSense SDK, vectorised.

The semantics are those of `rs2_project_point_to_pixel`, `rs2_deproject_pixel_to_point` and
`rs2_transform_point_to_point` (librealsense, `rsutil.h`), so that a rig read from a device means here what it means
there. Where we differ on purpose: a point at or behind the camera (z <= 0) projects to NaN, never to a plausible
mirrored pixel; a pixel whose distortion cannot be inverted (the steps run away, as in the corners of a lens with
coefficients near 0.4) deprojects to NaN, never to a point that may be 65 px off; and deprojecting a
`MODIFIED_BROWN_CONRADY` pixel is refused instead of ignoring the coefficients.

Results keep the floating type of the input: float32 in, float32 out; everything else is computed in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from capture.rig import DistortionModel, Extrinsics, Intrinsics

#: The SDK inverts both models by ten fixed-point steps. With coefficients of real lenses they settle in four to six.
MAX_INVERSION_STEPS = 10
#: A pixel that the last step still moved by more than this has no trustworthy inverse.
LOST_PX = 0.5


class ProjectionError(ValueError):
    """Arrays of the wrong shape, or a model that cannot be inverted; the message says which."""


def project(points_m: NDArray[Any], intrinsics: Intrinsics) -> NDArray[Any]:
    """Pixels at which points of the sensor's own frame appear.

    Args:
        points_m: (..., 3), metres, x right, y down, z forward.
        intrinsics: of that sensor. `BROWN_CONRADY` applies the tangential terms to the undistorted coordinates (as
            OpenCV does), `MODIFIED_` and `INVERSE_BROWN_CONRADY` to the radially distorted ones.

    Returns:
        (..., 2) pixels (u, v), pixel centres at integers; NaN where z is not positive. May lie outside the image.

    Raises:
        ProjectionError: the last axis does not have 3 entries.
    """
    points = _as_floats(points_m, 3, "points")
    z = points[..., 2]
    in_front = np.where(z > 0, z, np.nan).astype(points.dtype, copy=False)
    x, y = points[..., 0] / in_front, points[..., 1] / in_front
    if intrinsics.is_distorted:
        x, y = _distort(x, y, intrinsics)
    pixels = np.empty((*points.shape[:-1], 2), dtype=points.dtype)
    pixels[..., 0] = x * intrinsics.fx + intrinsics.cx
    pixels[..., 1] = y * intrinsics.fy + intrinsics.cy
    return pixels


def deproject(pixels: NDArray[Any], depth_m: NDArray[Any] | float, intrinsics: Intrinsics) -> NDArray[Any]:
    """Points of the sensor's own frame seen at pixels with known depth.

    Args:
        pixels: (..., 2) pixels (u, v). depth_m: broadcastable to (...), metres along z (not along the ray).
        intrinsics: of that sensor.

    Returns:
        (..., 3) metres. A depth of 0 (no measurement) gives the origin, as in the SDK: mask such pixels before. NaN
        in x and y where the distortion cannot be inverted.

    Raises:
        ProjectionError: wrong shapes, or a `MODIFIED_BROWN_CONRADY` model with coefficients, which the SDK cannot
            invert either (it silently ignores them: 5 px of error with those of a D455).
    """
    uv = _as_floats(pixels, 2, "pixels")
    if intrinsics.is_distorted and intrinsics.model is DistortionModel.MODIFIED_BROWN_CONRADY:
        raise ProjectionError(
            f"model {intrinsics.model} with coefficients {intrinsics.coefficients} cannot be deprojected; deproject "
            "from another stream of the rig, or calibrate this one to brown_conrady")
    x = (uv[..., 0] - uv.dtype.type(intrinsics.cx)) / uv.dtype.type(intrinsics.fx)
    y = (uv[..., 1] - uv.dtype.type(intrinsics.cy)) / uv.dtype.type(intrinsics.fy)
    if intrinsics.is_distorted:
        x, y = _undistort(x, y, intrinsics)
    try:
        depth = np.broadcast_to(np.asarray(depth_m, dtype=uv.dtype), x.shape)
    except ValueError:
        raise ProjectionError(f"depth of shape {np.shape(depth_m)} does not fit pixels of shape {uv.shape}") from None
    points = np.empty((*x.shape, 3), dtype=uv.dtype)
    points[..., 0] = x * depth
    points[..., 1] = y * depth
    points[..., 2] = depth
    return points


def transform(extrinsics: Extrinsics, points_m: NDArray[Any]) -> NDArray[Any]:
    """Move points (..., 3), metres, from the source frame of `extrinsics` to its target frame.

    Raises:
        ProjectionError: the last axis does not have 3 entries.
    """
    points = _as_floats(points_m, 3, "points")
    rotation = extrinsics.matrix.astype(points.dtype, copy=False)
    moved: NDArray[Any] = points @ rotation.T + extrinsics.translation.astype(points.dtype, copy=False)
    return moved


def _as_floats(values: NDArray[Any], last_axis: int, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim == 0 or array.shape[-1] != last_axis:
        raise ProjectionError(f"{name} of shape {array.shape}, expected (..., {last_axis})")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _radial(r2: NDArray[Any], intrinsics: Intrinsics) -> NDArray[Any]:
    k1, k2, _, _, k3 = intrinsics.coefficients
    gain: NDArray[Any] = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return gain


def _distort(x: NDArray[Any], y: NDArray[Any], intrinsics: Intrinsics) -> tuple[NDArray[Any], NDArray[Any]]:
    _, _, p1, p2, _ = intrinsics.coefficients
    r2 = x * x + y * y
    gain = _radial(r2, intrinsics)
    radial_x, radial_y = x * gain, y * gain
    if intrinsics.model is not DistortionModel.BROWN_CONRADY:
        x, y = radial_x, radial_y
    xy = x * y
    return (radial_x + 2 * p1 * xy + p2 * (r2 + 2 * x * x),
            radial_y + 2 * p2 * xy + p1 * (r2 + 2 * y * y))


def _undistort(x0: NDArray[Any], y0: NDArray[Any], intrinsics: Intrinsics) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fixed-point inversion as in the SDK, left early once a step moves no pixel by more than the type resolves."""
    _, _, p1, p2, _ = intrinsics.coefficients
    settled = 4 * float(np.finfo(x0.dtype).eps)
    x, y = x0, y0
    moved = np.zeros_like(x0)
    # Where the model has no inverse the steps run away: those pixels overflow here and become NaN below.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(MAX_INVERSION_STEPS):
            r2 = x * x + y * y
            gain = _radial(r2, intrinsics)
            # The inverse model takes its tangential terms from the radially distorted coordinates, as when projecting.
            tx, ty = (x, y) if intrinsics.model is DistortionModel.BROWN_CONRADY else (x * gain, y * gain)
            txy = tx * ty
            next_x = (x0 - (2 * p1 * txy + p2 * (r2 + 2 * tx * tx))) / gain
            next_y = (y0 - (2 * p2 * txy + p1 * (r2 + 2 * ty * ty))) / gain
            moved = np.maximum(np.abs(next_x - x), np.abs(next_y - y))
            x, y = next_x, next_y
            if not np.max(moved, initial=0) > settled:
                break
    lost = ~(moved * max(intrinsics.fx, intrinsics.fy) <= LOST_PX)
    if lost.any():
        x, y = np.where(lost, x.dtype.type(np.nan), x), np.where(lost, y.dtype.type(np.nan), y)
    return x, y
