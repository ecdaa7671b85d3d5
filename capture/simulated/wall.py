"""The wall behind everything: plaster, a darker door and a picture."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from capture.simulated.meshes import Float32
from capture.simulated.scene import Light, Wall, turn
from capture.simulated.view import View


def wall_depth(view: View, wall: Wall) -> Float32:
    """Depth (H, W) of the wall along the view's axis."""
    normal = turn(wall.yaw_rad, 0, 0) @ np.array([0.0, 0.0, -1.0])
    offset = normal @ np.array([0.0, 0.0, wall.distance_m])
    depth = (offset - normal @ view.origin) / (view.directions.astype(np.float64) @ normal)
    return np.asarray(depth, np.float32)


@lru_cache(maxsize=4)
def _plaster(seed: int) -> Float32:
    noise = np.random.default_rng([seed, 1]).standard_normal((256, 256), dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 2.5), np.float32)
    return np.asarray(noise / noise.std(), np.float32)


#: Bands of `wall_radiance`: red, green, blue; near infrared.
COLOUR, INFRARED = (0, 1, 2), (3,)


def wall_radiance(view: View, wall: Wall, light: Light, bands: tuple[int, ...]) -> Float32:
    """Radiance of the wall in some `bands` (red, green, blue, infrared), (H, W, bands): plaster, a darker door and a
    picture.

    The wall stands out of focus behind the subject: it is painted at half the view's resolution and enlarged.
    """
    height, width = view.directions.shape[:2]
    directions = cv2.resize(view.directions, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    normal = (turn(wall.yaw_rad, 0, 0) @ np.array([0.0, 0.0, -1.0])).astype(np.float32)
    origin = view.origin.astype(np.float32)
    cosine = directions @ normal
    depth = np.float32(float(normal[2]) * wall.distance_m - float(normal @ origin)) / cosine
    x, y = origin[0] + depth * directions[..., 0], origin[1] + depth * directions[..., 1]
    rng = np.random.default_rng(wall.seed)
    plaster = 1 + np.float32(0.04) * cv2.remap(_plaster(wall.seed), (x * 40 + 128) % 255, (y * 40 + 128) % 255,
                                               cv2.INTER_LINEAR)
    paint = np.array([0.52, 0.50, 0.46]) * rng.uniform(0.7, 1.15, 3) * rng.uniform(0.6, 1.1)
    albedo = np.array([*paint, rng.uniform(0.35, 0.65)], np.float32)
    scale = np.float32(wall.distance_m / 2)
    door = (x > rng.uniform(0.5, 0.9) * scale) & (x < 1.5 * scale)
    left, top = rng.uniform(-1.1, -0.7) * scale, rng.uniform(-0.75, -0.5) * scale
    picture = (x > left) & (x < left + 0.4) & (y > top) & (y < top + 0.3)
    lit = np.float32(light.ambient * 0.8) + np.float32(0.35 * light.key) * (1 - np.float32(0.12) * y / scale)
    squared_length = np.einsum("ijk,ijk->ij", directions, directions)
    returned = -cosine / np.sqrt(squared_length) / (depth * depth * squared_length) + np.float32(light.room_infrared)
    painted = []
    for band in bands:
        shade = plaster * albedo[band]
        shade[door] *= np.float32(0.6 * (1.0, 0.8, 0.6, 0.9)[band])
        shade[picture] *= np.float32((0.35, 0.5, 0.7, 0.8)[band])
        painted.append(shade * (returned if band == 3 else lit * np.float32(light.tint[band])))
    whole = cv2.resize(cv2.merge(painted), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(whole.reshape(height, width, len(bands)), np.float32)
