"""Pictures that instruments carry: the depicted person photographed by the camera's own colour path.

The head is rendered, encoded to 8 bits and decoded again, then printed or displayed. A picture has more than twice the
camera's sampling at half a metre, so that its sharpness in the end image is the camera's, as a live face's is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from capture.rig import Extrinsics, Intrinsics
from capture.simulated.materials import BLACK_TONER_INFRARED, DYE_TRANSMITTANCE
from capture.simulated.meshes import Float32
from capture.simulated.people import NECK_PIVOT_M, make_person
from capture.simulated.render import Stage
from capture.simulated.response import decode_srgb, encode_srgb
from capture.simulated.scene import Light, Motion, Scene, Wall
from capture.simulated.species import Ink
from capture.simulated.view import View
from capture.simulated.wall import wall_radiance


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A portrait. Places are metres from the point between the depicted eyes, x to the body's left, y up, life-sized.

    Attributes:
        radiance: linear red, green, blue (rows, columns, 3) in [0, 1] after an 8-bit round trip.
        metres_per_pixel: life-sized. eye_pixel: (column, row) of the point between the eyes.
        outline_m: (K, 2) places of the face's outline.
    """

    radiance: Float32
    metres_per_pixel: float
    eye_pixel: tuple[float, float]
    outline_m: NDArray[np.float64]

    def pixels(self, places_m: NDArray[np.floating], scale: float = 1.0) -> NDArray[np.float64]:
        """(column, row) of places (..., 2) on a sheet on which the face is `scale` times life-sized."""
        across = self.eye_pixel[0] + places_m[..., 0] / (scale * self.metres_per_pixel)
        down = self.eye_pixel[1] - places_m[..., 1] / (scale * self.metres_per_pixel)
        return np.stack([across, down], axis=-1)


@lru_cache(maxsize=8)
def take_picture(*, seed: int, identity: int, size: tuple[int, int] = (600, 840), width_m: float = 0.21,
                 expression: str = "neutral") -> Picture:
    """A frontal portrait, `size` (width, height) pixels and `width_m` wide at the face; the last few are kept."""
    width, height = size
    distance = 0.9
    still = Motion(centre_m=(0.0, 0.0, distance), pivot_m=NECK_PIVOT_M, sway_m=(0, 0, 0),
                   attitude_rad=(0.03, 0.0, 0.01), tremor_m=0.0, seed=seed)
    bodies = tuple(replace(body, expression=_Wearing(expression))
                   for body in make_person(seed=seed, identity=identity, motion=still))
    scene = Scene(name="picture", label=None, species=None, bodies=bodies, wall=Wall(distance_m=1.6, seed=seed + 5),
                  light=Light(towards_key=(0.25, -0.4, -0.88), key=0.5, ambient=0.5))
    focal = width * distance / width_m
    view = View(intrinsics=Intrinsics(width=width, height=height, fx=focal, fy=focal, cx=width / 2 - 0.5,
                                      cy=height * 0.44), from_world=Extrinsics.identity())
    stage = Stage(scene)
    states = stage.states(0.0)
    radiance = wall_radiance(view, scene.wall, scene.light)[0].reshape(-1, 3).copy()
    stage.paint_colour(view, stage.visible(view, states), radiance)
    outline = bodies[0].face_points
    assert outline is not None
    centre = view.project(states[0].pose.to_world(np.zeros((1, 3))))[0]
    scale = width_m / width
    places = (view.project(states[0].pose.to_world(outline)) - centre) * [scale, -scale]
    # The photographer's automatic exposure: the picture's bright parts are bright, whoever is on it.
    radiance *= np.float32(0.80 / max(float(np.percentile(radiance, 96)), 0.05))
    # Seen from the front, the body's left is on the image's right: x of the body grows with the column.
    developed = decode_srgb(encode_srgb(radiance.reshape(height, width, 3)))
    developed.flags.writeable = False  # pictures are shared
    return Picture(radiance=developed, metres_per_pixel=scale,
                   eye_pixel=(float(centre[0]), float(centre[1])), outline_m=places)


@dataclass(frozen=True)
class _Wearing:
    expression: str

    def __call__(self, time_s: float) -> str:
        return self.expression


def printed(radiance: Float32, ink: Ink, paper_infrared: float, rng: np.random.Generator) -> Float32:
    """Reflectance (rows, columns, 4) of a print of linear `radiance`.

    A print's blacks are not black and its colours duller than the scene's. Grey is printed with black as far as the
    common part of the three inks goes (grey component replacement, here 70 % of it).
    """
    grey = radiance.mean(axis=2, keepdims=True)
    gamut = 0.03 + 0.82 * (grey + np.float32(rng.uniform(0.75, 0.95)) * (radiance - grey))
    tint = rng.uniform(0.94, 1.04, 3).astype(np.float32)  # no two printers agree
    visible = np.clip(gamut * tint, 0, 0.9)
    # Perceived darkness decides how much black is laid down.
    black = 0.7 * np.clip(1 - np.power(np.clip(visible.max(axis=2, keepdims=True) / 0.85, 1e-4, 1), 1 / 2.2), 0, 1)
    if ink is Ink.TONER:
        infrared = paper_infrared * (1 - black) + BLACK_TONER_INFRARED * black
    else:
        infrared = paper_infrared * (1 - (1 - DYE_TRANSMITTANCE) * (1 - grey))
    out = np.concatenate([visible, infrared], axis=2)
    out *= (1 + 0.012 * rng.standard_normal((*out.shape[:2], 1))).astype(np.float32)  # paper grain
    return np.asarray(np.clip(out, 0, 1), np.float32)
