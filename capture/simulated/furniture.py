"""What may stand behind or beside a head: a booth's panel, a chair's high headrest, a notice board or poster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from capture.simulated.garments import woven
from capture.simulated.materials import CLOTH, PAPER, Material
from capture.simulated.meshes import Float32, grid_mesh
from capture.simulated.scene import NOBODY, Body, Motion, Segment

#: Leather and its imitations: a dull gloss, and dyes that are often bright at 850 nm.
_LEATHER = Material(name="leather", gloss=0.05, gloss_infrared=0.05, shininess=14.0, softness=0.1)


def _thing(name: str, points: NDArray[np.float64], texture: Float32, material: Material, distance_m: float) -> Body:
    """A still body from a grid (rows, columns, 3) around a point on the axis; the texture is spread over the grid."""
    rows, columns = points.shape[:2]
    texels = np.stack(np.meshgrid(np.linspace(0.5, texture.shape[1] - 1.5, columns),
                                  np.linspace(0.5, texture.shape[0] - 1.5, rows)), axis=-1)
    still = Motion(centre_m=(0.0, 0.0, distance_m), sway_m=(0.0, 0.0, 0.0), attitude_rad=(0.0, 0.0, 0.0), tremor_m=0.0)
    return Body(name=name, segment=Segment.OTHER, meshes={"neutral": grid_mesh(points, texels)}, texture=texture,
                material=material, motion=still, person=NOBODY)


def make_panel(distance_m: float, behind_m: float, rng: np.random.Generator) -> Body:
    """A booth's back panel or a door leaf: a plane with edges, `behind_m` behind the eyes where it is nearest."""
    half, up, down = rng.uniform(0.22, 0.50), rng.uniform(0.10, 0.45), rng.uniform(0.4, 0.7)
    yaw, aside = rng.uniform(-0.35, 0.35), rng.uniform(-0.12, 0.12)
    x, y = np.meshgrid(np.linspace(-half, half, 9) + aside, np.linspace(up, -down, 9))
    z = -(behind_m + 0.22 * abs(np.tan(yaw))) + x * np.tan(yaw)
    texture = woven(rng) if rng.uniform() < 0.4 else _painted(rng)
    return _thing("panel", np.stack([x, y, z], axis=-1), texture, CLOTH, distance_m)


def make_headrest(distance_m: float, behind_m: float, rng: np.random.Generator) -> Body:
    """A chair's back with a high headrest behind the head; in most chairs its sides come forward beside the head."""
    half, top = rng.uniform(0.125, 0.165), rng.uniform(0.06, 0.16)
    wings = rng.uniform(0.10, 0.21) if rng.uniform() < 0.75 else 0.01
    across = np.linspace(-1, 1, 41)[None, :]
    down = np.linspace(0, 1, 25)[:, None]
    shoulder = 1 + 0.7 * np.clip((down - 0.45) / 0.2, 0, 1)  # the back is wider than the headrest
    round_top = np.sqrt(np.clip(1 - ((0.10 - down) / 0.10).clip(0, 1) ** 2, 0.05, 1))
    x = half * shoulder * round_top * across
    y = np.broadcast_to(top - down * 0.75, x.shape)
    rise = np.clip((np.abs(across) - 0.68) / 0.16, 0, 1)
    fade = np.clip(1 - (down - 0.30) / 0.20, 0, 1)  # the sides end at the shoulders
    z = -behind_m + wings * rise * rise * (3 - 2 * rise) * fade - 0.02 * np.cos(across * np.pi / 2)
    leather = rng.uniform() < 0.5
    return _thing("headrest", np.stack([x, y, z], axis=-1), _painted(rng) if leather else woven(rng),
                  _LEATHER if leather else CLOTH, distance_m)


def make_board(distance_m: float, side: float, rng: np.random.Generator) -> Body:
    """A notice board, a window or a booth's side wall beside the head, at an angle: somebody leans sideways against it.
    Its inner edge is behind the face, its outer one often nearer than the face."""
    inner, wide = rng.uniform(0.092, 0.140), rng.uniform(0.20, 0.50)
    near, far = rng.uniform(-0.12, 0.06), rng.uniform(0.03, 0.18)  # behind the face: outer and inner edge
    share = np.linspace(0, 1, 9) if side > 0 else np.linspace(1, 0, 9)
    x = side * (inner + share * wide)
    behind = far + share * (min(near, far) - far)
    up, down = rng.uniform(0.08, 0.35), rng.uniform(0.25, 0.60)
    y = np.linspace(up, -down, 9)[:, None]
    points = np.stack([np.broadcast_to(x, (9, 9)), np.broadcast_to(y, (9, 9)), np.broadcast_to(-behind, (9, 9))], -1)
    return _thing("board", points, _notices(rng), PAPER, distance_m)


def _painted(rng: np.random.Generator) -> Float32:
    """Painted wood, metal or hide: (64, 64, 4). What is dark in the visible may be bright at 850 nm."""
    colour = np.array([*np.clip(rng.uniform(0.05, 0.75) * rng.uniform(0.8, 1.2, 3), 0, 0.85), rng.uniform(0.15, 0.75)])
    grain = 1 + 0.05 * np.sin(np.arange(64) * rng.uniform(0.2, 1.2) + rng.uniform(0, 6))[None, :, None]
    return np.asarray(np.clip(colour * grain * (1 + 0.02 * rng.standard_normal((64, 64, 1))), 0, 1), np.float32)


def _notices(rng: np.random.Generator) -> Float32:
    """Cork, felt or white board with sheets of text and coloured posters, no faces: (260, 180, 4)."""
    board = np.empty((260, 180, 4), np.float32)
    board[:] = [*np.clip(rng.uniform(0.15, 0.8) * rng.uniform(0.85, 1.15, 3), 0, 0.85), rng.uniform(0.25, 0.75)]
    for _ in range(int(rng.integers(2, 8))):
        height, width = int(rng.integers(40, 110)), int(rng.integers(30, 80))
        top, left = int(rng.integers(0, 260 - height)), int(rng.integers(0, 180 - width))
        paper = board[top:top + height, left:left + width]
        paper[:] = [*(rng.uniform(0.2, 0.8, 3) if rng.uniform() < 0.4 else np.repeat(rng.uniform(0.6, 0.85), 3)),
                    rng.uniform(0.55, 0.85)]
        ink = (*rng.uniform(0.04, 0.5, 3), rng.uniform(0.08, 0.8))  # toner is dark at 850 nm, dye is not
        for row in range(5, height - 5, int(rng.integers(4, 9))):
            paper[row:row + 2, 4:int(rng.integers(width // 3, width - 3))] = ink
    return board
