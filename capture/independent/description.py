"""A simulated scene's data as a path tracer wants it: posed surfaces, reflection models, lamps. Needs no Mitsuba.

Geometry, textures and poses are those of `capture.simulated.scene.Scene`, in its world (the depth sensor's frame: x
right, y down, z forward, metres). How surfaces reflect, where lamps stand and how large they are is decided here again,
independently of `capture.simulated.render`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.materials import Material
from capture.simulated.meshes import Float32, Mesh
from capture.simulated.scene import Body, Light, Scene, Wall, turn
from capture.simulated.view import View


class Band(StrEnum):
    """What light an image is made of."""

    COLOUR = "colour"
    INFRARED = "infrared"  # 850 nm


class Reflection(NamedTuple):
    """Parameters of Disney's principled model (Burley, SIGGRAPH 2012 course): `roughness` and `specular` in [0, 1]
    (specular 0.5 is a refractive index of 1.5, 4 % at normal incidence), `clearcoat` of a second, sharp lobe."""

    roughness: float
    specular: float
    clearcoat: float = 0.0


#: By `Material.name`. Chosen by what such surfaces are like, not derived from the fast renderer's lobes.
REFLECTIONS: dict[str, Reflection] = {
    "skin": Reflection(0.46, 0.42), "cloth": Reflection(0.9, 0.15), "hair": Reflection(0.55, 0.45),
    "paper": Reflection(0.75, 0.25), "glossy paper": Reflection(0.13, 0.5, 0.5), "printed cloth": Reflection(0.9, 0.15),
    "screen": Reflection(0.05, 0.5), "matte screen": Reflection(0.45, 0.4), "resin": Reflection(0.35, 0.5),
    "silicone": Reflection(0.42, 0.4), "plastic": Reflection(0.25, 0.5), "spectacle frame": Reflection(0.25, 0.5)}

#: Softbox that stands for the key light: its side and how far from the subject, metres.
KEY_SIDE_M, KEY_DISTANCE_M = 0.7, 1.6
#: Infrared lamp: radius, and its place beside the left infrared imager, metres.
LAMP_RADIUS_M, LAMP_PLACE_M = 0.006, (0.012, 0.004, 0.0)
#: Half the wall's side, metres; its texture's side in pixels.
_WALL_HALF_M, _WALL_TEXELS = 5.0, 512


def reflection_of(material: Material) -> Reflection:
    """A material's reflection model; one that `REFLECTIONS` does not name is judged by its gloss and shininess."""
    if material.name in REFLECTIONS:
        return REFLECTIONS[material.name]
    return Reflection(roughness=float(np.clip((2 / (material.shininess + 2)) ** 0.25, 0.05, 1.0)),
                      specular=float(np.clip(5 * material.gloss, 0.1, 0.6)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Corners:
    """A mesh with one vertex for each pair of position and texel: `vertex` (N,) of the mesh, `uv` (N, 2) in [0, 1] (v
    downward, texel centres), `triangles` uint32 (T, 3)."""

    vertex: NDArray[np.intp]
    uv: Float32
    triangles: NDArray[np.uint32]


def split_corners(mesh: Mesh, texture_shape: tuple[int, int]) -> Corners:
    """`mesh` (texels by corner) as a path tracer takes it (texture coordinates by vertex)."""
    rows, columns = texture_shape
    keys = np.concatenate([mesh.triangles.reshape(-1, 1).astype(np.float64), mesh.texels.reshape(-1, 2)], axis=1)
    unique, inverse = np.unique(keys, axis=0, return_inverse=True)
    uv = (unique[:, 1:] + 0.5) / np.array([columns, rows])
    return Corners(vertex=unique[:, 0].astype(np.intp), uv=uv.astype(np.float32),
                   triangles=inverse.reshape(-1, 3).astype(np.uint32))


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """One body at one instant, in the world.

    Attributes:
        body: its number in the scene. vertices, normals: float32 (N, 3). uv: float32 (N, 2). triangles: uint32 (T, 3).
    """

    body: int
    vertices: Float32
    normals: Float32
    uv: Float32
    triangles: NDArray[np.uint32]


class Poser:
    """Poses a scene's bodies; keeps what does not change between instants."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._corners: dict[tuple[int, str], Corners] = {}

    def surfaces(self, time_s: float) -> list[Surface]:
        """Every body, transparent ones too, as it is at `time_s` of the scene."""
        found = []
        for number, body in enumerate(self.scene.bodies):
            name, pose = body.mesh_at(time_s), body.motion.pose(time_s)
            mesh = body.meshes[name]
            if (number, name) not in self._corners:
                rows, columns = body.texture.shape[:2]
                self._corners[number, name] = split_corners(mesh, (rows, columns))
            corners = self._corners[number, name]
            outward = mesh.vertices - mesh.vertices.mean(axis=0)
            # The tip of a rod, whose triangles have no area, has no normal of its own.
            lost = np.square(mesh.normals).sum(axis=1, keepdims=True) < 0.5
            away = outward / np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-9)
            normals = np.where(lost, away, mesh.normals).astype(np.float32) @ pose.rotation.T.astype(np.float32)
            found.append(Surface(body=number, vertices=pose.to_world(mesh.vertices)[corners.vertex].astype(np.float32),
                                 normals=np.ascontiguousarray(normals[corners.vertex]), uv=corners.uv,
                                 triangles=corners.triangles))
        return found


def reflectance(body: Body, band: Band) -> Float32:
    """What a lit body's texture reflects, (rows, columns, 3) in [0, 0.95]; of a display in colour: its dark glass."""
    if band is Band.INFRARED:
        values = np.repeat(body.texture[..., 3:4], 3, axis=2)
    elif body.material.emission:
        values = np.full((2, 2, 3), 0.015, np.float32)
    else:
        values = body.texture[..., :3]
    return np.ascontiguousarray(np.clip(values, 0, 0.95), np.float32)


def emitted(body: Body, band: Band) -> Float32 | None:
    """Radiance (rows, columns, 3) that a display sends out; None for what only reflects, and at 850 nm."""
    if band is Band.INFRARED or not body.material.emission:
        return None
    return np.ascontiguousarray(body.texture[..., :3] * np.float32(body.material.emission))


def face_window(scene: Scene, view: View, time_s: float, scale: float = 1.25) -> tuple[slice, slice] | None:
    """Rows and columns of `view` around all faces: of each a square, `scale` times its outline's longer side; None
    without a face.

    The window follows the faces' outlines, which every label has, and contains the crop that the live path takes (1.3
    times a detector's box, which ends at brows and chin).
    """
    lows, highs = [], []
    for body in scene.bodies:
        if body.face_points is None:
            continue
        pixels = view.project(body.motion.pose(time_s).to_world(body.face_points))
        if np.isfinite(pixels).all():
            low, high = pixels.min(axis=0), pixels.max(axis=0)
            reach = scale / 2 * (high - low).max()
            lows.append((low + high) / 2 - reach)
            highs.append((low + high) / 2 + reach)
    if not lows:
        return None
    size = np.array([view.intrinsics.width, view.intrinsics.height])
    left, top = (np.clip(np.min(lows, axis=0), 0, size).astype(int) // 2 * 2).tolist()
    right, bottom = np.minimum(-(-np.clip(np.max(highs, axis=0), 0, size).astype(int) // 2) * 2, size).tolist()
    if right - left < 8 or bottom - top < 8:
        return None
    return slice(top, bottom), slice(left, right)


@dataclass(frozen=True, kw_only=True, eq=False)
class AreaLamp:
    """A softbox: a square of side `side_m` at `place_m` that faces `towards_m`, sending out `radiance` (3,)."""

    place_m: NDArray[np.float64]
    towards_m: NDArray[np.float64]
    side_m: float
    radiance: NDArray[np.float64]


def key_lamp(light: Light, subject_m: NDArray[np.float64]) -> AreaLamp:
    """The key light as a softbox: a white matte surface at the subject that faces it has radiance `light.key`."""
    towards = np.array(light.towards_key, np.float64)
    place = subject_m + KEY_DISTANCE_M * towards / np.linalg.norm(towards)
    # Irradiance L A / d² = π times the radiance of white.
    radiance = np.pi * light.key * KEY_DISTANCE_M ** 2 / KEY_SIDE_M ** 2 * np.array(light.tint)
    return AreaLamp(place_m=place, towards_m=subject_m, side_m=KEY_SIDE_M, radiance=radiance)


def subject_place(scene: Scene, time_s: float) -> NDArray[np.float64]:
    """Middle of the faces in the world, (3,); without any, where one would stand."""
    middles = [body.motion.pose(time_s).to_world(body.face_points).mean(axis=0)
               for body in scene.bodies if body.face_points is not None]
    return np.asarray(np.mean(middles, axis=0)) if middles else np.array([0.0, 0.0, scene.nominal_distance_m])


def wall_corners(wall: Wall) -> Float32:
    """Corners (4, 3) of the wall's rectangle in the world: top left, top right, bottom right, bottom left."""
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float64) * _WALL_HALF_M
    return np.asarray(square @ turn(wall.yaw_rad, 0, 0).T + [0.0, 0.0, wall.distance_m], np.float32)


@lru_cache(maxsize=8)
def wall_texture(seed: int) -> Float32:
    """Reflectance of the wall (rows, columns, 4): a painted room with a skirting board, a shelf and posters."""
    rng = np.random.default_rng([seed, 71])
    size = _WALL_TEXELS
    paint = np.array([*(rng.uniform(0.25, 0.7) * np.array([1.0, 0.97, 0.92]) * rng.uniform(0.85, 1.1, 3)),
                      rng.uniform(0.35, 0.65)])
    texture = np.broadcast_to(paint.astype(np.float32), (size, size, 4)).copy()
    per_m = size / (2 * _WALL_HALF_M)
    for _ in range(int(rng.integers(2, 7))):
        wide, high = rng.uniform(0.2, 0.9, 2) * per_m
        x, y = size / 2 + rng.uniform(-1.4, 1.4) * per_m, size / 2 + rng.uniform(-1.0, 0.8) * per_m
        box = [int(x - wide / 2), int(y - high / 2), int(x + wide / 2), int(y + high / 2)]
        texture[max(box[1], 0):box[3], max(box[0], 0):box[2]] = [*rng.uniform(0.03, 0.6, 3), rng.uniform(0.15, 0.6)]
    coarse = cv2.resize(rng.standard_normal((24, 24)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    texture *= (1 + 0.04 * coarse + 0.02 * rng.standard_normal((size, size)).astype(np.float32))[..., None]
    out = np.clip(texture, 0, 0.9).astype(np.float32)
    out.flags.writeable = False
    return out
