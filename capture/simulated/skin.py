"""Paints a head: skin, lips, brows, hair and eyes as reflectance in four bands (red, green, blue, 850 nm)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.heads import ATLAS_SHAPE, SKIN_HEIGHT, SKIN_WIDTH, TILE, Heads
from capture.simulated.materials import HAIR_INFRARED
from capture.simulated.meshes import Float32

#: Linear reflectance of the lightest and the darkest skin painted: red, green, blue, 850 nm. Tones differ at 850 nm,
#: but far less than in colour; numbers chosen (docs/simulator-sources.md).
_LIGHT = np.array([0.66, 0.42, 0.32, 0.62])
_DARK = np.array([0.13, 0.070, 0.045, 0.50])
#: Melanin of anybody.
MELANIN = (0.0, 0.95)
_EYE_U, _EYE_V = 0.0556, 0.386  # of the template's eyes, from the middle of the face and from the top


@dataclass(frozen=True, kw_only=True)
class Complexion:
    """Colours of one person. `melanin` in [0, 1]; `hair` and `iris` linear red, green, blue."""

    melanin: float
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    hairline: float = 0.0  # raises the hairline, in texture heights
    hair_infrared: float = HAIR_INFRARED
    scalp: float = 1.0  # how much hair covers the scalp's skin: 0 bald
    beard: float = 0.0  # how much hair covers chin and cheeks, 0 to 1
    moustache: float = 0.0

    @classmethod
    def of(cls, seed: int) -> Complexion:
        """Of the person with that seed, of a scene."""
        return cls.random(np.random.default_rng([seed, 11]))

    @classmethod
    def random(cls, rng: np.random.Generator) -> Complexion:
        """Anybody: tone, hair, eyes, beard."""
        melanin = float(rng.uniform(*MELANIN))
        hair = np.array([[0.016, 0.011, 0.009], [0.05, 0.028, 0.016], [0.20, 0.13, 0.07], [0.30, 0.29, 0.28]])
        iris = np.array([[0.05, 0.025, 0.012], [0.10, 0.06, 0.03], [0.10, 0.16, 0.22], [0.10, 0.14, 0.09]])
        light = melanin < 0.4
        kind = int(rng.integers(4 if light else 2))
        # Eumelanin still absorbs at 850 nm, less than in the visible; fair and grey hair are bright there.
        infrared = float(np.array([0.14, 0.20, 0.38, 0.45])[kind] * rng.uniform(0.8, 1.25))
        eye = tuple(iris[rng.integers(4 if light else 2)])
        bearded = rng.uniform() < 0.3
        return cls(melanin=melanin, hair=tuple(hair[kind]), iris=eye, hairline=float(rng.uniform(-0.02, 0.03)),
                   hair_infrared=infrared, scalp=float(rng.uniform(0.0, 0.25) if rng.uniform() < 0.10 else 1.0),
                   beard=float(rng.uniform(0.15, 0.95)) if bearded else 0.0,
                   moustache=float(rng.uniform(0.3, 0.95)) if bearded or rng.uniform() < 0.05 else 0.0)


def _smooth_noise(rng: np.random.Generator, width: int, height: int, cell: int) -> Float32:
    """Noise with features of about `cell` texels, zero mean, unit spread."""
    small = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _step(x: NDArray[Any], low: Any, high: Any) -> Float32:
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def skin_reflectance(melanin: float) -> NDArray[np.float64]:
    """Red, green, blue and 850 nm of skin with that much melanin in [0, 1]."""
    return np.asarray(np.exp(np.log(_LIGHT) * (1 - melanin) + np.log(_DARK) * melanin))


def hairline(side: NDArray[Any], raised: float) -> NDArray[Any]:
    """Where hair ends, in texture heights from the top, at distance `side` from the middle of the face: over the
    forehead, down before the ear as a sideburn, and low behind the ear."""
    line = 0.155 + raised + 0.02 * np.cos(side * 26) + 0.19 * _step(side, 0.13, 0.19) + 0.30 * _step(side, 0.27, 0.33)
    return np.asarray(line)


def beard_region(side: NDArray[Any], v: NDArray[Any]) -> NDArray[Any]:
    """Where a full beard grows, [0, 1]: jaw, chin and cheeks below the mouth's height, around the mouth."""
    cheek = 0.62 - 0.55 * np.clip(side - 0.06, 0, 0.12)  # its upper edge rises towards the ear
    low = _step(v, cheek - 0.02, cheek + 0.05) * (1 - _step(side, 0.185, 0.20)) * (1 - _step(v, 0.90, 0.97))
    around_mouth = 1 - np.exp(-((side / 0.042) ** 2 + ((v - 0.685) / 0.045) ** 2) ** 2)
    under_nose = 1 - np.exp(-((side / 0.05) ** 2 + ((v - 0.60) / 0.05) ** 2))
    return np.asarray(low * around_mouth * under_nose, np.float32)


@dataclass(frozen=True, eq=False)
class _Template:
    """What every head's paint has in common, over the skin's texture coordinates, each (SKIN_HEIGHT, SKIN_WIDTH)."""

    v: Float32
    flush: Float32
    lips: Float32
    near_eye: Float32
    brow: Float32
    line: Float32
    beard: Float32
    moustache: Float32


