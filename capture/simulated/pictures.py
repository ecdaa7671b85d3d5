"""Pictures that instruments carry: the depicted person photographed by the camera's own colour path.

The head is rendered, encoded to 8 bits and decoded again, then printed or displayed. A picture has twice the camera's
sampling at half a metre, so that its sharpness in the end image is the camera's, as a live face's is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from capture.rig import Extrinsics, Intrinsics
from capture.simulated.covers import Cover
from capture.simulated.materials import BLACK_TONER_INFRARED, DYE_TRANSMITTANCE, PAPER_WHITE, TONER_STRENGTH
from capture.simulated.meshes import Float32
from capture.simulated.people import NECK_PIVOT_M, make_person
from capture.simulated.render import Stage, Visible
from capture.simulated.response import decode_srgb, encode_srgb
from capture.simulated.scene import Light, Motion, Scene, Wall
from capture.simulated.species import Ink
from capture.simulated.view import View
from capture.simulated.wall import COLOUR, INFRARED, wall_radiance


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A portrait. Places are metres from the point between the depicted eyes, x to the body's left, y up, life-sized.

    Attributes:
        radiance: linear red, green, blue (rows, columns, 3) in [0, 1] after an 8-bit round trip.
        metres_per_pixel: life-sized. eye_pixel: (column, row) of the point between the eyes.
        outline_m: (K, 2) places of the face's outline.
        light, bright: what fell on the photographer's film, and how much of that became white.
        infrared: (rows, columns) of the same moment at 850 nm by a lamp beside the camera, skin about 1; None unless
            asked for.
    """

    radiance: Float32
    metres_per_pixel: float
    eye_pixel: tuple[float, float]
    outline_m: NDArray[np.float64]
    light: Float32
    bright: float
    infrared: Float32 | None = None

    def enlarged(self, scale: float) -> Picture:
        """The same picture printed or shown `scale` times as large: its places are places on the sheet."""
        return replace(self, metres_per_pixel=self.metres_per_pixel * scale, outline_m=self.outline_m * scale)

    def pixels(self, places_m: NDArray[np.floating], scale: float = 1.0) -> NDArray[np.float64]:
        """(column, row) of places (..., 2) on a sheet on which the face is `scale` times life-sized."""
        across = self.eye_pixel[0] + places_m[..., 0] / (scale * self.metres_per_pixel)
        down = self.eye_pixel[1] - places_m[..., 1] / (scale * self.metres_per_pixel)
        return np.stack([across, down], axis=-1)


#: Life-sized metres a pixel of a portrait, about: half of what a camera resolves at half a metre.
SAMPLING_M = 0.4e-3
#: Where in a picture the point between the eyes lies: middle of the width, this share of the height.
_EYES_DOWN = 0.44
#: What moves in each expression, metres (left, right, up, down) around the point between the eyes: the rest of the
#: picture is that of the neutral face.
_EYES_M, _WHOLE_FACE_M = (0.075, 0.075, 0.035, 0.035), (0.10, 0.10, 0.05, 0.16)
_MOVES = {"half_blink": _EYES_M, "blink": _EYES_M, "smile": _WHOLE_FACE_M, "jaw_open": _WHOLE_FACE_M}


