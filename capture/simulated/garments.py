"""What people wear besides spectacles, and may hide part of a face: a hat, a scarf, a fringe of hair."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.heads import SKIN_WIDTH, Heads
from capture.simulated.materials import CLOTH, HAIR
from capture.simulated.meshes import Float32, Mesh, grid_mesh, joined
from capture.simulated.scene import Body, Motion, Segment

#: Shares of people who wear each.
HATS, SCARVES, FRINGES = 0.12, 0.15, 0.15


def woven(rng: np.random.Generator) -> Float32:
    """Cloth: (64, 64, 4). Dyes that are dark in the visible are often bright at 850 nm; some cloth is dark there."""
    colour = np.array([*rng.uniform(0.03, 0.45, 3), rng.uniform(0.06, 0.60)])
    knit = 1 + 0.12 * cv2.GaussianBlur(rng.standard_normal((64, 64)), (0, 0), 0.8)
    stripes = 1 + rng.uniform(0, 0.4) * np.sign(np.sin(np.arange(64) / 64 * 2 * np.pi * rng.integers(2, 8)))[:, None]
    return np.asarray(np.clip((knit * stripes)[..., None] * colour, 0, 1), np.float32)


def _around(count: int, start: float = 0.0, end: float = 2 * np.pi) -> NDArray[np.float64]:
    return np.linspace(end, start, count)[None, :]


def _texels(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(np.linspace(1, 62, shape[1]), np.linspace(1, 62, shape[0])), axis=-1)


def hat_mesh(heads: Heads, identity: int, rng: np.random.Generator) -> Mesh:
    """A crown over the skull and a brim: all round, or a visor in front."""
    skin = heads.vertices(identity)[np.unique(heads.triangles[heads.part == 0])]
    level = skin[skin[:, 1] > 0.04]
    low, high = level.min(axis=0), level.max(axis=0)
    middle, half = (low[2] + high[2]) / 2, (high - low) / 2
    wide, deep, base = half[0] + 0.020, half[2] + 0.022, float(rng.uniform(0.050, 0.062))
    tall = float(high[1]) - base + rng.uniform(0.028, 0.045)
    rise = np.linspace(1, 0, 12)[:, None] * np.pi / 2
    around = _around(49)
    boxy = 0.55  # between a dome (1) and a cylinder
    ring = np.cos(rise) ** boxy
    crown = np.stack([wide * ring * np.sin(around), base + tall * np.sin(rise) * np.ones_like(around),
                      middle + deep * ring * np.cos(around)], axis=-1)
    reach = rng.uniform(0.030, 0.065)
    half_turn = np.pi if rng.uniform() < 0.5 else 1.25
    around = _around(41, -half_turn, half_turn)
    out = np.linspace(1, 0, 5)[:, None] * reach * np.minimum(1, 2.2 * (1.001 - np.abs(around) / (half_turn + 1e-9))
                                                               if half_turn < 3 else np.ones_like(around))
    slope = rng.uniform(0.05, 0.35)
    brim = np.stack([(wide + out) * np.sin(around), base + 0.002 - slope * out, middle + (deep + out) * np.cos(around)],
                    axis=-1)
    under = brim[::-1] - np.array([0, 0.003, 0])
    return joined([grid_mesh(points, _texels(points.shape)) for points in (crown[::-1], brim[::-1], under[::-1])])


def scarf_mesh(rng: np.random.Generator) -> Mesh:
    """A scarf or a high collar round the neck, with folds; it may reach the chin."""
    around, tube = _around(61)[..., None], np.linspace(0, 2 * np.pi, 15)[None, None, :]
    thick, tall = rng.uniform(0.018, 0.028), rng.uniform(0.028, 0.045)
    folds = 1 + 0.10 * np.sin(3 * tube + 2 * around + rng.uniform(0, 6)) + 0.06 * np.sin(9 * around + rng.uniform(0, 6))
    radius = 0.072 + thick * folds * np.cos(tube)
    y = rng.uniform(-0.155, -0.135) + tall * folds * np.sin(tube) - 0.012 * np.cos(around)
    points = np.stack([radius * np.sin(around), y, -0.105 + radius * np.cos(around)], axis=-1)[0]
    mesh = grid_mesh(points, _texels(points.shape))
    if np.einsum("ij,ij->i", mesh.normals, mesh.vertices - [0, y.mean(), -0.105]).mean() < 0:
        return Mesh(vertices=mesh.vertices, triangles=mesh.triangles[:, ::-1].copy(),
                    texels=mesh.texels[:, ::-1].copy())
    return mesh


def fringe_mesh(heads: Heads, identity: int, above_skin_m: float, rng: np.random.Generator) -> Mesh:
    """Strands from the hairline over the forehead, down to the brows or over one eye's corner."""
    skin = heads.vertices(identity)[np.unique(heads.triangles[heads.part == 0])].astype(np.float64)
    front = skin[(skin[:, 2] > -0.06) & (skin[:, 1] > -0.02)]
    side = rng.choice([-1.0, 1.0])
    across = np.linspace(-0.062, 0.062, 49)[None, :]
    low = rng.uniform(0.014, 0.034) - rng.uniform(0, 0.022) * np.clip(side * across / 0.06, 0, 1) ** 2
    low = low + 0.004 * np.repeat(rng.standard_normal((1, 17)), 3, axis=1)[:, :49]
    down = np.linspace(0, 1, 10)[:, None]
    y = 0.072 + down * (low - 0.072)
    x = np.broadcast_to(across, y.shape)
    away = np.square(x.ravel()[:, None] - front[:, 0]) + np.square(y.ravel()[:, None] - front[:, 1])
    nearest = np.argpartition(away, 4, axis=1)[:, :4]
    z = front[nearest, 2].mean(axis=1).reshape(y.shape)
    z = z + above_skin_m + 0.006 + 0.006 * down + 0.002 * np.sin(across * 260 + 3 * down)
    texels = np.stack([SKIN_WIDTH / 2 + x / 0.062 * 100, np.broadcast_to(20 + down * 90, x.shape)], axis=-1)
    return grid_mesh(np.stack([x, y, z], axis=-1), texels)


def make_garments(heads: Heads, identity: int, *, seed: int, motion: Motion, person: int, strands: Float32 | None,
                  above_skin_m: float = 0.0, headwear: bool = True) -> tuple[Body, ...]:
    """What that person wears. `strands`: the hair's texture, None for who has none. `headwear=False`: the head bare."""
    rng = np.random.default_rng([seed, 15])
    hat, scarf, fringe = (rng.uniform() < share for share in (HATS, SCARVES, FRINGES))
    shapes, worn = np.random.default_rng([seed, 16]), []
    cloth = woven(shapes)
    if hat and headwear:
        worn.append(("hat", hat_mesh(heads, identity, shapes), cloth, CLOTH))
    if scarf:
        worn.append(("scarf", scarf_mesh(shapes), np.ascontiguousarray(cloth[::-1, :, :] * np.float32(0.9)), CLOTH))
    if fringe and headwear and not hat and strands is not None:
        worn.append(("fringe", fringe_mesh(heads, identity, above_skin_m, shapes), strands, HAIR))
    return tuple(Body(name=name, segment=Segment.OTHER, meshes={"neutral": mesh}, texture=texture, material=material,
                      motion=motion, person=person) for name, mesh, texture, material in worn)
