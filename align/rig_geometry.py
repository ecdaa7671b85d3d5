"""`RigGeometry`: what registration needs of a rig, computed once: ray tables, and depth as the other sensors see it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from align.depth_surface import ZBuffer, splat
from align.planar_projection import F32, LocalLens, PixelGrid, Rays, RayTable, rays_of_points, rotated, to_pixels
from capture.frames import FrameSet, StreamKind
from capture.rig import Extrinsics, Intrinsics, Rig

#: Distances at which a face is expected, metres: bounds the region of the depth image that can show it.
NEAREST_FACE_M, FARTHEST_FACE_M = 0.2, 3.0
#: A face reaches at most this far before the median of its middle (a tilted head's chin, a raised hand).
FACE_RELIEF_M = 0.12
#: z-buffer cells are wider than the depth pixels' spacing in the target by this factor, so that slopes leave few gaps.
CELL_STRETCH = 1.5
#: The median of fewer measurements than this is not a distance.
FEWEST_MEASUREMENTS = 10

Box = tuple[float, float, float, float]  # left, top, width, height in pixels


class RegistrationError(ValueError):
    """Planes and rig do not belong together; the message names the stream and the two values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthRegion:
    """A rectangle of the depth image in metres (0 = not measured), and its offset in pixels."""

    z_m: F32
    left: int
    top: int

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.z_m.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class DepthSeenFrom:
    """All depth rays turned into another sensor's frame."""

    def __init__(self, rig: Rig, depth_rays: RayTable, target: StreamKind) -> None:
        transform = rig.transform(StreamKind.DEPTH, target)
        depth = rig.intrinsics[StreamKind.DEPTH]
        self.intrinsics = rig.intrinsics[target]
        self.x, self.y, self.z = rotated(depth_rays.whole(), transform)
        self.translation = transform.translation.astype(np.float32)
        self.cell_px = max(1.0, CELL_STRETCH * max(self.intrinsics.fx / depth.fx, self.intrinsics.fy / depth.fy))

    def z_buffer(self, region: DepthRegion, left: float, top: float, width: float, height: float) -> ZBuffer:
        """What of the region falls into a rectangle of the target's image, nearest first.

        A distorted lens is linearised around the rectangle's middle: within a face crop that is off by less than a
        pixel, and a z-buffer only says roughly where and which surface.
        """
        i = self.intrinsics
        # Where the middle lies to first order; the lens bends it by a few pixels, which changes the slope by nothing.
        lens = LocalLens.around(i, (left + width / 2 - i.cx) / i.fx, (top + height / 2 - i.cy) / i.fy)
        x, y, z = self.pixels(region, lens)
        return splat(x, y, z, left=left, top=top, width=width, height=height, cell_px=self.cell_px)

    def pixels(self, region: DepthRegion, lens: LocalLens | None = None) -> tuple[F32, F32, F32]:
        """Pixel x, y and z in the target of each depth pixel of the region; z is 0 (and x, y junk) where unmeasured."""
        window, t = region.window, self.translation
        q = np.maximum(region.z_m, np.float32(1e-3))  # no division by an unmeasured 0
        np.reciprocal(q, out=q)
        z = q * t[2]
        z += self.z[window]
        inverse = np.reciprocal(z)
        z *= region.z_m
        x = q * t[0]
        x += self.x[window]
        x *= inverse
        q *= t[1]
        q += self.y[window]
        q *= inverse
        x, y = to_pixels(x, q, self.intrinsics) if lens is None else lens.to_pixels(x, q)
        return x, y, z


