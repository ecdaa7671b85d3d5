"""Hair as geometry: a coat over the scalp, a curtain of long hair, a full beard. Its colour is the complexion's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.heads import SKIN_HEIGHT, SKIN_WIDTH, Heads
from capture.simulated.meshes import Float32, Mesh, grid_mesh, joined
from capture.simulated.skin import Complexion, beard_region, hairline


class HairStyle(StrEnum):
    """How hair is worn."""

    SHAVED = "shaved"
    SHORT = "short"
    FULL = "full"
    LONG = "long"


#: Thickness at the sides and on top, metres.
_THICKNESS = {HairStyle.SHORT: (0.004, 0.010), HairStyle.FULL: (0.010, 0.026), HairStyle.LONG: (0.009, 0.017)}
#: A coat dives below the skin where no hair grows, so that its edge is where it surfaces.
_BELOW_M = -0.004


@dataclass(frozen=True)
class Hair:
    """What grows on one head. `beard_m` is the length of a beard that stands off the skin, 0 for stubble or none."""

    style: HairStyle
    beard_m: float = 0.0

    @classmethod
    def random(cls, complexion: Complexion, rng: np.random.Generator) -> Hair:
        """Fits the complexion: who is bald there is shaved here."""
        style = HairStyle(rng.choice([style.value for style in HairStyle], p=[0.12, 0.38, 0.28, 0.22]))
        if complexion.scalp < 0.5:
            style = HairStyle.SHAVED
        return cls(style, float(rng.uniform(0.003, 0.012)) if complexion.beard > 0.7 else 0.0)


def _coat(heads: Heads, identity: int, lift_m: NDArray[np.float64], expression: str = "neutral",
          amount: float = 1.0) -> Mesh:
    """The head's skin moved outward by `lift_m` (V,), as far as any corner of a triangle is lifted above it."""
    triangles = heads.triangles[heads.part == 0]
    skin = Mesh(vertices=heads.vertices(identity, expression, amount), triangles=triangles,
                texels=heads.texels[heads.part == 0])
    vertices = skin.vertices + lift_m[:, None].astype(np.float32) * skin.normals
    keep = (lift_m[triangles] > 0).any(axis=1)
    return Mesh(vertices=vertices, triangles=triangles[keep], texels=skin.texels[keep])


def hair_mesh(heads: Heads, identity: int, style: HairStyle, complexion: Complexion,
              rng: np.random.Generator) -> Mesh | None:
    """The hair of a head in its frame; None where there is none to stand off."""
    if style is HairStyle.SHAVED:
        return None
    paint = heads.paint.astype(np.float64)
    side, v = np.abs(paint[:, 0] - 0.5), paint[:, 1]
    sides_m, top_m = _THICKNESS[style]
    scale = rng.uniform(0.7, 1.3)
    above = hairline(side, complexion.hairline) - v  # texture heights above the hairline
    grown = np.clip(above / 0.07, -1, 1)
    lumps = cv2.GaussianBlur(rng.standard_normal((24, 48)).astype(np.float32), (0, 0), 1.0)
    lumps = lumps / lumps.std()
    column, row = (np.clip(paint * [47, 23], 0, [47, 23])).astype(int).T
    bumpy = 1 + 0.22 * lumps[row, column]
    thick = (top_m + (sides_m - top_m) * np.clip((v - 0.05) / 0.25, 0, 1)) * scale * bumpy
    lift = np.where(grown > 0, np.sqrt(np.maximum(grown, 0)) * thick, _BELOW_M * np.minimum(-grown * 4, 1))
    ear = (side > 0.22) & (side < 0.30) & (v > 0.30) & (v < 0.62)
    if style is not HairStyle.LONG:
        lift[ear] = _BELOW_M
    coat = _coat(heads, identity, lift)
    if style is not HairStyle.LONG:
        return coat
    return joined([coat, _curtain(heads, identity, rng)])


def _curtain(heads: Heads, identity: int, rng: np.random.Generator) -> Mesh:
    """Long hair from the temples down to the shoulders, around the back of the head."""
    skin = heads.vertices(identity)[np.unique(heads.triangles[heads.part == 0])]
    level = skin[np.abs(skin[:, 1] - 0.02) < 0.03]
    wide = float(np.abs(level[:, 0]).max()) + 0.006
    middle, deep = float(level[:, 2].min() + level[:, 2].max()) / 2, float(np.ptp(level[:, 2])) / 2 + 0.012
    length = rng.uniform(0.16, 0.30)
    opening = rng.uniform(1.15, 1.40)  # radians from the front that stay free
    around = np.linspace(2 * np.pi - opening, opening, 61)[None, :]
    down = np.linspace(0, 1, 14)[:, None]
    flare = 1 + 0.22 * down - 0.10 * np.sin(down * np.pi)
    strands = 1 + 0.018 * np.sin(around * 23 + rng.uniform(0, 6)) + 0.012 * np.sin(around * 51 + 4 * down)
    x = wide * flare * strands * np.sin(around)
    z = middle + deep * flare * strands * np.cos(around)
    y = np.broadcast_to(0.055 - down * (0.055 + length), x.shape)
    texels = np.stack([np.broadcast_to(np.linspace(40, SKIN_WIDTH - 40, 61)[None, :], x.shape),
                       np.broadcast_to(20 + down * 200, x.shape)], axis=-1)
    return grid_mesh(np.stack([x, y, z], axis=-1), texels)


def beard_mesh(heads: Heads, identity: int, length_m: float, expression: str = "neutral",
               amount: float = 1.0) -> Mesh:
    """A beard that stands `length_m` off the skin."""
    paint = heads.paint.astype(np.float64)
    region = beard_region(np.abs(paint[:, 0] - 0.5), paint[:, 1]).astype(np.float64)
    lift = np.where(region > 0.35, length_m * np.sqrt(np.clip((region - 0.35) / 0.65, 0, 1)), _BELOW_M)
    return _coat(heads, identity, lift, expression, amount)


def paint_hair(complexion: Complexion, rng: np.random.Generator) -> Float32:
    """Strands over the skin's texture coordinates, (SKIN_HEIGHT, SKIN_WIDTH, 4): long downward, thin across."""
    noise = rng.standard_normal((SKIN_HEIGHT // 4, SKIN_WIDTH // 2)).astype(np.float32)
    strands = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.8, sigmaY=9.0)
    locks = cv2.GaussianBlur(noise, (0, 0), sigmaX=7.0, sigmaY=16.0)
    relief = 0.9 + 0.20 * strands / strands.std() + 0.15 * locks / locks.std()
    relief = cv2.resize(np.clip(relief, 0.25, 1.8), (SKIN_WIDTH, SKIN_HEIGHT), interpolation=cv2.INTER_LINEAR)
    colour = np.array([*complexion.hair, complexion.hair_infrared], np.float32)
    return np.asarray(np.clip(relief[..., None] * colour, 0, 1), np.float32)
