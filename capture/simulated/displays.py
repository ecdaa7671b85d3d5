"""Displays that show a face: they glow in colour, and are dark glass (or a dull film) to the infrared sensor."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.materials import (
    BEZEL_INFRARED,
    DISPLAY_BRIGHTNESS,
    DISPLAY_HOLES,
    MATTE_SCREEN,
    MATTE_SCREEN_INFRARED,
    SCREEN,
    SCREEN_INFRARED,
)
from capture.simulated.meshes import Float32, Mesh, grid_mesh
from capture.simulated.pictures import Picture
from capture.simulated.scene import Blinking, Body, Motion, Segment, always_neutral
from capture.simulated.species import Display

#: Metres a texel of a front: finer than a camera resolves at half a metre.
_TEXEL_M = 0.4e-3


def make_display(display: Display, pictures: dict[str, Picture], *, motion: Motion,
                 rng: np.random.Generator) -> Body:
    """The display as a body; the shown eyes lie at the body's origin.

    `pictures` by expression, at least `neutral`. A video holds several in one texture, side by side: each expression's
    mesh is the same front with other texels.
    """
    width_m, height_m = display.size_m
    width, height = round(width_m / _TEXEL_M), round(height_m / _TEXEL_M)
    shown = list(pictures) if display.video else ["neutral"]
    tint = np.array([rng.uniform(0.90, 1.0), 1.0, rng.uniform(0.98, 1.12)], np.float32)  # displays run blue
    brightness = float(rng.uniform(*DISPLAY_BRIGHTNESS))
    back = float(rng.uniform(*(MATTE_SCREEN_INFRARED if display.matte else SCREEN_INFRARED)))
    texture = np.zeros((height, width * len(shown), 4), np.float32)
    # Eyes in the middle, somewhat above the centre, as a video call frames them.
    metres_per_pixel = height_m / height
    eye = (0.5, 0.44)
    column, row = np.meshgrid(np.arange(width), np.arange(height))
    places = np.stack([(column - eye[0] * width), (eye[1] * height - row)], axis=-1) * metres_per_pixel
    for number, name in enumerate(shown):
        front = texture[:, number * width:(number + 1) * width]
        front[..., :3] = 0.008 + tint * brightness * _picture_at(pictures[name], places, display.face_scale)
        front[..., 3] = back
        edge = max(round(display.bezel_m / metres_per_pixel), 1)
        frame = np.ones((height, width), bool)
        frame[edge:-edge, edge:-edge] = False
        front[frame] = [0.012, 0.012, 0.013, BEZEL_INFRARED]
    grid = np.stack(np.meshgrid(np.linspace(-eye[0], 1 - eye[0], 9) * width_m,
                                np.linspace(eye[1], eye[1] - 1, 9) * height_m), axis=-1)
    points = np.concatenate([grid, np.full((9, 9, 1), 0.02)], axis=-1)
    texels = np.stack(np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 9)), axis=-1)
    meshes: dict[str, Mesh] = {name: grid_mesh(points, texels + np.array([number * width, 0]))
                               for number, name in enumerate(shown)}
    material = MATTE_SCREEN if display.matte else replace(SCREEN, hole_fraction=float(rng.uniform(*DISPLAY_HOLES)))
    material = replace(material, pixel_pitch_m=display.pitch_m)
    outline = pictures["neutral"].outline_m * display.face_scale
    return Body(name="display", segment=Segment.FACE, meshes=meshes, texture=texture, material=material, motion=motion,
                expression=Blinking(motion.seed) if display.video else always_neutral,
                face_points=np.concatenate([outline, np.full((len(outline), 1), 0.02)], axis=1).astype(np.float32))


def _picture_at(picture: Picture, places_m: NDArray[np.float64], scale: float) -> Float32:
    """The picture's radiance at places of the front; its own edge is repeated beyond it."""
    pixels = picture.pixels(places_m, scale).astype(np.float32)
    shrink = (places_m[0, 1, 0] - places_m[0, 0, 0]) / (scale * picture.metres_per_pixel)
    source = picture.radiance
    if shrink > 1.2:  # drawn smaller than it was taken: every shown pixel is the mean of several
        source = np.asarray(cv2.GaussianBlur(source, (0, 0), 0.4 * float(np.sqrt(shrink ** 2 - 1))), np.float32)
    return np.asarray(cv2.remap(source, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR,
                                borderMode=cv2.BORDER_REPLICATE), np.float32)