@lru_cache(maxsize=1)
def _template(heads: Heads) -> _Template:
    size = (SKIN_WIDTH, SKIN_HEIGHT)
    u, v = np.meshgrid((np.arange(size[0]) + 0.5) / size[0] - 0.5, (np.arange(size[1]) + 0.5) / size[1])
    side = np.abs(u)
    flush = np.exp(-((side - 0.085) / 0.04) ** 2 - ((v - 0.56) / 0.07) ** 2) \
        + 0.8 * np.exp(-(side / 0.02) ** 2 - ((v - 0.57) / 0.04) ** 2)
    bow = _EYE_V - 0.085 - 0.018 * np.cos((side - 0.066) / 0.045 * 1.2) + 0.010
    maps = {
        "v": v, "flush": flush,
        "lips": 0.85 * _step(cv2.GaussianBlur(cv2.resize(heads.lips, size), (0, 0), 3.0), 0.12, 0.36),
        "near_eye": np.exp(-((side - _EYE_U) / 0.036) ** 2 - ((v - _EYE_V) / 0.042) ** 2),
        "brow": np.exp(-(((v - bow) / 0.019) ** 2)) * _step(side, 0.016, 0.028) * (1 - _step(side, 0.095, 0.112)),
        "line": hairline(side, 0.0), "beard": beard_region(side, v),
        "moustache": np.exp(-((v - 0.622) / 0.020) ** 2) * (1 - _step(side, 0.030, 0.055))}
    return _Template(**{name: np.asarray(each, np.float32) for name, each in maps.items()})


def paint_head(heads: Heads, complexion: Complexion, rng: np.random.Generator) -> Float32:
    """The atlas of one head: float32 (*ATLAS_SHAPE, 4), reflectance in [0, 1] of red, green, blue and 850 nm."""
    own, size = _template(heads), (SKIN_WIDTH, SKIN_HEIGHT)
    skin = skin_reflectance(complexion.melanin)
    tone = 1 + np.float32(0.03) * _smooth_noise(rng, *size, 96) + np.float32(0.025) * _smooth_noise(rng, *size, 12) \
        + np.float32(0.02) * _smooth_noise(rng, *size, 3)
    strands = np.float32(0.75) + np.float32(0.35) * _smooth_noise(rng, *size, 4)
    brow = np.clip(own.brow * (np.float32(0.805) + np.float32(0.345) * strands), 0, 0.93)
    line = own.line + np.float32(complexion.hairline) + np.float32(0.008) * _smooth_noise(rng, *size, 8)
    scalp = np.float32(complexion.scalp) * _step(line - own.v, 0.0, 0.02)
    hair = np.maximum(brow, scalp)
    if complexion.beard or complexion.moustache:
        bristles = np.clip(np.float32(0.6) + np.float32(0.5) * _smooth_noise(rng, *size, 2), 0, 1.2)
        grown = np.maximum(np.float32(complexion.beard) * own.beard, np.float32(complexion.moustache) * own.moustache)
        hair = np.maximum(hair, np.clip(grown * bristles, 0, 0.95))

    # Blood under the cheeks, the nose and the ears takes green and blue away; skin around the eyes is thin and dark.
    flushed, lidded = np.array([0.033, 0.22, 0.198, 0.0]), np.array([0.30, 0.36, 0.36, 0.10])
    lip_tint = np.array([0.80, 0.50, 0.52, 0.92])
    atlas = np.zeros((*ATLAS_SHAPE, 4), np.float32)
    for band in range(4):
        face = 1 - np.float32(flushed[band]) * own.flush
        face += own.lips * (np.float32(lip_tint[band]) - face)
        face *= 1 - np.float32(lidded[band]) * own.near_eye
        face *= tone
        face *= np.float32(skin[band])
        face += hair * (strands * np.float32((*complexion.hair, complexion.hair_infrared)[band]) - face)
        atlas[:SKIN_HEIGHT, :, band] = face
    x, y = np.meshgrid(*[(np.arange(TILE, dtype=np.float32) + 0.5) / TILE * 2 - 1] * 2)
    r = np.hypot(x, y)
    eye = np.empty((TILE, TILE, 4), np.float32)
    eye[:] = np.array([0.50, 0.46, 0.44, 0.46])
    iris = (1 - _step(r, 0.43, 0.48))[..., None]
    rays = (1 + 0.25 * np.sin(np.arctan2(y, x) * 24))[..., None]
    eye = eye * (1 - iris) + iris * np.array([*complexion.iris, 0.30]) * rays
    pupil = (1 - _step(r, 0.17, 0.21))[..., None]
    eye = eye * (1 - pupil) + pupil * np.array([0.008, 0.008, 0.008, 0.02])
    eye *= (1 - 0.55 * _step(-y, 0.05, 0.40) - 0.25 * _step(np.abs(x), 0.5, 0.8))[..., None]  # the lids' shade
    atlas[SKIN_HEIGHT:, :TILE] = eye
    atlas[SKIN_HEIGHT:, TILE:2 * TILE] = eye
    atlas[SKIN_HEIGHT:, 2 * TILE:3 * TILE] = np.array([0.16, 0.05, 0.05, 0.30])
    return np.clip(atlas, 0, 1, out=atlas)
