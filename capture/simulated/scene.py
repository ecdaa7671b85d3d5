"""Scenes as data: who or what stands where, how it moves, what light and wall there are. Deterministic by seed.

The world's frame is that of the depth/infrared sensor: x right, y down, z forward, metres. A body's own frame has x to
its left, y up and z out of its front, so a body that faces the camera is turned by half a turn about x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from capture.simulated.materials import Material
from capture.simulated.meshes import Float32, Mesh

FACING = np.diag([1.0, -1.0, -1.0])
#: `Body.person` of what belongs to the room and to nobody who is shown: furniture, a second person.
NOBODY = -1


class Segment(IntEnum):
    """What a pixel shows. `FACE` is the surface that bears the face: a head, a mask, a sheet, a panel."""

    BACKGROUND = 0
    FACE = 1
    OTHER = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """`p_world = rotation @ p_body + translation`, metres."""

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    def to_world(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) of the body in the world."""
        return np.asarray(points.astype(np.float64) @ self.rotation.T + self.translation)


def turn(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Rotation by roll about z, then pitch about x, then yaw about y; radians."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x @ about_z)


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A smooth trajectory: a place, slow sway of position and attitude, and a small quick tremor.

    Attributes:
        centre_m: where the body's origin dwells. pivot_m: what it turns about, in its own frame.
        sway_m: amplitude along x, y, z of a movement of 4 to 9 s.
        attitude_rad: amplitude of yaw, pitch and roll, in 5 to 12 s.
        tremor_m: amplitude of a 2 to 4 Hz tremor. drift_m_per_s: steady movement, to make skew matter.
        speed: multiplies time. seed: phases and periods.
    """

    centre_m: tuple[float, float, float]
    pivot_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sway_m: tuple[float, float, float] = (0.015, 0.008, 0.02)
    attitude_rad: tuple[float, float, float] = (0.16, 0.06, 0.04)
    tremor_m: float = 0.0015
    drift_m_per_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    speed: float = 1.0
    seed: int = 0

    def pose(self, time_s: float) -> Pose:
        rng = np.random.default_rng(self.seed)
        t = time_s * self.speed
        sway = np.array(self.sway_m) * np.sin(2 * np.pi * (t / rng.uniform(4, 9, 3) + rng.uniform(0, 1, 3)))
        attitude = np.array(self.attitude_rad) * np.sin(2 * np.pi * (t / rng.uniform(5, 12, 3) + rng.uniform(0, 1, 3)))
        tremor = self.tremor_m * np.sin(2 * np.pi * (t * rng.uniform(2, 4, 3) + rng.uniform(0, 1, 3)))
        rotation = turn(*attitude) @ FACING
        pivot = np.array(self.pivot_m)
        place = np.array(self.centre_m) + sway + tremor + t * np.array(self.drift_m_per_s)
        return Pose(rotation=rotation, translation=place + FACING @ pivot - rotation @ pivot)


#: Which mesh of a body is worn at which time: neutral for a body that never changes.
Expression = Callable[[float], str]


def always_neutral(time_s: float) -> str:
    return "neutral"


@dataclass(frozen=True)
class Blinking:
    """Expressions of a live face: a blink of 0.2 s every few seconds, now and then a smile or an opened jaw."""

    seed: int
    period_s: float = 3.1

    def __call__(self, time_s: float) -> str:
        cycle, within = divmod(time_s + 0.37 * self.period_s * (self.seed % 7), self.period_s)
        if within < 0.25:
            return "blink" if 0.07 < within < 0.18 else "half_blink"
        kind = (int(cycle) * 2654435761 + self.seed) % 5
        if within > 0.45 * self.period_s and kind in (0, 1):
            return "smile" if kind == 0 else "jaw_open"
        return "neutral"


@dataclass(frozen=True, kw_only=True, eq=False)
class Body:
    """One rigid thing.

    Attributes:
        name: for people. segment: what its pixels are in the ground truth.
        meshes: by expression, at least `neutral`; all share triangles and texels.
        texture: float32 (rows, columns, 4), linear reflectance (or emitted radiance) in red, green, blue, 850 nm.
        face_points: (K, 3) points that outline the face it shows, in its own frame; None for a body without a face.
        person: bodies of one person share this number; `NOBODY` for what is part of the surroundings.
    """

    name: str
    segment: Segment
    meshes: dict[str, Mesh]
    texture: Float32
    material: Material
    motion: Motion
    expression: Expression = always_neutral
    face_points: Float32 | None = None
    person: int = 0

    def mesh_at(self, time_s: float) -> str:
        """Name of the mesh that is worn at that time."""
        name = self.expression(time_s)
        return name if name in self.meshes else "neutral"


@dataclass(frozen=True, kw_only=True)
class Light:
    """A distant key light and an even rest in the visible; a flood illuminator beside the infrared sensor.

    `towards_key` unit vector in the world towards the key light. Levels: radiance of a white matte surface facing it.
    `tint`: of all visible light, red, green, blue. `room_infrared`: 850 nm of the room (sun, lamps) as a share of what
    the illuminator gives at 1 m. `level`: of all visible light, 1 in a well lit room; exposure makes up for most of
    what is missing with gain, which costs noise.
    """

    towards_key: tuple[float, float, float] = (-0.45, -0.62, -0.64)
    key: float = 0.62
    ambient: float = 0.38
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    room_infrared: float = 0.06
    level: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Wall:
    """A plane behind everything: `distance_m` on the optical axis, turned by `yaw_rad`, painted by `seed`."""

    distance_m: float = 2.0
    yaw_rad: float = 0.06
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Everything the camera can see.

    Attributes:
        name: the scene's name. label: `bona_fide`, `attack`, or None when there is nothing to judge.
        species: of the presentation attack instrument (`capture.simulated.species.SPECIES`), None otherwise.
        nominal_distance_m: what the simulated exposure of the infrared sensor is set for.
        depth_misses: share of every surface on which no depth is found in this session (a smeared window, a worn
            projector), in blotches.
    """

    name: str
    label: str | None
    species: str | None
    bodies: tuple[Body, ...]
    wall: Wall = field(default_factory=Wall)
    light: Light = field(default_factory=Light)
    nominal_distance_m: float = 0.57
    depth_misses: float = 0.0