@lru_cache(maxsize=12)
def take_picture(*, seed: int, identity: int, portrait_seed: int | None = None, size_m: tuple[float, float],
                 expression: str | None = None, liveliness: float = 1.0, cover: Cover = Cover.NONE,
                 infrared: bool = False) -> Picture:
    """A portrait, `size_m` (width, height) at the face, life-sized; the last few are kept.

    The depicted person holds the head, and wears an expression, as live people do in a live frame: both are drawn by
    `portrait_seed` (by default `seed`) from the movement of a live face of that `liveliness`. `expression` asks for
    one in particular, `cover` what is worn around the face, `infrared` an infrared picture beside it.
    """
    width, height = (round(length / SAMPLING_M) for length in size_m)
    distance = 0.9
    portrait_seed = seed if portrait_seed is None else portrait_seed
    rng = np.random.default_rng([portrait_seed, 24])
    time_s = float(rng.uniform(0, 60))
    moving = Motion(centre_m=(0.0, 0.0, distance), pivot_m=NECK_PIVOT_M, sway_m=(0, 0, 0), tremor_m=0.0,
                    seed=portrait_seed)
    yaw, pitch, roll = moving.attitude_rad
    moving = replace(moving, attitude_rad=(yaw * liveliness, pitch * liveliness, roll))
    bodies = make_person(seed=seed, identity=identity, motion=moving, cover=cover)
    worn = bodies[0].expression(time_s) if expression is None else expression
    towards = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.7, -0.2), -0.88])
    key = float(rng.uniform(0.35, 0.65))
    scene = Scene(name="picture", label=None, species=None,
                  bodies=tuple(replace(body, expression=_Wearing(worn)) for body in bodies),
                  wall=Wall(distance_m=1.6, seed=portrait_seed + 5),
                  light=Light(towards_key=(float(towards[0]), float(towards[1]), -0.88), key=key, ambient=1 - key))
    view = View(intrinsics=Intrinsics(width=width, height=height, fx=width * distance / size_m[0],
                                      fy=width * distance / size_m[0], cx=width / 2 - 0.5, cy=height * _EYES_DOWN),
                from_world=Extrinsics.identity())
    stage = Stage(scene)
    states = stage.states(time_s)
    centre = view.project(states[0].pose.to_world(np.zeros((1, 3))))[0]
    scale = size_m[0] / width
    window = None
    if worn in _MOVES and expression is not None and expression != "neutral":
        neutral = take_picture(seed=seed, identity=identity, portrait_seed=portrait_seed, size_m=size_m,
                               expression="neutral", liveliness=liveliness, cover=cover)
        radiance = neutral.light.reshape(-1, 3).copy()
        left, right, up, down = (length / scale for length in _MOVES[worn])
        window = (slice(max(round(centre[1] - up), 0), max(round(centre[1] + down), 0)),
                  slice(max(round(centre[0] - left), 0), max(round(centre[0] + right), 0)))
    else:
        radiance = wall_radiance(view, scene.wall, scene.light, COLOUR).reshape(-1, 3)
    visible = stage.visible(view, states, window)
    stage.paint(view, visible, colour=radiance)
    outline = bodies[0].face_points
    assert outline is not None
    places = (view.project(states[0].pose.to_world(outline)) - centre) * [scale, -scale]
    light = radiance.reshape(height, width, 3)
    # The photographer's automatic exposure: the picture's bright parts are bright, whoever is on it.
    bright = float(np.percentile(light[::4, ::4], 96)) if window is None else neutral.bright
    # Seen from the front, the body's left is on the image's right: x of the body grows with the column.
    developed = decode_srgb(encode_srgb(light * np.float32(0.80 / max(bright, 0.05))))
    for shared in (developed, light):
        shared.flags.writeable = False  # pictures are shared
    return Picture(radiance=developed, metres_per_pixel=scale, light=light, bright=bright,
                   infrared=_infrared_picture(stage, view, visible) if infrared else None,
                   eye_pixel=(float(centre[0]), float(centre[1])), outline_m=places)


def _infrared_picture(stage: Stage, view: View, visible: Visible) -> Float32:
    """What an infrared camera beside its lamp saw, (rows, columns): the brighter half of what the person shows is 1 in
    the median, after an 8-bit round trip."""
    light = wall_radiance(view, stage.scene.wall, stage.scene.light, INFRARED).reshape(-1)
    stage.paint(view, visible, infrared=light)
    shown = light[visible.owner.reshape(-1) >= 0]
    skin = float(np.percentile(shown, 75)) if len(shown) else 1.0
    picture = np.rint(np.clip(light / max(skin, 1e-6) / 1.5, 0, 1) * 255) / 255 * 1.5
    picture = picture.reshape(visible.depth_m.shape).astype(np.float32)
    picture.flags.writeable = False  # pictures are shared
    return np.asarray(picture)


@dataclass(frozen=True)
class _Wearing:
    expression: str

    def __call__(self, time_s: float) -> str:
        return self.expression


def printed(radiance: Float32, ink: Ink, paper_infrared: float, rng: np.random.Generator) -> Float32:
    """Reflectance (rows, columns, 4) of a print of linear `radiance`.

    A print's blacks are not black and its colours duller than the scene's. Grey is printed with black as far as the
    common part of the three inks goes (grey component replacement), by a share that is the printer's own.
    """
    grey = radiance.mean(axis=2, keepdims=True)
    white, strength = rng.uniform(*PAPER_WHITE), np.float32(rng.uniform(*TONER_STRENGTH))
    toner, dye = rng.uniform(*BLACK_TONER_INFRARED), np.float32(rng.uniform(*DYE_TRANSMITTANCE))
    gamut = 0.03 + np.float32(white - 0.03) * (grey + np.float32(rng.uniform(0.75, 0.95)) * (radiance - grey))
    tint = rng.uniform(0.94, 1.04, 3).astype(np.float32)  # no two printers agree
    visible = np.clip(gamut * tint, 0, 0.9)
    # Perceived darkness decides how much black is laid down.
    black = strength * np.clip(1 - np.power(np.clip(visible.max(axis=2, keepdims=True) / np.float32(white), 1e-4, 1),
                                            np.float32(1 / 2.2)), 0, 1)
    if ink is Ink.TONER:
        infrared = paper_infrared * (1 - black) + np.float32(toner) * black
    else:
        infrared = paper_infrared * (1 - (1 - dye) * (1 - grey))
    out = np.concatenate([visible, infrared], axis=2)
    out *= (1 + 0.012 * rng.standard_normal((*out.shape[:2], 1), dtype=np.float32))  # paper grain
    return np.asarray(np.clip(out, 0, 1), np.float32)
