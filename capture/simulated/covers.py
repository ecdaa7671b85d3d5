"""What is worn around a face and leaves it free: a hood, a headscarf. Cloth a few centimetres beside the cheeks, for
live people as for depicted ones."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from capture.simulated.garments import woven
from capture.simulated.heads import Heads
from capture.simulated.materials import CLOTH
from capture.simulated.meshes import Mesh, grid_mesh
from capture.simulated.scene import Body, Motion, Segment


class Cover(StrEnum):
    """Either hides hair and hat; a headscarf hides the neck, too."""

    NONE = "none"
    HOOD = "hood"
    HEADSCARF = "headscarf"


def cover_mesh(heads: Heads, identity: int, cover: Cover, above_skin_m: float, rng: np.random.Generator) -> Mesh:
    """A shell of cloth over skull and neck with an opening for the face, in the head's frame."""
    skin = heads.vertices(identity)[np.unique(heads.triangles[heads.part == 0])]
    level = skin[skin[:, 1] > 0.0]
    low, high = level.min(axis=0).astype(np.float64), level.max(axis=0).astype(np.float64)
    hood = cover is Cover.HOOD
    away = above_skin_m + (rng.uniform(0.016, 0.036) if hood else rng.uniform(0.007, 0.013))
    middle, wide, deep = (low[2] + high[2]) / 2, (high[0] - low[0]) / 2 + away, (high[2] - low[2]) / 2 + away
    top, bottom = float(high[1]) + away, -0.24 if hood else -0.20
    down = np.linspace(0, 1, 40)[:, None]
    y = top + (bottom - top) * down
    # Round above the brows, then straight down, narrower at the neck, wider again on the shoulders.
    dome = np.sqrt(np.clip(1 - (np.clip(y - 0.02, 0, None) / (top - 0.02)) ** 2, 0.0004, 1))
    neck = np.clip((-0.06 - y) / 0.07, 0, 1)
    neck = neck * neck * (3 - 2 * neck)
    narrow = 1 - (0.10 if hood else 0.16) * neck + 0.9 * np.clip((-0.165 - y) / 0.075, 0, 1) ** 1.5
    # How far from straight ahead the cloth begins: closed over the forehead, open beside the face, closed below it.
    brow, beside = rng.uniform(0.058, 0.072), rng.uniform(0.95, 1.10) if hood else rng.uniform(0.98, 1.12)
    chin = -0.17 if hood else -0.145
    rise = np.clip((brow - y) / 0.045, 0, 1)
    fall = np.clip((y - chin) / 0.05, 0, 1)
    opening = -0.03 + beside * np.sqrt(rise * (2 - rise)) * (np.sqrt(fall * (2 - fall)) if not hood
                                                            else 0.55 + 0.45 * fall)
    around = opening + (2 * np.pi - 2 * opening) * np.linspace(1, 0, 61)[None, :]
    folds = 1 + (0.018 if hood else 0.010) * np.sin(5 * around + 30 * y + rng.uniform(0, 6))
    x = wide * narrow * dome * folds * np.sin(around)
    z = middle + deep * narrow * dome * folds * np.cos(around)
    points = np.stack([x, np.broadcast_to(y, x.shape), z], axis=-1)
    texels = np.stack(np.meshgrid(np.linspace(1, 62, 61), np.linspace(1, 62, 40)), axis=-1)
    mesh = grid_mesh(points, texels)
    outward = np.einsum("ij,ij->i", mesh.normals.astype(np.float64)[:, [0, 2]],
                        mesh.vertices[:, [0, 2]] - np.array([0.0, middle])).mean()
    return mesh if outward > 0 else Mesh(vertices=mesh.vertices, triangles=mesh.triangles[:, ::-1].copy(),
                                         texels=mesh.texels[:, ::-1].copy())


def make_cover(heads: Heads, identity: int, cover: Cover, *, seed: int, motion: Motion, person: int,
               above_skin_m: float = 0.0) -> tuple[Body, ...]:
    """The cover as a body that moves with the head; nothing for `Cover.NONE`."""
    if cover is Cover.NONE:
        return ()
    rng = np.random.default_rng([seed, 18])
    cloth = woven(rng)
    mesh = cover_mesh(heads, identity, cover, above_skin_m, rng)
    return (Body(name=cover.value, segment=Segment.OTHER, meshes={"neutral": mesh}, texture=cloth, material=CLOTH,
                 motion=motion, person=person),)
