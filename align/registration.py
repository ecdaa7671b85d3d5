"""`Registration`: colour, depth and infrared of one face on one square grid of one sensor's view.

Only the face region is touched, and each plane is resampled once, straight onto the crop's grid: colour and infrared
bilinearly, depth by nearest neighbour (a blend of a nose and a wall is a depth that nothing has).

Into the *colour* view: depth points are splatted into a z-buffer of colour pixels (nearest wins: occlusion); its z
gives each crop pixel a first position in the depth image; the depth found there gives the exact z and position, and
must agree with the z-buffer, else the depth sensor looks past the surface that colour sees and the pixel is invalid.
In the *depth* view depth is at home and colour is sampled where each depth pixel projects to, unless the z-buffer says
that something nearer covers it there.

Where depth has a small hole, its surroundings say where to look in the other planes (`depth_surface.bridged`); the
depth plane itself stays empty there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from align.depth_surface import Mask, bridged, tolerance_m, without_leaks
from align.face_crop import CROP_DEPTH_UNIT_M
from align.planar_projection import F32, Homography, PixelGrid, SmoothRays, homography, to_pixels
from align.rig_geometry import (
    FACE_RELIEF_M,
    FARTHEST_FACE_M,
    NEAREST_FACE_M,
    DepthRegion,
    RegistrationError,
    RigGeometry,
    inside,
)
from capture.frames import FrameSet, Pixels, StreamKind
from capture.rig import Intrinsics

Positions = tuple[F32, F32]
#: What `uint16` holds in units of `CROP_DEPTH_UNIT_M`; farther measurements are not valid in a crop.
FARTHEST_CROP_M = 6.5
#: Stands for "no z" where a number is needed to divide by; always masked.
_NOTHING_M = np.float32(10.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisteredPlanes:
    """One face region on one grid. Shapes, dtypes and masks as in `FaceCrop`.

    `positions`: per stream the pixel (x, y) of that stream's image at which each grid point was looked up, float32 SxS
    each, before rounding; meaningless where the stream's mask is False. For diagnosis and the accuracy benchmark.
    """

    colour: NDArray[np.uint8]
    colour_valid: Mask
    depth: NDArray[np.uint16] | None = None
    depth_valid: Mask | None = None
    infrared: Pixels | None = None
    infrared_valid: Mask | None = None
    positions: dict[StreamKind, Positions] = field(default_factory=dict)


class Registration:
    """Registers face regions of one camera's frame sets. Keeps nothing between frames."""

    def __init__(self, geometry: RigGeometry) -> None:
        self.geometry = geometry

    def register(self, frame_set: FrameSet, grid: PixelGrid, view: StreamKind,
                 distance_m: float | None = None) -> RegisteredPlanes:
        """All planes of `frame_set` on `grid`, a square of pixels of `view` (colour or depth).

        `distance_m`: of the face, where known: narrows the part of the depth image that is looked at. Without depth
        nothing can be moved between views: the colour view then has colour alone (infrared is left out, as if absent).

        Raises:
            RegistrationError: frames that are not the rig's, the depth view without depth, or another view.
        """
        self.geometry.check(frame_set)
        nearest_m = max(distance_m - FACE_RELIEF_M, NEAREST_FACE_M) if distance_m else NEAREST_FACE_M
        if view is StreamKind.COLOUR:
            return self._in_colour_view(frame_set, grid, nearest_m)
        if view is StreamKind.DEPTH and frame_set.depth is not None:
            return self._in_depth_view(frame_set, grid, nearest_m)
        raise RegistrationError(f"set {frame_set.sequence} of {frame_set.source}: cannot register into the {view} view "
                                f"with the planes {', '.join(f.kind for f in frame_set.frames())}")

    def _in_colour_view(self, frame_set: FrameSet, grid: PixelGrid, nearest_m: float) -> RegisteredPlanes:
        geometry = self.geometry
        colour = cut(frame_set.colour.pixels, grid).astype(np.uint8, copy=False)
        intrinsics = geometry.intrinsics(StreamKind.COLOUR)
        columns, rows = grid.columns(), grid.rows()
        colour_valid = inside(columns, intrinsics.width)[None, :] & inside(rows, intrinsics.height)[:, None]
        if frame_set.depth is None:
            return RegisteredPlanes(colour=colour, colour_valid=colour_valid)

        depth_intrinsics = geometry.intrinsics(StreamKind.DEPTH)
        rays = SmoothRays(geometry.rays[StreamKind.COLOUR], grid)
        mapping = homography(rays, geometry.colour_to_depth, depth_intrinsics)
        region = geometry.region_around(
            frame_set, *_lens(*mapping.reach((nearest_m, FARTHEST_FACE_M)), depth_intrinsics))
        square = (grid.left - 0.5, grid.top - 0.5, float(grid.side), float(grid.side))
        buffer = geometry.depth_in_colour.z_buffer(region, *square)
        surface = bridged(without_leaks(buffer.z_m))
        surface[(surface == 0) | (surface > FARTHEST_CROP_M)] = _NOTHING_M
        # Per crop pixel: the z that its cell of the z-buffer expects, and how far depth may be from it.
        across, down = buffer.cells(columns, rows)
        expected, tolerance = (cells[down].take(across, axis=1) for cells in (surface, tolerance_m(surface)))
        known = expected < _NOTHING_M

        u, v = _lens(*mapping.pixels(np.reciprocal(expected)), depth_intrinsics)
        sampled = _nearest(frame_set, u, v)
        z = mapping.z_of(sampled)
        # An unmeasured 0 never agrees: expected z are tens of tolerances away from it.
        agrees = np.abs(z - expected) < tolerance
        depth_valid = known & agrees & colour_valid
        z = np.where(depth_valid, z, expected)
        u, v = _lens(*mapping.pixels(np.reciprocal(z)), depth_intrinsics)
        positions = {StreamKind.DEPTH: (u, v)}
        depth = _as_crop_depth(z, depth_valid)
        if frame_set.infrared is None:
            return RegisteredPlanes(colour=colour, colour_valid=colour_valid, depth=depth, depth_valid=depth_valid,
                                    positions=positions)
        # In a hole the bridged z is good enough to look; a depth that contradicts the z-buffer is another surface.
        usable = known & colour_valid & (agrees | (sampled == 0))
        if geometry.infrared_shares_depth_geometry:
            positions[StreamKind.INFRARED] = u, v
        else:
            positions[StreamKind.INFRARED], usable = self._seen_by_infrared(
                homography(rays, geometry.rig.transform(StreamKind.COLOUR, StreamKind.INFRARED),
                           geometry.intrinsics(StreamKind.INFRARED)), z, usable, region)
        infrared, infrared_valid = self._sampled_infrared(frame_set, positions[StreamKind.INFRARED], usable)
        return RegisteredPlanes(colour=colour, colour_valid=colour_valid, depth=depth, depth_valid=depth_valid,
                                infrared=infrared, infrared_valid=infrared_valid, positions=positions)

    def _in_depth_view(self, frame_set: FrameSet, grid: PixelGrid, nearest_m: float) -> RegisteredPlanes:
        geometry = self.geometry
        depth_intrinsics = geometry.intrinsics(StreamKind.DEPTH)
        colour_intrinsics = geometry.intrinsics(StreamKind.COLOUR)
        columns, rows = grid.columns(), grid.rows()
        in_image = inside(columns, depth_intrinsics.width)[None, :] & inside(rows, depth_intrinsics.height)[:, None]
        region = geometry.region_with_occluders(frame_set, grid, nearest_m)
        own = geometry.region(frame_set, grid.left, grid.top, grid.side, grid.side)
        across = np.clip(np.rint(columns).astype(np.intp) - own.left, 0, own.z_m.shape[1] - 1)
        down = np.clip(np.rint(rows).astype(np.intp) - own.top, 0, own.z_m.shape[0] - 1)
        own_z = own.z_m[down].take(across, axis=1)
        depth_valid = (own_z > 0) & (own_z <= FARTHEST_CROP_M) & in_image
        depth = _as_crop_depth(own_z, depth_valid)

        z = bridged(own.z_m)[down].take(across, axis=1)
        usable = (z > 0) & in_image
        z[~usable] = _NOTHING_M
        rays = SmoothRays(geometry.rays[StreamKind.DEPTH], grid)
        to_colour = homography(rays, geometry.depth_to_colour, colour_intrinsics)
        x, y = _lens(*to_colour.pixels(np.reciprocal(z)), colour_intrinsics)
        colour_z = to_colour.w * z + np.float32(to_colour.t[2])
        buffer = geometry.depth_in_colour.z_buffer(region, *_bounds(x, y, usable))
        buffer.z_m[:] = bridged(without_leaks(buffer.z_m))
        colour_valid = usable & buffer.shows(x, y, colour_z) & _both_inside(x, y, colour_intrinsics)
        colour = cv2.remap(frame_set.colour.pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colour *= colour_valid[:, :, None]

        full = (np.broadcast_to(columns[None, :], z.shape), np.broadcast_to(rows[:, None], z.shape))
        positions: dict[StreamKind, Positions] = {StreamKind.DEPTH: full, StreamKind.COLOUR: (x, y)}
        infrared: Pixels | None = None
        infrared_valid: Mask | None = None
        if frame_set.infrared is not None and geometry.infrared_shares_depth_geometry:
            infrared, infrared_valid = cut(frame_set.infrared.pixels, grid), in_image
            positions[StreamKind.INFRARED] = full
        elif frame_set.infrared is not None:
            to_infrared = homography(rays, geometry.rig.transform(StreamKind.DEPTH, StreamKind.INFRARED),
                                     geometry.intrinsics(StreamKind.INFRARED))
            positions[StreamKind.INFRARED], usable = self._seen_by_infrared(to_infrared, z, usable, region)
            infrared, infrared_valid = self._sampled_infrared(frame_set, positions[StreamKind.INFRARED], usable)
        return RegisteredPlanes(colour=colour.astype(np.uint8, copy=False), colour_valid=colour_valid, depth=depth,
                                depth_valid=depth_valid, infrared=infrared, infrared_valid=infrared_valid,
                                positions=positions)

    def _seen_by_infrared(self, mapping: Homography, view_z: F32, usable: Mask,
                          region: DepthRegion) -> tuple[Positions, Mask]:
        """Where an infrared sensor with a geometry of its own shows these points, and which it shows at all."""
        x, y = _lens(*mapping.pixels(np.reciprocal(view_z)), self.geometry.intrinsics(StreamKind.INFRARED))
        buffer = self.geometry.depth_in_infrared.z_buffer(region, *_bounds(x, y, usable))
        buffer.z_m[:] = bridged(without_leaks(buffer.z_m))
        return (x, y), usable & buffer.shows(x, y, mapping.w * view_z + np.float32(mapping.t[2]))

    def _sampled_infrared(self, frame_set: FrameSet, positions: Positions, usable: Mask) -> tuple[Pixels, Mask]:
        assert frame_set.infrared is not None
        x, y = positions
        intrinsics = self.geometry.intrinsics(StreamKind.INFRARED)
        valid = usable & _both_inside(x, y, intrinsics)
        plane = cv2.remap(frame_set.infrared.pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        plane *= valid
        return plane, valid  # type: ignore[return-value]  # OpenCV's stubs lose the dtype


def cut(pixels: Pixels, grid: PixelGrid) -> Pixels:
    """The grid's square out of its own image, resized; 0 outside the image. Shrinking by two or more averages areas."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = grid.left, grid.top, grid.left + grid.side, grid.top + grid.side
    inner = pixels[max(top, 0):max(min(bottom, height), 0), max(left, 0):max(min(right, width), 0)]
    if inner.size == 0:
        return np.zeros((grid.size, grid.size, *pixels.shape[2:]), pixels.dtype)
    if inner.shape[:2] != (grid.side, grid.side):
        inner = cv2.copyMakeBorder(inner, max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0),
                                   cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    method = cv2.INTER_AREA if grid.scale >= 2 else cv2.INTER_LINEAR
    resized: Pixels = cv2.resize(inner, (grid.size, grid.size), interpolation=method)  # type: ignore[assignment]
    resized[~inside(grid.rows(), height)] = 0
    resized[:, ~inside(grid.columns(), width)] = 0
    return resized


def _lens(x: F32, y: F32, intrinsics: Intrinsics) -> Positions:
    """What `homography` left to do for a distorted sensor: normalised coordinates to pixels."""
    return to_pixels(x, y, intrinsics) if intrinsics.is_distorted else (x, y)


def _nearest(frame_set: FrameSet, u: F32, v: F32) -> F32:
    """The measurement nearest to each pixel position of the depth image, metres; 0 = none."""
    assert frame_set.depth is not None
    assert frame_set.depth_scale_m is not None
    units = cv2.remap(frame_set.depth.pixels, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    metres: F32 = units * np.float32(frame_set.depth_scale_m)
    return metres


def _both_inside(x: F32, y: F32, intrinsics: Intrinsics) -> Mask | bool:
    """Where a pixel position lies in the image; plain True, which is cheaper, where all do (NaN never does)."""
    if (x.min() >= 0 and y.min() >= 0 and x.max() <= intrinsics.width - 1 and y.max() <= intrinsics.height - 1):
        return True
    return inside(x, intrinsics.width) & inside(y, intrinsics.height)


def _bounds(x: F32, y: F32, usable: Mask) -> tuple[float, float, float, float]:
    """Left, top, width, height of the pixels in use, with two pixels around them."""
    if not usable.any():
        return 0.0, 0.0, 1.0, 1.0
    left, right = float(x.min(where=usable, initial=np.inf)), float(x.max(where=usable, initial=-np.inf))
    top, bottom = float(y.min(where=usable, initial=np.inf)), float(y.max(where=usable, initial=-np.inf))
    return left - 2, top - 2, right - left + 4, bottom - top + 4


def _as_crop_depth(z_m: F32, valid: Mask) -> NDArray[np.uint16]:
    """Metres, none above `FARTHEST_CROP_M` where valid, to `CROP_DEPTH_UNIT_M`; 0 where not valid."""
    units = z_m * np.float32(1 / CROP_DEPTH_UNIT_M)
    units += np.float32(0.5)
    units *= valid
    return units.astype(np.uint16)
