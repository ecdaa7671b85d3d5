"""A head of two ellipsoids before a wall, ray-cast in closed form: every correspondence is exact at any sub-pixel.

The world is the colour sensor's frame at colour time. Depth and infrared are taken `skew_s` earlier, with the head
where it was then. Simulated, of course: textures are sine waves, noise follows the usual stereo model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import cv2
import numpy as np

from capture.frames import ClockDomain, Frame, FrameSet, StreamKind
from capture.projection import deproject, project, transform
from capture.rig import DistortionModel, Extrinsics, Intrinsics, Rig

# Centre (relative to the head's) and semi-axes in metres: skull, nose.
ELLIPSOIDS = (((0.0, 0.0, 0.0), (0.075, 0.105, 0.095)), ((0.0, 0.015, -0.092), (0.016, 0.022, 0.022)))
FRONT_M = 0.095  # of the skull before the head's centre


def rotation(yaw_deg: float, pitch_deg: float) -> np.ndarray:
    """Small rotation between two sensors on one board."""
    yaw, pitch = np.radians((yaw_deg, pitch_deg))
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    return about_y @ about_x


def d435_like(width: int = 848, height: int = 480, *, distorted: bool = True) -> Rig:
    """Depth and infrared share one imager; colour 14.7 mm beside it, at the same resolution, slightly turned."""
    depth = Intrinsics(width=width, height=height, fx=0.501 * width, fy=0.501 * width, cx=width / 2 - 0.7,
                       cy=height / 2 + 1.3)
    colour = Intrinsics(width=width, height=height, fx=0.726 * width, fy=0.727 * width, cx=width / 2 + 3.1,
                        cy=height / 2 - 2.4,
                        model=DistortionModel.BROWN_CONRADY if distorted else DistortionModel.NONE,
                        coefficients=(0.06, -0.11, 0.0008, -0.0005, 0.02) if distorted else (0.0,) * 5)
    to_colour = Extrinsics.from_arrays(rotation(0.3, -0.2), np.array([0.0147, 0.0002, 0.0003]))
    return Rig(serial="ANALYTIC-D435", name="analytic, D435-like", depth_scale_m=0.001,
               intrinsics={StreamKind.COLOUR: colour, StreamKind.DEPTH: depth, StreamKind.INFRARED: depth},
               to_colour={StreamKind.COLOUR: Extrinsics.identity(), StreamKind.DEPTH: to_colour,
                          StreamKind.INFRARED: to_colour})


def d455_like() -> Rig:
    """A wide baseline (59 mm) and a distorted colour lens at 1280x720."""
    depth = Intrinsics(width=848, height=480, fx=428.0, fy=428.0, cx=422.5, cy=241.0)
    colour = Intrinsics(width=1280, height=720, fx=640.0, fy=639.5, cx=643.0, cy=358.0,
                        model=DistortionModel.INVERSE_BROWN_CONRADY,
                        coefficients=(-0.056, 0.066, -0.0003, 0.0006, -0.021))
    to_colour = Extrinsics.from_arrays(rotation(-0.2, 0.1), np.array([-0.059, 0.0003, -0.0004]))
    return Rig(serial="ANALYTIC-D455", name="analytic, D455-like", depth_scale_m=0.001,
               intrinsics={StreamKind.COLOUR: colour, StreamKind.DEPTH: depth, StreamKind.INFRARED: depth},
               to_colour={StreamKind.COLOUR: Extrinsics.identity(), StreamKind.DEPTH: to_colour,
                          StreamKind.INFRARED: to_colour})


def with_separate_infrared(rig: Rig) -> Rig:
    """The same rig with an infrared camera of its own: 30 mm to the other side, other focal length."""
    infrared = replace(rig.intrinsics[StreamKind.DEPTH], width=640, height=400, fx=380.0, fy=380.0, cx=318.0, cy=201.0)
    to_colour = Extrinsics.from_arrays(rotation(-0.4, 0.2), np.array([-0.030, 0.001, 0.0]))
    return replace(rig, intrinsics={**rig.intrinsics, StreamKind.INFRARED: infrared},
                   to_colour={**rig.to_colour, StreamKind.INFRARED: to_colour})


@lru_cache(maxsize=8)
def _image_rays(intrinsics: Intrinsics) -> np.ndarray:
    """Rays (z = 1) of all pixels in the sensor's own frame: inverting a distorted lens is the slow part."""
    pixels = np.stack(np.meshgrid(np.arange(intrinsics.width, dtype=float), np.arange(intrinsics.height, dtype=float)),
                      axis=-1)
    return deproject(pixels, np.ones(pixels.shape[:2]), intrinsics)