class RigGeometry:
    """Derived from one `Rig`, valid as long as it; safe to share."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.rays = {kind: RayTable(intrinsics) for kind, intrinsics in rig.intrinsics.items()}

    def intrinsics(self, kind: StreamKind) -> Intrinsics:
        return self.rig.intrinsics[kind]

    @cached_property
    def depth_in_colour(self) -> DepthSeenFrom:
        return DepthSeenFrom(self.rig, self.rays[StreamKind.DEPTH], StreamKind.COLOUR)

    @cached_property
    def depth_in_infrared(self) -> DepthSeenFrom:
        return DepthSeenFrom(self.rig, self.rays[StreamKind.DEPTH], StreamKind.INFRARED)

    @cached_property
    def colour_to_depth(self) -> Extrinsics:
        return self.rig.transform(StreamKind.COLOUR, StreamKind.DEPTH)

    @cached_property
    def depth_to_colour(self) -> Extrinsics:
        return self.rig.transform(StreamKind.DEPTH, StreamKind.COLOUR)

    @cached_property
    def _longest_baseline_m(self) -> float:
        others = [kind for kind in self.rig.intrinsics if kind is not StreamKind.DEPTH]
        return max(float(np.linalg.norm(self.rig.transform(StreamKind.DEPTH, kind).translation)) for kind in others)

    @cached_property
    def infrared_shares_depth_geometry(self) -> bool:
        """True where infrared and depth are pixel-aligned (RealSense: depth is computed in the left imager's view)."""
        if not {StreamKind.DEPTH, StreamKind.INFRARED} <= set(self.rig.intrinsics):
            return False
        between = self.rig.transform(StreamKind.INFRARED, StreamKind.DEPTH)
        still = np.abs(between.matrix - np.eye(3)).max() < 1e-6 and np.abs(between.translation).max() < 1e-6
        return bool(still) and self.intrinsics(StreamKind.INFRARED) == self.intrinsics(StreamKind.DEPTH)

    def check(self, frame_set: FrameSet) -> None:
        """Raise `RegistrationError` where a frame is of a stream or a resolution that the rig does not describe."""
        for frame in frame_set.frames():
            intrinsics = self.rig.intrinsics.get(frame.kind)
            if intrinsics is None:
                raise RegistrationError(f"a {frame.kind} frame, but the rig of {self.rig.serial} has only "
                                        f"{', '.join(self.rig.intrinsics)}")
            if (frame.width, frame.height) != (intrinsics.width, intrinsics.height):
                raise RegistrationError(
                    f"{frame.kind} frame is {frame.width}x{frame.height}, the rig of {self.rig.serial} is for "
                    f"{intrinsics.width}x{intrinsics.height}; use the rig of this stream mode")

    def region(self, frame_set: FrameSet, left: int, top: int, width: int, height: int) -> DepthRegion:
        """A part of the depth frame, clipped to the image, at least 1x1 pixels."""
        assert frame_set.depth is not None
        assert frame_set.depth_scale_m is not None
        image = frame_set.depth
        first_column, first_row = min(max(left, 0), image.width - 1), min(max(top, 0), image.height - 1)
        last_column = min(max(left + width, first_column + 1), image.width)
        last_row = min(max(top + height, first_row + 1), image.height)
        raw = image.pixels[first_row:last_row, first_column:last_column]
        return DepthRegion(z_m=raw * np.float32(frame_set.depth_scale_m), left=first_column, top=first_row)

    def region_under_colour(self, frame_set: FrameSet, box: Box, nearest_m: float = NEAREST_FACE_M) -> DepthRegion:
        """The part of the depth frame that can show what a colour rectangle shows, at any distance from `nearest_m`."""
        left, top, width, height = box
        edges = self.rays[StreamKind.COLOUR].at(np.array([left, left + width / 2, left + width], np.float32),
                                                np.array([top, top + height / 2, top + height], np.float32))
        turned = rotated(edges, self.colour_to_depth)
        z = np.array([nearest_m, FARTHEST_FACE_M], np.float32)[:, None, None]
        rays = rays_of_points(turned, self.colour_to_depth, z)
        return self.region_around(frame_set, *to_pixels(rays.x, rays.y, self.intrinsics(StreamKind.DEPTH)))

    def region_around(self, frame_set: FrameSet, x: F32, y: F32) -> DepthRegion:
        """The part of the depth frame around these pixels, with a small margin; positions that are NaN do not count."""
        x, y = x[np.isfinite(x)], y[np.isfinite(y)]  # a strong lens may have no inverse in its corners
        if not x.size or not y.size:
            return self.region(frame_set, 0, 0, 1, 1)
        first_column, first_row = int(x.min()) - 3, int(y.min()) - 3
        return self.region(frame_set, first_column, first_row, int(x.max()) + 4 - first_column,
                           int(y.max()) + 4 - first_row)

    def region_with_occluders(self, frame_set: FrameSet, grid: PixelGrid, nearest_m: float) -> DepthRegion:
        """The part of the depth frame under a depth grid, and around it what may hide it from another sensor."""
        margin = int(np.ceil(self.intrinsics(StreamKind.DEPTH).fx * self._longest_baseline_m
                             * (1 / nearest_m - 1 / FARTHEST_FACE_M)))
        margin += 2
        return self.region(frame_set, grid.left - margin, grid.top - margin, grid.side + 2 * margin,
                           grid.side + 2 * margin)

    def distance_m(self, frame_set: FrameSet, box: Box, image: StreamKind) -> float | None:
        """Median z, in the frame of `image`, of what the middle half of a box shows; None where too little is measured.

        For infrared of a geometry of its own the box is looked up in depth as if at infinity: near enough for a median.
        """
        if frame_set.depth is None:
            return None
        left, top, width, height = box[0] + box[2] / 4, box[1] + box[3] / 4, box[2] / 2, box[3] / 2
        if image is StreamKind.COLOUR:
            x, y, z = self.depth_in_colour.pixels(self.region_under_colour(frame_set, (left, top, width, height)))
            values = z[(z > 0) & (x >= left) & (x < left + width) & (y >= top) & (y < top + height)]
        else:
            depth, own = self.intrinsics(StreamKind.DEPTH), self.intrinsics(image)
            scale_x, scale_y = depth.fx / own.fx, depth.fy / own.fy
            region = self.region(frame_set, round((left - own.cx) * scale_x + depth.cx),
                                 round((top - own.cy) * scale_y + depth.cy),
                                 max(round(width * scale_x), 1), max(round(height * scale_y), 1))
            values = region.z_m[region.z_m > 0]
        return float(np.median(values)) if values.size >= FEWEST_MEASUREMENTS else None

    def moved_box(self, box: Box, source: StreamKind, target: StreamKind, distance_m: float) -> Box:
        """A box of one sensor's image, at z = `distance_m` of that sensor, as another sensor sees it."""
        if source is target:
            return box
        left, top, width, height = box
        move = self.rig.transform(source, target)
        corners: Rays = self.rays[source].at(np.array([left, left + width], np.float32),
                                             np.array([top, top + height], np.float32))
        rays = rays_of_points(rotated(corners, move), move, np.full((2, 2), distance_m, np.float32))
        x, y = to_pixels(rays.x, rays.y, self.intrinsics(target))
        return float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))


def inside(pixels: F32, count: int) -> NDArray[np.bool_]:
    """Where a pixel coordinate lies within an image of `count` pixels, up to the outer edges of its border pixels."""
    within: NDArray[np.bool_] = (pixels >= -0.5) & (pixels <= count - 0.5)
    return within
