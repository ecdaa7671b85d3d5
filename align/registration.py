"""`Registration`: colour, depth and infrared of one face on one square grid of one sensor's view.

Only the face region is touched, and each plane is resampled once, straight onto the crop's grid: colour and infrared
bilinearly, depth by nearest neighbour (a blend of a nose and a wall is a depth that nothing has).

Into the *colour* view: depth points are splatted into a z-buffer of colour pixels (nearest wins: occlusion); its z gives
each crop pixel a first position in the depth image; the depth found there gives the exact z and position, and must agree
with the z-buffer, else the depth sensor looks past the surface that colour sees and the pixel is invalid. In the *depth*
view depth is at home and colour is sampled where each depth pixel projects to, unless the z-buffer says that something
nearer covers it there.

Where depth has a small hole, its surroundings say where to look in the other planes (`depth_surface.bridged`); the depth
plane itself stays empty there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from align.depth_surface import ZBuffer, bridged, same_surface, splat, with_footprint
from align.face_crop import CROP_DEPTH_UNIT_M
from align.planar_projection import F32, PixelGrid, Rays, RayTable, rotated, to_pixels
from capture.frames import FrameSet, Pixels, StreamKind
from capture.rig import Extrinsics, Intrinsics, Rig

Mask = NDArray[np.bool_]
#: Distances at which a face is expected, metres: bounds the region of the depth image that can show it.
NEAREST_FACE_M, FARTHEST_FACE_M = 0.2, 3.0
#: z-buffer cells are this much wider than the depth pixels' spacing in the target, so that a sloping surface has no gaps.
CELL_STRETCH = 1.3


class RegistrationError(ValueError):
    """Planes and rig do not belong together; the message names the stream and the two values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RegisteredPlanes:
    """One face region on one grid. Shapes, dtypes and masks as in `FaceCrop`.

    `positions`: per stream the pixel (x, y) of that stream's image at which each grid point was looked up, float32 SxS
    each, before rounding; meaningless where the stream's mask is False. For diagnosis and the accuracy benchmark.
    """

    colour: NDArray[np.uint8]
    colour_valid: Mask
    depth: NDArray[np.uint16] | None
    depth_valid: Mask | None
    infrared: Pixels | None
    infrared_valid: Mask | None
    positions: dict[StreamKind, tuple[F32, F32]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Region:
    """A rectangle of the depth image: metres, what was measured, and its offset."""

    z_m: F32
    measured: Mask
    left: int
    top: int

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.z_m.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class _DepthSeenFrom:
    """All depth rays turned into another sensor's frame, once per rig."""

    def __init__(self, rig: Rig, depth_rays: RayTable, target: StreamKind) -> None:
        transform = rig.transform(StreamKind.DEPTH, target)
        depth = rig.intrinsics[StreamKind.DEPTH]
        self.intrinsics = rig.intrinsics[target]
        self.x, self.y, self.z = rotated(depth_rays.whole(), transform)
        self.translation = transform.translation.astype(np.float32)
        self.cell_px = max(1.0, CELL_STRETCH * max(self.intrinsics.fx / depth.fx, self.intrinsics.fy / depth.fy))

    def z_buffer(self, region: _Region, left: float, top: float, width: float, height: float) -> ZBuffer:
        x, y, z, pixel_x, pixel_y = self.points(region)
        del x, y
        return splat(pixel_x, pixel_y, z, region.measured, left=left, top=top, width=width, height=height,
                     cell_px=self.cell_px)

    def points(self, region: _Region) -> tuple[F32, F32, F32, F32, F32]:
        """x, y, z in the target's frame and the target's pixels of every pixel of the region (junk where unmeasured)."""
        window, t = region.window, self.translation
        x = self.x[window] * region.z_m + t[0]
        y = self.y[window] * region.z_m + t[1]
        z = self.z[window] * region.z_m + t[2]
        inverse = np.float32(1) / np.where(region.measured & (z > 0), z, np.float32(1))
        pixel_x, pixel_y = to_pixels(x * inverse, y * inverse, self.intrinsics)
        return x, y, z, pixel_x, pixel_y


class Registration:
    """Registers face regions of one camera's frame sets. Holds only what follows from the rig; safe to share.

    Raises (each method):
        RegistrationError: a frame whose resolution is not the rig's.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._rays = {kind: RayTable(intrinsics) for kind, intrinsics in rig.intrinsics.items()}
        self._with_depth = StreamKind.DEPTH in rig.intrinsics

    @cached_property
    def _depth_in_colour(self) -> _DepthSeenFrom:
        return _DepthSeenFrom(self.rig, self._rays[StreamKind.DEPTH], StreamKind.COLOUR)

    @cached_property
    def _depth_in_infrared(self) -> _DepthSeenFrom:
        return _DepthSeenFrom(self.rig, self._rays[StreamKind.DEPTH], StreamKind.INFRARED)

    @cached_property
    def infrared_shares_depth_geometry(self) -> bool:
        """True where infrared and depth are pixel-aligned (RealSense: depth is computed in the left imager's view)."""
        if not self._with_depth or StreamKind.INFRARED not in self.rig.intrinsics:
            return False
        between = self.rig.transform(StreamKind.INFRARED, StreamKind.DEPTH)
        still = np.abs(between.matrix - np.eye(3)).max() < 1e-6 and np.abs(between.translation).max() < 1e-6
        return bool(still) and self.rig.intrinsics[StreamKind.INFRARED] == self.rig.intrinsics[StreamKind.DEPTH]

    def register(self, frame_set: FrameSet, grid: PixelGrid, view: StreamKind) -> RegisteredPlanes:
        """All planes of `frame_set` on `grid`, a square of pixels of `view` (colour or depth).

        Without depth nothing can be moved between views: the colour view then has colour alone (an infrared plane is
        left out, as if absent), and the depth view is an error.
        """
        for frame in frame_set.frames():
            self._check_resolution(frame.kind, frame.width, frame.height)
        if view is StreamKind.COLOUR:
            return self._in_colour_view(frame_set, grid)
        if view is StreamKind.DEPTH and frame_set.depth is not None:
            return self._in_depth_view(frame_set, grid)
        raise RegistrationError(f"set {frame_set.sequence} of {frame_set.source}: cannot register into the {view} view "
                                f"with the planes {', '.join(f.kind for f in frame_set.frames())}")

    def _check_resolution(self, kind: StreamKind, width: int, height: int) -> None:
        intrinsics = self.rig.intrinsics.get(kind)
        if intrinsics is None:
            raise RegistrationError(f"a {kind} frame, but the rig of {self.rig.serial} has only "
                                    f"{', '.join(self.rig.intrinsics)}")
        if (width, height) != (intrinsics.width, intrinsics.height):
            raise RegistrationError(f"{kind} frame is {width}x{height}, the rig of {self.rig.serial} is for "
                                    f"{intrinsics.width}x{intrinsics.height}; use the rig of this stream mode")

    # --- colour view ------------------------------------------------------------------------------------------------
    def _in_colour_view(self, frame_set: FrameSet, grid: PixelGrid) -> RegisteredPlanes:
        colour = cut(frame_set.colour.pixels, grid).astype(np.uint8, copy=False)
        intrinsics = self.rig.intrinsics[StreamKind.COLOUR]
        columns, rows = grid.columns(), grid.rows()
        colour_valid = _inside(columns, intrinsics.width)[None, :] & _inside(rows, intrinsics.height)[:, None]
        absent = RegisteredPlanes(colour=colour, colour_valid=colour_valid, depth=None, depth_valid=None,
                                  infrared=None, infrared_valid=None)
        if frame_set.depth is None:
            return absent
        region = self._depth_region(frame_set, self._depth_window_of_colour(grid.left, grid.top, grid.side, grid.side))
        seen = self._depth_in_colour
        buffer = seen.z_buffer(region, grid.left - 0.5, grid.top - 0.5, grid.side, grid.side)
        buffer = ZBuffer(z_m=bridged(with_footprint(buffer.z_m)), left=buffer.left, top=buffer.top,
                         cell_px=buffer.cell_px)
        expected = buffer.on_grid(columns, rows)
        known = expected > 0
        expected = np.where(known, expected, np.float32(FARTHEST_FACE_M))

        # Colour rays in the depth sensor's frame: a point at colour z lies at `turned * z + t`; divided by z, so that
        # one reciprocal serves all three coordinates.
        to_depth = self.rig.transform(StreamKind.COLOUR, StreamKind.DEPTH)
        to_colour = self.rig.transform(StreamKind.DEPTH, StreamKind.COLOUR)
        turned = rotated(self._rays[StreamKind.COLOUR].at(columns, rows), to_depth)
        depth_intrinsics = self.rig.intrinsics[StreamKind.DEPTH]
        rays = _rays_at(turned, to_depth, expected)
        x, y = to_pixels(rays.x, rays.y, depth_intrinsics, left=region.left, top=region.top)
        sampled = cv2.remap(region.z_m, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        measured = (sampled > 0) & known
        R, t = to_colour.matrix.astype(np.float32), to_colour.translation.astype(np.float32)
        z = sampled * (R[2, 0] * rays.x + R[2, 1] * rays.y + R[2, 2]) + t[2]
        agrees = same_surface(z, expected)
        depth_valid = measured & agrees & colour_valid
        z = np.where(depth_valid, z, expected).astype(np.float32, copy=False)
        rays = _rays_at(turned, to_depth, z)
        positions = {StreamKind.DEPTH: to_pixels(rays.x, rays.y, depth_intrinsics)}

        depth, depth_valid = _as_crop_depth(z, depth_valid)
        infrared = infrared_valid = None
        if frame_set.infrared is not None:
            # A hole keeps the bridged z; a depth that contradicts the z-buffer is another surface.
            usable = known & colour_valid & (agrees | ~measured)
            infrared, infrared_valid, positions[StreamKind.INFRARED] = self._infrared_at(
                frame_set, positions[StreamKind.DEPTH], rays, z, StreamKind.COLOUR, to_depth, usable, region)
        return RegisteredPlanes(colour=colour, colour_valid=colour_valid, depth=depth, depth_valid=depth_valid,
                                infrared=infrared, infrared_valid=infrared_valid, positions=positions)

    # --- depth view -------------------------------------------------------------------------------------------------
    def _in_depth_view(self, frame_set: FrameSet, grid: PixelGrid) -> RegisteredPlanes:
        depth_intrinsics = self.rig.intrinsics[StreamKind.DEPTH]
        colour_intrinsics = self.rig.intrinsics[StreamKind.COLOUR]
        columns, rows = grid.columns(), grid.rows()
        inside = _inside(columns, depth_intrinsics.width)[None, :] & _inside(rows, depth_intrinsics.height)[:, None]
        margin = self._parallax_margin_px()
        region = self._depth_region(frame_set, (grid.left - margin, grid.top - margin, grid.side + 2 * margin,
                                                grid.side + 2 * margin))
        across = np.clip(np.rint(columns).astype(np.intp) - region.left, 0, region.z_m.shape[1] - 1)
        down = np.clip(np.rint(rows).astype(np.intp) - region.top, 0, region.z_m.shape[0] - 1)
        own_z = region.z_m[down].take(across, axis=1)
        depth, depth_valid = _as_crop_depth(own_z, (own_z > 0) & inside)
        z = bridged(region.z_m)[down].take(across, axis=1)
        usable = (z > 0) & inside
        z = np.where(usable, z, np.float32(FARTHEST_FACE_M))

        rays = self._rays[StreamKind.DEPTH].at(columns, rows)
        to_colour = self.rig.transform(StreamKind.DEPTH, StreamKind.COLOUR)
        turned = rotated(rays, to_colour)
        seen_rays = _rays_at(turned, to_colour, z)
        x, y = to_pixels(seen_rays.x, seen_rays.y, colour_intrinsics)
        colour_z = turned[2] * z + np.float32(to_colour.translation_m[2])
        left, top = float(x[usable].min(initial=0)) - 2, float(y[usable].min(initial=0)) - 2
        right, bottom = float(x[usable].max(initial=0)) + 2, float(y[usable].max(initial=0)) + 2
        buffer = self._depth_in_colour.z_buffer(region, left, top, right - left, bottom - top)
        nearest = buffer.at(x, y)
        visible = (nearest == 0) | (colour_z <= nearest) | same_surface(colour_z, nearest)
        colour_valid = (usable & visible & _inside(x, colour_intrinsics.width) & _inside(y, colour_intrinsics.height))
        colour = cv2.remap(frame_set.colour.pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colour[~colour_valid] = 0

        full = (np.broadcast_to(columns[None, :], z.shape), np.broadcast_to(rows[:, None], z.shape))
        positions: dict[StreamKind, tuple[F32, F32]] = {StreamKind.DEPTH: full, StreamKind.COLOUR: (x, y)}
        infrared: Pixels | None = None
        infrared_valid: Mask | None = None
        if frame_set.infrared is not None and self.infrared_shares_depth_geometry:
            infrared, infrared_valid = cut(frame_set.infrared.pixels, grid), inside
            positions[StreamKind.INFRARED] = full
        elif frame_set.infrared is not None:
            infrared, infrared_valid, positions[StreamKind.INFRARED] = self._infrared_at(
                frame_set, full, rays, z, StreamKind.DEPTH, Extrinsics.identity(), usable, region)
        return RegisteredPlanes(colour=colour.astype(np.uint8, copy=False), colour_valid=colour_valid, depth=depth,
                                depth_valid=depth_valid, infrared=infrared, infrared_valid=infrared_valid,
                                positions=positions)

    # --- shared -----------------------------------------------------------------------------------------------------
    def _infrared_at(self, frame_set: FrameSet, depth_position: tuple[F32, F32], depth_rays: Rays, view_z: F32,
                     view: StreamKind, to_depth: Extrinsics, usable: Mask, region: _Region,
                     ) -> tuple[Pixels, Mask, tuple[F32, F32]]:
        """Sample infrared at the surface points; with a sensor of its own geometry, test its own line of sight too."""
        assert frame_set.infrared is not None
        intrinsics = self.rig.intrinsics[StreamKind.INFRARED]
        if self.infrared_shares_depth_geometry:
            x, y = depth_position
        else:
            from_view = self.rig.transform(view, StreamKind.INFRARED)
            # z in the depth frame of points given by z in the view's frame.
            depth_z = view_z if view is StreamKind.DEPTH else self._z_in_depth(depth_rays, view_z, to_depth)
            to_infrared = self.rig.transform(StreamKind.DEPTH, StreamKind.INFRARED)
            del from_view
            turned = rotated(depth_rays, to_infrared)
            rays = _rays_at(turned, to_infrared, depth_z)
            x, y = to_pixels(rays.x, rays.y, intrinsics)
            z = turned[2] * depth_z + np.float32(to_infrared.translation_m[2])
            seen = self._depth_in_infrared
            buffer = seen.z_buffer(region, float(x[usable].min(initial=0)) - 2, float(y[usable].min(initial=0)) - 2,
                                   float(np.ptp(x[usable])) + 4 if usable.any() else 4,
                                   float(np.ptp(y[usable])) + 4 if usable.any() else 4)
            nearest = buffer.at(x, y)
            usable = usable & ((nearest == 0) | (z <= nearest) | same_surface(z, nearest))
        valid = usable & _inside(x, intrinsics.width) & _inside(y, intrinsics.height)
        sampled = cv2.remap(frame_set.infrared.pixels, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        sampled[~valid] = 0
        return sampled, valid, (x, y)  # type: ignore[return-value]

    def _z_in_depth(self, depth_rays: Rays, colour_z: F32, to_depth: Extrinsics) -> F32:
        """z in the depth frame of points on `depth_rays` whose z in the colour frame is `colour_z`."""
        back = to_depth.inverse()
        R = back.matrix.astype(np.float32)
        slope = R[2, 0] * depth_rays.x + R[2, 1] * depth_rays.y + R[2, 2]
        return ((colour_z - np.float32(back.translation_m[2])) / slope).astype(np.float32, copy=False)

    def _depth_region(self, frame_set: FrameSet, window: tuple[int, int, int, int]) -> _Region:
        """The part of the depth frame under `window` (left, top, width, height), clipped, at least 1x1."""
        assert frame_set.depth is not None
        assert frame_set.depth_scale_m is not None
        left, top, width, height = window
        intrinsics = self.rig.intrinsics[StreamKind.DEPTH]
        first_column, first_row = min(max(left, 0), intrinsics.width - 1), min(max(top, 0), intrinsics.height - 1)
        last_column = min(max(left + width, first_column + 1), intrinsics.width)
        last_row = min(max(top + height, first_row + 1), intrinsics.height)
        raw = frame_set.depth.pixels[first_row:last_row, first_column:last_column]
        return _Region(z_m=raw * np.float32(frame_set.depth_scale_m), measured=raw > 0, left=first_column,
                       top=first_row)

    def _depth_window_of_colour(self, left: float, top: float, width: float, height: float,
                                ) -> tuple[int, int, int, int]:
        """Bounding box in depth pixels of a colour rectangle seen at any distance at which a face may be."""
        columns = np.linspace(left, left + width, 3, dtype=np.float32)
        rows = np.linspace(top, top + height, 3, dtype=np.float32)
        to_depth = self.rig.transform(StreamKind.COLOUR, StreamKind.DEPTH)
        turned = rotated(self._rays[StreamKind.COLOUR].at(columns, rows), to_depth)
        corners = []
        for z in (NEAREST_FACE_M, FARTHEST_FACE_M):
            rays = _rays_at(turned, to_depth, np.full((3, 3), z, np.float32))
            corners.append(to_pixels(rays.x, rays.y, self.rig.intrinsics[StreamKind.DEPTH]))
        x, y = np.stack([c[0] for c in corners]), np.stack([c[1] for c in corners])
        first_column, first_row = int(np.floor(x.min())) - 2, int(np.floor(y.min())) - 2
        return first_column, first_row, int(np.ceil(x.max())) + 3 - first_column, int(np.ceil(y.max())) + 3 - first_row

    def _parallax_margin_px(self) -> int:
        """How far, in depth pixels, the nearest face can shift against the background between depth and colour."""
        baseline = float(np.linalg.norm(self.rig.transform(StreamKind.DEPTH, StreamKind.COLOUR).translation))
        return int(np.ceil(self.rig.intrinsics[StreamKind.DEPTH].fx * baseline / NEAREST_FACE_M)) + 2

    def face_distance_m(self, frame_set: FrameSet, box: tuple[float, float, float, float],
                        image: StreamKind) -> float | None:
        """Median z, in the frame of `image`, of what the middle half of a box (left, top, width, height) shows.

        None without depth or with fewer than 10 measurements there.
        """
        if frame_set.depth is None:
            return None
        left, top = box[0] + box[2] / 4, box[1] + box[3] / 4
        width, height = box[2] / 2, box[3] / 2
        if image is StreamKind.COLOUR:
            region = self._depth_region(frame_set, self._depth_window_of_colour(left, top, width, height))
            _, _, z, x, y = self._depth_in_colour.points(region)
            inside = region.measured & (x >= left) & (x < left + width) & (y >= top) & (y < top + height)
            values = z[inside]
        else:
            # Infrared and depth: one geometry on RealSense, near enough elsewhere for a median.
            depth, own = self.rig.intrinsics[StreamKind.DEPTH], self.rig.intrinsics[image]
            scale_x, scale_y = depth.fx / own.fx, depth.fy / own.fy
            region = self._depth_region(frame_set, (
                round((left - own.cx) * scale_x + depth.cx), round((top - own.cy) * scale_y + depth.cy),
                max(round(width * scale_x), 1), max(round(height * scale_y), 1)))
            values = region.z_m[region.measured]
        return float(np.median(values)) if values.size >= 10 else None

    def moved_box(self, box: tuple[float, float, float, float], source: StreamKind, target: StreamKind,
                  distance_m: float) -> tuple[float, float, float, float]:
        """A box (left, top, width, height) of one image, at `distance_m`, as another sensor sees it."""
        if source is target:
            return box
        left, top, width, height = box
        columns = np.array([left, left + width], np.float32)
        rows = np.array([top, top + height], np.float32)
        move = self.rig.transform(source, target)
        rays = _rays_at(rotated(self._rays[source].at(columns, rows), move), move,
                        np.full((2, 2), distance_m, np.float32))
        x, y = to_pixels(rays.x, rays.y, self.rig.intrinsics[target])
        return float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))


def cut(pixels: Pixels, grid: PixelGrid) -> Pixels:
    """The grid's square out of its own image, resized; 0 outside the image. Shrinking by half or more averages areas."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = grid.left, grid.top, grid.left + grid.side, grid.top + grid.side
    inner = pixels[max(top, 0):max(min(bottom, height), 0), max(left, 0):max(min(right, width), 0)]
    if inner.size == 0:
        return np.zeros((grid.size, grid.size, *pixels.shape[2:]), pixels.dtype)
    if inner.shape[:2] != (grid.side, grid.side):
        inner = cv2.copyMakeBorder(inner, max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0),
                                   cv2.BORDER_CONSTANT, value=0)  # type: ignore[assignment]
    method = cv2.INTER_AREA if grid.scale >= 2 else cv2.INTER_LINEAR
    return cv2.resize(inner, (grid.size, grid.size), interpolation=method)  # type: ignore[return-value]


def _rays_at(turned: tuple[F32, F32, F32], move: Extrinsics, z_m: F32) -> Rays:
    """Rays, in the target's frame, of the points at `turned * z + t`."""
    x, y, z = (np.float32(t) for t in move.translation_m)
    inverse = np.float32(1) / z_m
    forward = np.float32(1) / (turned[2] + z * inverse)
    return Rays((turned[0] + x * inverse) * forward, (turned[1] + y * inverse) * forward)


def _as_crop_depth(z_m: F32, valid: Mask) -> tuple[NDArray[np.uint16], Mask]:
    """Metres to `CROP_DEPTH_UNIT_M`; what does not fit (6.55 m) is not valid."""
    units = z_m * np.float32(1 / CROP_DEPTH_UNIT_M) + np.float32(0.5)
    valid = valid & (units < 65535) & (units >= 1)
    return np.where(valid, units, 0).astype(np.uint16), valid


def _inside(pixels: F32, count: int) -> Mask:
    """Where a pixel coordinate lies within an image of `count` pixels, up to the outer edges of its border pixels."""
    return (pixels >= -0.5) & (pixels <= count - 0.5)


def intrinsics_of(rig: Rig, view: StreamKind) -> Intrinsics:
    """Intrinsics of the view. Raises `RegistrationError` where the rig has no such stream."""
    try:
        return rig.intrinsics[view]
    except KeyError:
        raise RegistrationError(f"view {view}: the rig of {rig.serial} has only {', '.join(rig.intrinsics)}") from None