@dataclass(frozen=True, kw_only=True)
class AnalyticScene:
    """Distances in metres; `velocity_m_s` of the head in the colour frame; `noise` switches noise and holes."""

    rig: Rig
    distance_m: float = 0.5  # from the colour sensor to the front of the skull
    offset_m: tuple[float, float] = (0.01, -0.005)
    wall_m: float = 1.0  # behind the front of the skull
    noise: bool = False
    hole_share: float = 0.03
    skew_s: float = 0.0
    velocity_m_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    seed: int = 0

    # --- geometry ---------------------------------------------------------------------------------------------------
    @property
    def head_m(self) -> np.ndarray:
        return np.array([*self.offset_m, self.distance_m + FRONT_M])

    @property
    def motion_m(self) -> np.ndarray:
        """From the head's place at depth time to its place at colour time."""
        return np.array(self.velocity_m_s) * self.skew_s

    def cast(self, origin: np.ndarray, directions: np.ndarray, head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ray parameter of the first hit (of `origin + parameter * direction`) and whether it is the head."""
        wall = self.distance_m + self.wall_m
        nearest = (wall - origin[2]) / directions[..., 2]
        on_head = np.zeros(nearest.shape, bool)
        for centre, axes in ELLIPSOIDS:
            o = (origin - head - np.array(centre)) / np.array(axes)
            d = directions / np.array(axes)
            a, b, c = (d * d).sum(-1), (d * o).sum(-1), (o * o).sum() - 1
            under_root = b * b - a * c
            hit = (-b - np.sqrt(np.maximum(under_root, 0))) / a
            closer = (under_root > 0) & (hit < nearest)
            nearest, on_head = np.where(closer, hit, nearest), on_head | closer
        return nearest, on_head

    def image_rays(self, kind: StreamKind) -> tuple[np.ndarray, np.ndarray]:
        pose = self.rig.to_colour[kind]
        return pose.translation, _image_rays(self.rig.intrinsics[kind]) @ pose.matrix.T

    def rays(self, kind: StreamKind, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Origin and directions, in the world, of pixels `[..., 2]` of a stream; parameter = z of that stream."""
        local = deproject(pixels, np.ones(pixels.shape[:-1]), self.rig.intrinsics[kind])
        pose = self.rig.to_colour[kind]
        return pose.translation, local @ pose.matrix.T

    def see(self, kind: StreamKind) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """z, head mask and texture coordinates (the wall's fixed, the head's moving with it) of a whole image."""
        head = self.head_m if kind is StreamKind.COLOUR else self.head_m - self.motion_m
        origin, directions = self.image_rays(kind)
        z, on_head = self.cast(origin, directions, head)
        points = origin + z[..., None] * directions
        return z, on_head, np.where(on_head[..., None], points - head, points)

    @staticmethod
    def texture(points: np.ndarray) -> np.ndarray:
        """Grey level 40..220 of a surface point, smooth at 1 cm."""
        x, y = points[..., 0], points[..., 1]
        return 130 + 45 * np.sin(2 * np.pi * x / 0.031 + 0.4) + 45 * np.cos(2 * np.pi * y / 0.037 + x * 20)

    # --- images -----------------------------------------------------------------------------------------------------
    @cached_property
    def seen(self) -> dict[StreamKind, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return {kind: self.see(kind) for kind in self.rig.intrinsics}

    def depth_pixels(self) -> np.ndarray:
        z, on_head, _ = self.seen[StreamKind.DEPTH]
        if self.noise:
            rng = np.random.default_rng(self.seed)
            focal_baseline = self.rig.intrinsics[StreamKind.DEPTH].fx * 0.050
            wobble = cv2.GaussianBlur(rng.normal(size=z.shape), (0, 0), 1.0)
            z = focal_baseline / (focal_baseline / z + 0.08 * wobble / wobble.std())
        units = np.rint(z / self.rig.depth_scale_m).astype(np.uint16)
        if self.noise:
            edge = cv2.morphologyEx(on_head.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
            units[edge & (rng.random(z.shape) < 0.5)] = 0
            count = int(self.hole_share * z.size / 28)
            holes = np.zeros(z.shape, np.uint8)
            for x, y in zip(rng.integers(0, z.shape[1], count), rng.integers(0, z.shape[0], count), strict=True):
                cv2.circle(holes, (int(x), int(y)), int(rng.integers(1, 5)), 1, -1)
            units[holes > 0] = 0
        return units

    def grey(self, kind: StreamKind) -> np.ndarray:
        level = self.texture(self.seen[kind][2])
        if self.noise:
            level = level + np.random.default_rng(self.seed + 1).normal(0, 2, level.shape)
        return np.clip(np.rint(level), 0, 255).astype(np.uint8)

    def frame_set(self, *, infrared: bool = True, depth: bool = True) -> FrameSet:
        colour = np.repeat(self.grey(StreamKind.COLOUR)[:, :, None], 3, axis=2)
        later = round(self.skew_s * 1e9)
        planes = {StreamKind.COLOUR: (colour, later)}
        if depth:
            planes[StreamKind.DEPTH] = (self.depth_pixels(), 0)
        if infrared:
            planes[StreamKind.INFRARED] = (self.grey(StreamKind.INFRARED), 0)
        frames = {kind.value: Frame(kind=kind, pixels=np.ascontiguousarray(pixels), frame_number=1,
                                    sensor_timestamp_ns=stamp, clock_domain=ClockDomain.SIMULATED, arrival_ns=stamp)
                  for kind, (pixels, stamp) in planes.items()}
        return FrameSet(source=self.rig.serial, epoch=1, sequence=0, depth_scale_m=self.rig.depth_scale_m, **frames)

    # --- truth ------------------------------------------------------------------------------------------------------
    def positions(self, x: np.ndarray, y: np.ndarray, target: StreamKind,
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What colour sees at its pixels (x, y), as `target` shows it: x, y, seen there at all, belongs to the head."""
        origin, directions = self.rays(StreamKind.COLOUR, np.stack((x, y), axis=-1).astype(float))
        z, on_head = self.cast(origin, directions, self.head_m)
        points = origin + z[..., None] * directions
        then = points - np.where(on_head[..., None], self.motion_m, 0.0)
        local = transform(self.rig.to_colour[target].inverse(), then)
        pixels = project(local, self.rig.intrinsics[target])
        there, _ = self.cast(*self.rays(target, pixels), self.head_m - self.motion_m)
        seen = np.abs(there - local[..., 2]) < 1e-4
        return pixels[..., 0], pixels[..., 1], seen, on_head

    @cached_property
    def inside_px(self) -> np.ndarray:
        """Per colour pixel: how many pixels inside the head's silhouette it lies, 0 outside."""
        _, on_head, _ = self.seen[StreamKind.COLOUR]
        return cv2.distanceTransform(on_head.astype(np.uint8), cv2.DIST_L2, 5)

    def face_box(self, kind: StreamKind = StreamKind.COLOUR) -> tuple[float, float, float, float]:
        """A box (left, top, width, height) as a detector would draw it: the middle of the head, 12 cm wide."""
        centre = self.head_m - np.array([0, 0, FRONT_M]) - (0 if kind is StreamKind.COLOUR else self.motion_m)
        corners = centre + np.array([[-0.06, -0.06, 0.03], [0.06, 0.06, 0.03]])
        pixels = project(transform(self.rig.to_colour[kind].inverse(), corners), self.rig.intrinsics[kind])
        (left, top), (right, bottom) = pixels
        return float(left), float(top), float(right - left), float(bottom - top)
