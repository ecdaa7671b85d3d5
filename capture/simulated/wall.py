"""The wall behind everything: plaster, a darker door and a picture."""

from __future__ import annotations

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


def wall_radiance(view: View, wall: Wall, light: Light) -> tuple[Float32, Float32]:
    """Colour (H, W, 3) and infrared (H, W) radiance of the wall: plaster, a darker door and a picture."""
    depth = wall_depth(view, wall)
    points = view.origin + depth[..., None] * view.directions.astype(np.float64)
    rng = np.random.default_rng(wall.seed)
    noise = cv2.GaussianBlur(rng.standard_normal((256, 256)).astype(np.float32), (0, 0), 2.5)
    noise = noise / noise.std()
    x, y = points[..., 0].astype(np.float32), points[..., 1].astype(np.float32)
    plaster = cv2.remap(noise, (x * 40 + 128) % 255, (y * 40 + 128) % 255, cv2.INTER_LINEAR)
    tint = np.array([0.52, 0.50, 0.46]) * rng.uniform(0.7, 1.15, 3) * rng.uniform(0.6, 1.1)
    albedo = np.empty((*depth.shape, 4), np.float32)
    albedo[:] = [*tint, rng.uniform(0.35, 0.65)]
    scale = wall.distance_m / 2
    door = (x > rng.uniform(0.5, 0.9) * scale) & (x < 1.5 * scale)
    albedo[door] *= np.float32(0.6) * np.array([1.0, 0.8, 0.6, 0.9], np.float32)
    left, top = rng.uniform(-1.1, -0.7) * scale, rng.uniform(-0.75, -0.5) * scale
    picture = (x > left) & (x < left + 0.4) & (y > top) & (y < top + 0.3)
    albedo[picture] *= np.array([0.35, 0.5, 0.7, 0.8], np.float32)
    albedo *= 1 + 0.04 * plaster[..., None]
    lit = light.ambient * 0.8 + 0.35 * light.key * (1 - 0.12 * y / scale)
    distance_squared = np.square(np.linalg.norm(points - view.origin, axis=-1))
    facing = np.abs(view.directions @ (turn(wall.yaw_rad, 0, 0) @ np.array([0, 0, 1.0])).astype(np.float32))
    lengths = view.rays.lengths.reshape(depth.shape)
    infrared = albedo[..., 3] * (facing / lengths / distance_squared + light.room_infrared)
    tint = np.array(light.tint, np.float32)
    return np.asarray(albedo[..., :3] * lit[..., None] * tint, np.float32), np.asarray(infrared, np.float32)
